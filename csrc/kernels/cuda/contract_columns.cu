// grad_mask = sum over the channels of an offset group of columns * gather(input).
//
// A block has a tile of pixels and a few taps of one offset group, and sums over all channels: no
// atomics, one order. Bytes: the columns once, the input once for each tap, mostly from the cache.
#include "core/context.h"
#include "kernels/convolution.h"
#include "kernels/cuda/columns_stage.cuh"
#include "kernels/cuda/contract.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layout.cuh"

namespace deformops::cuda {
namespace {

template <class T>
struct Contract {
  SampledWindow<T> window;
  View<const T, 4> input;
  View<const T, 5> columns;
  View<T, 4> grad_mask;
  Plane plane;  // of the input
  bool vectors;
  RowTiling tiling;
  int pixel_tiles;
};

template <class T, Lanes kLanes>
__global__ void __launch_bounds__(kThreads, 5) contract_columns_kernel(const Contract<T> problem) {
  using C = compute_t<T>;
  using Shape = Tile<T>;
  constexpr int kTaps = StageRows<T>::kTaps;

  __shared__ C stage[Shape::kStageRows * Shape::kStagePitch];
  __shared__ TapTable<C, kTaps, Shape::kN> table;
  __shared__ CornerSums<T> sums;

  const RowTiling& tiling = problem.tiling;
  const SampledWindow<T>& window = problem.window;
  int64_t block = blockIdx.x;
  const int first_pixel = static_cast<int>(block % problem.pixel_tiles) * Shape::kN;
  block /= problem.pixel_tiles;
  const int first_tap = static_cast<int>(block % tiling.tap_tiles) * tiling.tile_taps;
  block /= tiling.tap_tiles;
  const int64_t group = block % window.offset_groups, n = block / window.offset_groups;
  const int taps = min(tiling.tile_taps, tiling.taps - first_tap);

  // The window has no mask: the weights of the table are those of the gather.
  fill_taps(table, window, n, group, first_tap, taps, first_pixel);
  clear(sums);
  __syncthreads();
  for (int chunk = 0; chunk < tiling.chunks; ++chunk) {
    const int64_t channel = group * tiling.segment + (chunk << tiling.shift);
    const int channels = tiling.chunk_channels(chunk);
    load_columns(stage, problem.columns, tiling, n, channel, channels, first_tap, taps,
                 first_pixel);
    __syncthreads();
    const Source<const T> source = {problem.input.pointer(n, channel), problem.input.strides[1],
                                    problem.vectors};
    contract_stage<T, kLanes>(stage, 0, table.axes, source, problem.plane, tiling,
                              {channels, taps, 0, 0}, sums);
    __syncthreads();
  }

  const int column = threadIdx.x % Shape::kN;
  const int pixel = first_pixel + column;
  if (pixel >= window.pixels()) return;
  const int width = static_cast<int>(window.x.output);
  for (int tap = threadIdx.x / Shape::kN; tap < taps; tap += kThreads / Shape::kN) {
    const Weights<C> weights = table.weights[tap][column];
    const Weights<C> total = sums_of_tap(sums, tiling, tap, column);
    C value = C(0);
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      value += weights.corner[corner] * total.corner[corner];
    }
    problem.grad_mask(n, group * tiling.taps + first_tap + tap, pixel / width, pixel % width) =
        round_to<T>(value);
  }
}

}  // namespace

template <class T>
void contract_columns(const Context& context, const SampledWindow<T>& window,
                      View<const T, 4> input, View<const T, 5> columns, View<T, 4> grad_mask) {
  const int64_t segment = input.sizes[1] / window.offset_groups;
  Contract<T> problem = {};
  problem.window = window;
  problem.window.mask = {};
  problem.input = input;
  problem.columns = columns;
  problem.grad_mask = grad_mask;
  problem.plane = plane_of(input);
  problem.vectors = has_vectors(input, segment);
  problem.tiling = tile_rows(segment, window.taps(), StageRows<T>::kRows, StageRows<T>::kLeast);
  problem.pixel_tiles = tile_pixels(window, Tile<T>::kN);
  const auto kernel = lanes_of(input) == Lanes::kChannels
                          ? contract_columns_kernel<T, Lanes::kChannels>
                          : contract_columns_kernel<T, Lanes::kPixels>;
  launch("contract_columns", kernel,
         input.sizes[0] * window.offset_groups * problem.tiling.tap_tiles * problem.pixel_tiles,
         kThreads, context.stream, problem);
}

#define DEFORMOPS_INSTANTIATE(T)                                                               \
  template void contract_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 4>, \
                                    View<const T, 5>, View<T, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

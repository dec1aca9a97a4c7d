// grad_input = scatter(mask * columns), the transpose of gather_columns.
//
// A block has a tile of pixels and a few taps of one offset group, and runs through the channels:
// columns are read along pixels into shared memory and added to the map along pixels, as it lies.
// Bytes: the columns once; four atomic additions for each, which neighbouring pixels send to the
// same lines.
#include "core/context.h"
#include "kernels/convolution.h"
#include "kernels/cuda/columns_stage.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ordered_scatter.cuh"
#include "kernels/cuda/scatter.cuh"
#include "kernels/cuda/sums.cuh"

namespace deformops::cuda {
namespace {

template <class T>
struct Scatter {
  SampledWindow<T> window;
  View<const T, 5> columns;
  View<compute_t<T>, 4> sums;
  Plane plane;  // of the sums
  RowTiling tiling;
  int pixel_tiles;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 6) scatter_columns_kernel(const Scatter<T> problem) {
  using C = compute_t<T>;
  using Shape = Tile<T>;

  __shared__ C stage[Shape::kStageRows * Shape::kStagePitch];
  __shared__ TapTable<C, StageRows<T>::kTaps, Shape::kN> table;

  const RowTiling& tiling = problem.tiling;
  const SampledWindow<T>& window = problem.window;
  int64_t block = blockIdx.x;
  const int first_pixel = static_cast<int>(block % problem.pixel_tiles) * Shape::kN;
  block /= problem.pixel_tiles;
  const int first_tap = static_cast<int>(block % tiling.tap_tiles) * tiling.tile_taps;
  block /= tiling.tap_tiles;
  const int64_t group = block % window.offset_groups, n = block / window.offset_groups;
  const int taps = min(tiling.tile_taps, tiling.taps - first_tap);

  fill_taps(table, window, n, group, first_tap, taps, first_pixel);
  for (int chunk = 0; chunk < tiling.chunks; ++chunk) {
    const int64_t channel = group * tiling.segment + (chunk << tiling.shift);
    const int channels = tiling.chunk_channels(chunk);
    load_columns(stage, problem.columns, tiling, n, channel, channels, first_tap, taps,
                 first_pixel);
    __syncthreads();
    const Source<C> target = {problem.sums.pointer(n, channel), problem.sums.strides[1], false};
    scatter_stage<T, Lanes::kPixels>(stage, 0, table, target, problem.plane, tiling,
                                     {channels, taps, 0, 0});
    __syncthreads();
  }
}

}  // namespace

template <class T>
void scatter_columns(const Context& context, const SampledWindow<T>& window,
                     View<const T, 5> columns, View<T, 4> grad_input) {
  const InputSums<T> sums(context, grad_input);
  if (context.deterministic) {
    OrderedScatter<T> scatter(context, window, columns.sizes[0], columns.sizes[1], 0);
    scatter.run(SlotColumns<T>{columns.data, columns.strides[1], columns.strides[2]},
                {true, columns.strides[0], columns.strides[3], columns.strides[4]}, sums.view(),
                [](const TileBatch&) {});
    sums.finish();
    return;
  }
  Scatter<T> problem = {};
  problem.window = window;
  problem.columns = columns;
  problem.sums = sums.view();
  problem.plane = plane_of(problem.sums);
  problem.tiling = tile_rows(columns.sizes[1] / window.offset_groups, window.taps(),
                             StageRows<T>::kRows, StageRows<T>::kLeast);
  problem.pixel_tiles = tile_pixels(window, Tile<T>::kN);
  launch("scatter_columns", scatter_columns_kernel<T>,
         columns.sizes[0] * window.offset_groups * problem.tiling.tap_tiles * problem.pixel_tiles,
         kThreads, context.stream, problem);
  sums.finish();
}

#define DEFORMOPS_INSTANTIATE(T)                                                              \
  template void scatter_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 5>, \
                                   View<T, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

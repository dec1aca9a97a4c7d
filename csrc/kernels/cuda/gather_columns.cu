// columns = mask * gather(input).
//
// A block has a tile of pixels and a few taps of one offset group, and runs through the channels:
// their stencils are worked out once. Samples go through shared memory, so that the input is read
// the way it lies (along pixels or along channels) and columns are always written along pixels.
//
// Bytes: the output once; the input once for each tap, mostly from the second-level cache.
#include "core/context.h"
#include "kernels/convolution.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layout.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/taps.cuh"

namespace deformops::cuda {
namespace {

template <class T>
struct Gather {
  SampledWindow<T> window;
  View<const T, 4> input;
  View<T, 5> columns;
  Plane plane;  // of the input
  bool vectors;
  RowTiling tiling;
  int pixel_tiles;
};

template <class T>
struct GatherTile {
  static constexpr int kRows = 32;
  static constexpr int kLeast = 8;  // channels that stay together
  static constexpr int kTaps = kRows / kLeast;
  static constexpr int kPixels = 64;
};

template <class T, Lanes kLanes>
__global__ void __launch_bounds__(kThreads, 6) gather_columns_kernel(const Gather<T> problem) {
  using C = compute_t<T>;
  using Shape = GatherTile<T>;
  using M = Math<T, false>;
  constexpr bool kAlongChannels = kLanes == Lanes::kChannels;
  constexpr int kPitch =
      kAlongChannels ? Shape::kRows + Vector<T>::kSize : Shape::kPixels;  // of the tile

  __shared__ TapTable<C, Shape::kTaps, Shape::kPixels> table;
  __shared__ alignas(16) T tile[2][Shape::kRows * (Shape::kPixels + 2 * Vector<T>::kSize)];

  const RowTiling& tiling = problem.tiling;
  const SampledWindow<T>& window = problem.window;
  int64_t block = blockIdx.x;
  const int first_pixel = static_cast<int>(block % problem.pixel_tiles) * Shape::kPixels;
  block /= problem.pixel_tiles;
  const int first_tap = static_cast<int>(block % tiling.tap_tiles) * tiling.tile_taps;
  block /= tiling.tap_tiles;
  const int64_t group = block % window.offset_groups, n = block / window.offset_groups;

  const int taps = min(tiling.tile_taps, tiling.taps - first_tap);
  fill_taps(table, window, n, group, first_tap, taps, first_pixel);
  __syncthreads();

  const int pixel = first_pixel + static_cast<int>(threadIdx.x) % Shape::kPixels;
  const int width = static_cast<int>(window.x.output);
  const bool inside = pixel < window.pixels();

  for (int chunk = 0; chunk < tiling.chunks; ++chunk) {
    T* samples = tile[chunk % 2];
    const int64_t channel = group * tiling.segment + (chunk << tiling.shift);
    const int channels = tiling.chunk_channels(chunk);
    const Source<const T> source = {problem.input.pointer(n, channel), problem.input.strides[1],
                                    problem.vectors};
    if constexpr (kAlongChannels) {
      sample_along_channels<M, Shape::kRows, Shape::kPixels, kPitch>(
          samples, table, source, problem.plane, tiling, {channels, taps, 0, 0});
    } else {
      sample_along_pixels<M, Shape::kRows, Shape::kPixels, kPitch>(
          samples, table, source, problem.plane, tiling, {channels, taps, 0, 0});
    }
    __syncthreads();  // the other half of the tile may still be read: it is written after the next
    if (!inside) continue;
    for (int row = threadIdx.x / Shape::kPixels; row < Shape::kRows;
         row += kThreads / Shape::kPixels) {
      const int tap = tiling.tap_of(row);
      if (tap >= taps || tiling.channel_of(row) >= channels) continue;
      const int column = threadIdx.x % Shape::kPixels;
      problem.columns(n, channel + tiling.channel_of(row), first_tap + tap, pixel / width,
                      pixel % width) =
          samples[kAlongChannels ? column * kPitch + row : row * kPitch + column];
    }
  }
}

}  // namespace

template <class T>
void gather_columns(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                    View<T, 5> columns) {
  using Shape = GatherTile<T>;
  const int64_t segment = input.sizes[1] / window.offset_groups;
  Gather<T> problem = {};
  problem.window = window;
  problem.input = input;
  problem.columns = columns;
  problem.plane = plane_of(input);
  problem.vectors = has_vectors(input, segment);
  problem.tiling = tile_rows(segment, window.taps(), Shape::kRows, Shape::kLeast);
  problem.pixel_tiles = tile_pixels(window, Shape::kPixels);
  const auto kernel = lanes_of(input) == Lanes::kChannels
                          ? gather_columns_kernel<T, Lanes::kChannels>
                          : gather_columns_kernel<T, Lanes::kPixels>;
  launch("gather_columns", kernel,
         input.sizes[0] * window.offset_groups * problem.tiling.tap_tiles * problem.pixel_tiles,
         kThreads, context.stream, problem);
}

#define DEFORMOPS_INSTANTIATE(T)                                                             \
  template void gather_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 4>, \
                                  View<T, 5>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

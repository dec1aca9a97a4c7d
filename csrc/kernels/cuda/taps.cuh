// The stencils of some taps at the pixels of a tile: worked out once by the block, then read by all
// of its threads for every channel.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "geometry/window.h"
#include "kernels/cuda/plane.cuh"
#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

// An AxisStencil in one word: the lower neighbour (it may be -1), and for each neighbour a bit that
// tells whether it is to be read. Zero: nothing is.
template <class C>
__device__ __forceinline__ int pack_axis(const AxisStencil<C>& axis) {
  const bool first = axis.index[0] >= 0, second = axis.index[1] >= 0;
  if (!first && !second) return 0;
  const int low = static_cast<int>(first ? axis.index[0] : axis.index[1] - 1);
  return low * 4 + (first ? 1 : 0) + (second ? 2 : 0);
}

// The four pixels of a stencil, (y, x) = (0, 0), (0, 1), (1, 0), (1, 1), in a plane. Bit i of
// `inside` tells whether corner i is to be read; an offset of another corner means nothing.
struct Corners {
  uint32_t offset[4];
  unsigned inside;

  __device__ __forceinline__ bool has(int corner) const { return inside >> corner & 1; }
};

__device__ __forceinline__ Corners corners_of(int2 axes, const Plane& plane) {
  const uint32_t y = axes.x >> 2, x = axes.y >> 2;
  const uint32_t first = y * plane.row + x * plane.column;
  const unsigned row = axes.y & 3;
  return {{first, first + plane.column, first + plane.row, first + plane.row + plane.column},
          (axes.x & 1 ? row : 0) | (axes.x & 2 ? row << 2 : 0)};
}

template <class C>
struct alignas(16) Weights {
  C corner[4];
};

template <class C, int kTaps, int kPixels>
struct TapTable {
  int2 axes[kTaps][kPixels];           // packed (y, x)
  Weights<C> weights[kTaps][kPixels];  // of the corners, the mask in them
};

// Fills the table for taps [first_tap, first_tap + taps) of an offset group of image n, at pixels
// [first_pixel, first_pixel + kPixels) of the output. Beyond its last pixel nothing is read and the
// weights are 0. Ends without a barrier.
template <class T, int kTaps, int kPixels>
__device__ __forceinline__ void fill_taps(TapTable<compute_t<T>, kTaps, kPixels>& table,
                                          const SampledWindow<T>& window, int64_t n, int64_t group,
                                          int first_tap, int taps, int first_pixel) {
  using C = compute_t<T>;
  constexpr int kLanes = kPixels < kThreads ? kPixels : kThreads;
  static_assert(kPixels % kLanes == 0 && kThreads % kLanes == 0, "a thread keeps to its pixels");
  for (int i = threadIdx.x % kLanes; i < kPixels; i += kLanes) {
    const int pixel = first_pixel + i;
    const int width = static_cast<int>(window.x.output);
    const int oy = pixel / width, ox = pixel % width;
    for (int tap = threadIdx.x / kLanes; tap < taps; tap += kThreads / kLanes) {
      if (oy < window.y.output) {
        const TapStencil<C> stencil = window.stencil(n, group, first_tap + tap, oy, ox);
        const C y0 = stencil.mask * stencil.y.weight[0], y1 = stencil.mask * stencil.y.weight[1];
        table.axes[tap][i] = {pack_axis(stencil.y), pack_axis(stencil.x)};
        table.weights[tap][i] = {{y0 * stencil.x.weight[0], y0 * stencil.x.weight[1],
                                  y1 * stencil.x.weight[0], y1 * stencil.x.weight[1]}};
      } else {
        table.axes[tap][i] = {0, 0};
        table.weights[tap][i] = {};
      }
    }
  }
}

}  // namespace deformops::cuda

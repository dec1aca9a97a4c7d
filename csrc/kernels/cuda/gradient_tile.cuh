// A tile of grad_output [N, O, oH, oW] in shared memory, as either operand of a product.
#pragma once

#include "core/view.h"
#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

// tile[row * kPitch + pixel] = grad(n, first_channel + row, first_pixel + pixel); 0 outside. Lanes
// read along whichever of the two lies side by side.
template <class M, int kRows, int kPixels, int kPitch>
__device__ __forceinline__ void load_gradients(typename M::T* tile,
                                               const View<const typename M::T, 4>& grad,
                                               Lanes lanes, int64_t n, int64_t first_channel,
                                               int64_t channels, int first_pixel) {
  using T = typename M::T;
  const int width = static_cast<int>(grad.sizes[3]);
  const int pixels = static_cast<int>(grad.sizes[2]) * width;
  if (lanes == Lanes::kPixels) {
    static_assert(kThreads % kPixels == 0, "a thread keeps to its pixel");
    const int pixel = threadIdx.x % kPixels, p = first_pixel + pixel;
    const T* from = grad.pointer(n, first_channel, p / width, p % width);
#pragma unroll 8
    for (int row = threadIdx.x / kPixels; row < kRows; row += kThreads / kPixels) {
      T value = {};
      if (p < pixels && row < channels) value = from[row * grad.strides[1]];
      tile[row * kPitch + pixel] = M::factor(static_cast<typename M::C>(value));
    }
  } else {
    static_assert(kThreads % kRows == 0, "a thread keeps to its row");
    const int row = threadIdx.x % kRows;
    const T* from = grad.pointer(n, first_channel + row);
    const bool flat = grad.strides[2] == width * grad.strides[3];  // saves the division
#pragma unroll 4
    for (int pixel = threadIdx.x / kRows; pixel < kPixels; pixel += kThreads / kRows) {
      const int p = first_pixel + pixel;
      T value = {};
      if (p < pixels && row < channels) {
        value = from[flat ? p * grad.strides[3]
                          : p / width * grad.strides[2] + p % width * grad.strides[3]];
      }
      tile[row * kPitch + pixel] = M::factor(static_cast<typename M::C>(value));
    }
  }
}

}  // namespace deformops::cuda

// Rows of channels, a few of them in each thread, and how a block is dealt out to rows.
#pragma once

#include <cstdint>

#include "core/view.h"
#include "kernels/cuda/launch.cuh"

namespace deformops::cuda {

constexpr int kRowThreads = 256;

// kWidth neighbouring channels: one access of up to 16 bytes.
template <class T, int kWidth>
struct alignas(kWidth * sizeof(T)) Channels {
  T value[kWidth];

  __device__ __forceinline__ void add_product(T weight, const Channels& other) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) value[i] += weight * other.value[i];
  }
};

// A row has `count` of these; a block has `rows` rows, and `lanes` threads for each.
struct RowShape {
  int64_t count;
  int lanes, rows;

  // What a thread works on: row + rows * block, and every lanes-th of its channels.
  __device__ __forceinline__ int lane() const { return static_cast<int>(threadIdx.x) % lanes; }
  __device__ __forceinline__ int64_t row() const {
    return static_cast<int64_t>(blockIdx.x) * rows + static_cast<int>(threadIdx.x) / lanes;
  }
  // Threads left over have no row.
  __device__ __forceinline__ bool idle() const {
    return static_cast<int>(threadIdx.x) >= lanes * rows;
  }
  int64_t blocks(int64_t all_rows) const { return divide_up(all_rows, rows); }
};

inline RowShape row_shape(int64_t count) {
  const int lanes = static_cast<int>(count < kRowThreads ? count : kRowThreads);
  return {count, lanes, kRowThreads / lanes};
}

}  // namespace deformops::cuda

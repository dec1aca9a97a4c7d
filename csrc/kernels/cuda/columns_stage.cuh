// Columns [N, C, taps, oH, oW] as rows of a stage, for the ops that are given them.
#pragma once

#include "core/view.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

// The rows that fit into one stage.
template <class T>
struct StageRows {
  static constexpr int kRows = Tile<T>::kStageRows;
  static constexpr int kLeast = Tile<T>::kRun;
  static constexpr int kTaps = kRows / kLeast;
};

// stage[row * kStagePitch + pixel] = columns(n, channel + .., tap + .., pixel); 0 outside.
template <class T>
__device__ __forceinline__ void load_columns(compute_t<T>* stage, const View<const T, 5>& columns,
                                             const RowTiling& tiling, int64_t n, int64_t channel,
                                             int channels, int tap, int taps, int first_pixel) {
  using C = compute_t<T>;
  using Shape = Tile<T>;
  const int column = threadIdx.x % Shape::kN;
  const int pixel = first_pixel + column;
  const int width = static_cast<int>(columns.sizes[4]);
  const bool inside = pixel < columns.sizes[3] * width;
  const T* from = columns.pointer(n, channel, tap, pixel / width, pixel % width);
#pragma unroll 8
  for (int row = threadIdx.x / Shape::kN; row < Shape::kStageRows; row += kThreads / Shape::kN) {
    const int row_channel = tiling.channel_of(row), row_tap = tiling.tap_of(row);
    C value = C(0);
    if (inside && row_channel < channels && row_tap < taps) {
      value = static_cast<C>(from[row_channel * columns.strides[1] + row_tap * columns.strides[2]]);
    }
    stage[row * Shape::kStagePitch + column] = value;
  }
}

}  // namespace deformops::cuda

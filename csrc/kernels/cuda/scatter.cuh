// Scatter: input gradient += weight * columns at the corners, the transpose of the gather, for the
// rows of a stage in shared memory.
#pragma once

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/taps.cuh"

namespace deformops::cuda {

// Rows [first_row, first_row + kStageRows) of a tile, stage[(row - first_row) * pitch + pixel].
// `target` holds sums in C; threads of all blocks add to it at once.
template <class T, Lanes kLanes, class Table>
__device__ __forceinline__ void scatter_stage(const compute_t<T>* stage, int first_row,
                                              const Table& table,
                                              const Source<compute_t<T>>& target,
                                              const Plane& plane, const RowTiling& tiling,
                                              const RowTile& rows) {
  using C = compute_t<T>;
  using Shape = Tile<T>;
  if constexpr (kLanes == Lanes::kPixels) {
    // A thread has one pixel and a run of its rows, all of one tap.
    const int pixel = threadIdx.x % Shape::kN;
    const int first = threadIdx.x / Shape::kN * Shape::kRun;
    const int tap = tiling.tap_of(first_row + first);
    const int channel = tiling.channel_of(first_row + first);
    if (tap >= rows.taps) return;
    const Corners corners =
        corners_of(table.axes[rows.first_tap + tap][rows.first_pixel + pixel], plane);
    const Weights<C> weights = table.weights[rows.first_tap + tap][rows.first_pixel + pixel];
    const int count = min(Shape::kRun, rows.channels - channel);
    C* to = target.data + channel * target.channel_stride;
    for (int i = 0; i < count; ++i) {
      const C value = stage[(first + i) * Shape::kStagePitch + pixel];
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        if (corners.has(corner)) {
          atomicAdd(pixel_at(to, plane, corners.offset[corner]), weights.corner[corner] * value);
        }
      }
      to += target.channel_stride;
    }
  } else {
    // A warp has one pixel, its lanes neighbouring channels: one request for each corner.
    const int lane = threadIdx.x % 32;
    for (int pixel = threadIdx.x / 32; pixel < Shape::kN; pixel += kWarps) {
#pragma unroll
      for (int i = lane; i < Shape::kStageRows; i += 32) {
        const int tap = tiling.tap_of(first_row + i), channel = tiling.channel_of(first_row + i);
        if (tap >= rows.taps || channel >= rows.channels) continue;
        const Corners corners =
            corners_of(table.axes[rows.first_tap + tap][rows.first_pixel + pixel], plane);
        const Weights<C> weights = table.weights[rows.first_tap + tap][rows.first_pixel + pixel];
        const C value = stage[i * Shape::kStagePitch + pixel];
        C* to = target.data + channel * target.channel_stride;
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          if (corners.has(corner)) {
            atomicAdd(pixel_at(to, plane, corners.offset[corner]), weights.corner[corner] * value);
          }
        }
      }
    }
  }
}

}  // namespace deformops::cuda

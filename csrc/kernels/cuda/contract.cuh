// Contract: the gradients of mask and offset, which are sums over channels.
//
// With v[c, corner] what the corners of a tap hold and d the gradient of its columns,
//     grad_mask = sum over c, corner of  d[c] * weight[corner] * v[c, corner],
// and the slopes that the gradient of the offset needs have other weights on the same corners.
// Weights do not depend on c, so the sums of d * v over channels are all that the loop has to form:
// one multiply-add for each pixel read. All weights are applied at the end, once.
#pragma once

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/taps.cuh"

namespace deformops::cuda {

// Sums of d * v for each corner. A run is kRun neighbouring rows of a tile at one pixel; all are of
// one tap, and for a given run and pixel it is always the same thread that adds.
template <class T>
struct CornerSums {
  Weights<compute_t<T>> run[Tile<T>::kRuns][Tile<T>::kN];
};

template <class T>
__device__ __forceinline__ void clear(CornerSums<T>& sums) {
  using Shape = Tile<T>;
  for (int i = threadIdx.x; i < Shape::kRuns * Shape::kN; i += kThreads) {
    sums.run[i / Shape::kN][i % Shape::kN] = {};
  }
}

template <class C>
__device__ __forceinline__ void add(Weights<C>& to, const Weights<C>& sum) {
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) to.corner[corner] += sum.corner[corner];
}

// Rows [first_row, first_row + kStageRows) of a tile, stage[(row - first_row) * pitch + pixel].
// `reach[tap][pixel]` is what axes[tap][pixel] is in a TapTable: the corners to read.
template <class T, Lanes kLanes, int kTaps>
__device__ __forceinline__ void contract_stage(const compute_t<T>* stage, int first_row,
                                               const int2 (&reach)[kTaps][Tile<T>::kN],
                                               const Source<const T>& source, const Plane& plane,
                                               const RowTiling& tiling, const RowTile& rows,
                                               CornerSums<T>& sums) {
  using C = compute_t<T>;
  using Shape = Tile<T>;
  if constexpr (kLanes == Lanes::kPixels) {
    const int pixel = threadIdx.x % Shape::kN;
    const int first = threadIdx.x / Shape::kN * Shape::kRun;
    const int tap = tiling.tap_of(first_row + first);
    const int channel = tiling.channel_of(first_row + first);
    if (tap >= rows.taps) return;
    const Corners corners = corners_of(reach[tap][pixel], plane);
    const int count = min(Shape::kRun, rows.channels - channel);
    const T* from = source.data + channel * source.channel_stride;
    Weights<C> sum = {};
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const C factor = stage[(first + i) * Shape::kStagePitch + pixel];
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        if (corners.has(corner)) {
          sum.corner[corner] +=
              factor * static_cast<C>(*pixel_at(from, plane, corners.offset[corner]));
        }
      }
      from += source.channel_stride;
    }
    add(sums.run[(first_row + first) / Shape::kRun][pixel], sum);
  } else {
    // A lane has 8 neighbouring channels of one pixel; the lanes of a run then add up.
    constexpr int kSize = 8;
    constexpr int kLanesOfPixel = Shape::kStageRows / kSize;
    constexpr int kLanesOfRun = Shape::kRun / kSize;
    constexpr int kVector = Vector<T>::kSize;
    const int first = threadIdx.x % kLanesOfPixel * kSize;
    const int tap = tiling.tap_of(first_row + first);
    const int channel = tiling.channel_of(first_row + first);
    const int count = tap < rows.taps ? min(kSize, rows.channels - channel) : 0;
#pragma unroll 1
    for (int pixel = threadIdx.x / kLanesOfPixel; pixel < Shape::kN;
         pixel += kThreads / kLanesOfPixel) {
      Weights<C> sum = {};
      if (count > 0) {
        const Corners corners = corners_of(reach[tap][pixel], plane);
        C factor[kSize];
#pragma unroll
        for (int j = 0; j < kSize; ++j) {
          factor[j] = j < count ? stage[(first + j) * Shape::kStagePitch + pixel] : C(0);
        }
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          if (!corners.has(corner)) continue;
          const T* from = pixel_at(source.data + channel, plane, corners.offset[corner]);
          if (source.vectors && count == kSize) {
#pragma unroll
            for (int j = 0; j < kSize; j += kVector) {
              const Vector<T> value = *reinterpret_cast<const Vector<T>*>(from + j);
#pragma unroll
              for (int l = 0; l < kVector; ++l) {
                sum.corner[corner] += factor[j + l] * static_cast<C>(value.values[l]);
              }
            }
          } else {
#pragma unroll
            for (int j = 0; j < kSize; ++j) {
              if (j < count) sum.corner[corner] += factor[j] * static_cast<C>(from[j]);
            }
          }
        }
      }
#pragma unroll
      for (int distance = kLanesOfRun / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          sum.corner[corner] += __shfl_xor_sync(~0u, sum.corner[corner], distance);
        }
      }
      if (threadIdx.x % kLanesOfRun == 0) {
        add(sums.run[(first_row + first) / Shape::kRun][pixel], sum);
      }
    }
  }
}

// The sums of all runs of a tap (of the tile, not of the table).
template <class T>
__device__ __forceinline__ Weights<compute_t<T>> sums_of_tap(const CornerSums<T>& sums,
                                                             const RowTiling& tiling, int tap,
                                                             int pixel) {
  const int runs = tiling.tile_channels() / Tile<T>::kRun;
  Weights<compute_t<T>> total = {};
  for (int run = tap * runs; run < (tap + 1) * runs; ++run) add(total, sums.run[run][pixel]);
  return total;
}

// sum over the corners of weight_y * weight_x * sums. A pixel that an axis does not read adds
// nothing but the NaN that its weight may be.
template <class C>
__device__ __forceinline__ C apply_weights(const AxisStencil<C>& y, const AxisStencil<C>& x,
                                           const Weights<C>& sums) {
  C total = C(0);
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const int row = corner / 2, column = corner % 2;
    const bool read = y.index[row] >= 0 && x.index[column] >= 0;
    total += y.weight[row] * x.weight[column] * (read ? sums.corner[corner] : C(0));
  }
  return total;
}

}  // namespace deformops::cuda

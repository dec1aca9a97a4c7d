// Gather: columns[channel, tap, pixel] = sum over the corners of weight * input, for a tile of rows
// (channel, tap) and pixels, straight into shared memory.
#pragma once

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/taps.cuh"

namespace deformops::cuda {

// The rows of one tile, `channels` channels at `taps` taps, and where its taps and pixels begin in
// the table.
struct RowTile {
  int channels, taps, first_tap, first_pixel;
};

// The channels of one image, starting with the tile's first.
template <class T>
struct Source {
  T* data;
  int64_t channel_stride;
  bool vectors;  // 16-byte loads along channels are aligned
};

// tile[row * kPitch + pixel]. A thread has one pixel and runs down its rows; the lanes of a warp
// read neighbouring pixels of one channel, which offsets of some smoothness keep close together.
template <class M, int kRows, int kPixels, int kPitch, class Table>
__device__ __forceinline__ void sample_along_pixels(typename M::T* tile, const Table& table,
                                                    const Source<const typename M::T>& source,
                                                    const Plane& plane, const RowTiling& tiling,
                                                    const RowTile& rows) {
  using T = typename M::T;
  using C = typename M::C;
  constexpr int kCount = kRows * kPixels / kThreads;
  constexpr int kBatch = kCount < 4 ? kCount : 4;  // channels whose loads are in flight together
  static_assert(kCount % kBatch == 0 && kThreads % kPixels == 0, "whole batches");

  const int pixel = threadIdx.x % kPixels;
  const int first = threadIdx.x / kPixels * kCount;
  Corners corners = {};
  Weights<C> weights = {};
#pragma unroll 1
  for (int i = 0; i < kCount; i += kBatch) {
    const int tap = tiling.tap_of(first + i), channel = tiling.channel_of(first + i);
    if (i == 0 || channel == 0) {
      corners = {};
      weights = {};
      if (tap < rows.taps) {
        corners = corners_of(table.axes[rows.first_tap + tap][rows.first_pixel + pixel], plane);
        weights = table.weights[rows.first_tap + tap][rows.first_pixel + pixel];
      }
    }
    const T* from = source.data + channel * source.channel_stride;
    C value[kBatch][4];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        value[j][corner] = C(0);
        if (channel + j < rows.channels && corners.has(corner)) {
          value[j][corner] = static_cast<C>(*pixel_at(from, plane, corners.offset[corner]));
        }
      }
      from += source.channel_stride;
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      C sum = C(0);
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        sum += weights.corner[corner] * value[j][corner];
      }
      // NaN weights must not reach rows that only fill up the tile.
      tile[(first + i + j) * kPitch + pixel] = M::factor(channel + j < rows.channels ? sum : C(0));
    }
  }
}

// tile[pixel * kPitch + row]. A thread has 16 bytes of neighbouring channels of one pixel.
template <class M, int kRows, int kPixels, int kPitch, class Table>
__device__ __forceinline__ void sample_along_channels(typename M::T* tile, const Table& table,
                                                      const Source<const typename M::T>& source,
                                                      const Plane& plane, const RowTiling& tiling,
                                                      const RowTile& rows) {
  using T = typename M::T;
  using C = typename M::C;
  constexpr int kSize = Vector<T>::kSize;
  constexpr int kVectors = kRows / kSize;  // of a pixel

  for (int i = threadIdx.x; i < kVectors * kPixels; i += kThreads) {
    const int pixel = i / kVectors, row = i % kVectors * kSize;
    const int tap = tiling.tap_of(row), channel = tiling.channel_of(row);
    const int channels = tap < rows.taps ? rows.channels - channel : 0;
    C sum[kSize] = {};
    if (channels > 0) {
      const Corners corners =
          corners_of(table.axes[rows.first_tap + tap][rows.first_pixel + pixel], plane);
      const Weights<C> weights = table.weights[rows.first_tap + tap][rows.first_pixel + pixel];
      Vector<T> value[4];
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        value[corner] = {};
        if (corners.has(corner)) {
          const T* from = pixel_at(source.data + channel, plane, corners.offset[corner]);
          if (source.vectors && channels >= kSize) {
            value[corner] = *reinterpret_cast<const Vector<T>*>(from);
          } else {
#pragma unroll
            for (int j = 0; j < kSize; ++j) {
              if (j < channels) value[corner].values[j] = from[j];
            }
          }
        }
      }
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          sum[j] += weights.corner[corner] * static_cast<C>(value[corner].values[j]);
        }
        if (j >= channels) sum[j] = C(0);
      }
    }
    Vector<T> column;
#pragma unroll
    for (int j = 0; j < kSize; ++j) column.values[j] = M::factor(sum[j]);
    *reinterpret_cast<Vector<T>*>(tile + pixel * kPitch + row) = column;
  }
}

}  // namespace deformops::cuda

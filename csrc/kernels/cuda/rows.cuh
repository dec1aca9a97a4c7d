// The rows of a matrix of columns are pairs (channel, tap). How they are cut into tiles.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <stdexcept>

#include "geometry/window.h"
#include "kernels/cuda/launch.cuh"

namespace deformops::cuda {

// A segment is a run of channels that share a group of the convolution and an offset group. A tile
// holds 1 << shift channels of one segment at each of `tile_taps` taps, tap by tap; segments of few
// channels fill it with taps. Rows without a channel or a tap hold zeros.
struct RowTiling {
  int segment;  // channels
  int taps;
  int shift;
  int tile_taps;
  int chunks;     // tiles along the channels of a segment
  int tap_tiles;  // and along the taps

  __host__ __device__ int tile_channels() const { return 1 << shift; }
  __host__ __device__ int chunk_channels(int chunk) const {
    return min_of(tile_channels(), segment - (chunk << shift));
  }
  __host__ __device__ int tap_of(int row) const { return row >> shift; }
  __host__ __device__ int channel_of(int row) const { return row & (tile_channels() - 1); }

  static __host__ __device__ int min_of(int a, int b) { return a < b ? a : b; }
};

// `least`, a power of two: channels that stay together even if the segment has fewer.
inline RowTiling tile_rows(int64_t segment, int64_t taps, int rows, int least) {
  RowTiling tiling = {};
  tiling.segment = static_cast<int>(segment);
  tiling.taps = static_cast<int>(taps);
  while ((1 << tiling.shift) < least ||
         ((1 << tiling.shift) < rows && (1 << tiling.shift) < segment)) {
    ++tiling.shift;
  }
  tiling.tile_taps = rows >> tiling.shift;
  tiling.chunks = static_cast<int>(divide_up(segment, tiling.tile_channels()));
  tiling.tap_tiles = static_cast<int>(divide_up(taps, tiling.tile_taps));
  return tiling;
}

// A walk over all tiles of some segments that keeps to a block of taps, whose stencils are at hand,
// until all channels are done: they are worked out once, and what the taps of a block read of a few
// channels overlaps and stays in the first-level cache.
struct RowWalk {
  static constexpr int kBlockTaps = 9;

  int segment = 0, block = 0, chunk = 0, tap = 0;  // block and tap: the first of theirs

  __host__ __device__ bool starts_block() const { return chunk == 0 && tap == block; }

  __host__ __device__ int block_end(const RowTiling& tiling) const {
    return RowTiling::min_of(block + kBlockTaps, tiling.taps);
  }
  __host__ __device__ int tile_taps(const RowTiling& tiling) const {
    return RowTiling::min_of(tiling.tile_taps, block_end(tiling) - tap);
  }

  __host__ __device__ void advance(const RowTiling& tiling) {
    tap += tiling.tile_taps;
    if (tap < block_end(tiling)) return;
    if (++chunk == tiling.chunks) {
      chunk = 0;
      block += kBlockTaps;
      if (block >= tiling.taps) {
        block = 0;
        ++segment;
      }
    }
    tap = block;
  }
};

inline int64_t walk_length(const RowTiling& tiling, int64_t segments) {
  int64_t tiles = 0;
  for (int block = 0; block < tiling.taps; block += RowWalk::kBlockTaps) {
    tiles += divide_up(std::min(RowWalk::kBlockTaps, tiling.taps - block), tiling.tile_taps);
  }
  return segments * tiling.chunks * tiles;
}

// Channels of a convolution and how they fall into groups, offset groups and segments.
struct Channels {
  int64_t channels;        // of the input
  int64_t group_channels;  // of the input in a group of the convolution
  int64_t groups;
  int64_t offset_group_channels;
  int64_t segment;

  int64_t segments() const { return segment == 0 ? 0 : channels / segment; }
  int64_t group_segments() const { return segment == 0 ? 0 : group_channels / segment; }
  int64_t offset_group_segments() const {
    return segment == 0 ? 0 : offset_group_channels / segment;
  }
};

inline Channels split_channels(int64_t channels, int64_t group_channels, int64_t offset_groups) {
  Channels split = {};
  split.channels = channels;
  split.group_channels = group_channels;
  split.groups = group_channels == 0 ? 1 : std::max<int64_t>(channels / group_channels, 1);
  split.offset_group_channels = channels / offset_groups;
  split.segment = std::gcd(split.group_channels, split.offset_group_channels);
  return split;
}

// Tiles of `tile` pixels in the output of a window; kernels count the pixels of one map in 32 bits.
template <class T>
int tile_pixels(const SampledWindow<T>& window, int tile) {
  if (window.pixels() > INT32_MAX - 1024) {
    throw std::length_error("an output map of one channel has more than 2^31 pixels");
  }
  return static_cast<int>(divide_up(window.pixels(), tile));
}

}  // namespace deformops::cuda

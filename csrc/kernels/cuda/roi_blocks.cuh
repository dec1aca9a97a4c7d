// How pooled outputs are dealt to blocks. A block has a rectangle of bins of one box and a run of
// channels of one class: what it works out about the bins serves all of these channels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "geometry/roi.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layout.cuh"
#include "kernels/cuda/require.cuh"
#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

constexpr int kMostBins = 64;            // of a block
constexpr int64_t kManyBlocks = 8192;    // enough to keep a device busy to the end
constexpr int kLeastRounds = 8;          // of a block's threads, to pay for what it works out first
constexpr int64_t kMostUnits = 1 << 20;  // of channels, so that int counts a block's outputs

// The image of box k. A box without one ends the launch.
template <class T>
__device__ __forceinline__ int64_t image_of(const RoiBins<T>& bins, int64_t k, int64_t batch) {
  DEFORMOPS_REQUIRE(bins.has_image(k, batch), "boxes: column 0 is not the number of an image");
  return bins.image(k);
}

// Parts, and groups, divide bins: those of `part` are [first_bin(part), first_bin(part + 1)).
__host__ __device__ __forceinline__ int first_bin(int64_t part, int64_t parts, int64_t pooled) {
  return static_cast<int>((part * pooled + parts - 1) / parts);
}

// What a block has. In shared memory: every thread needs it, none changes it.
struct BinBlock {
  int64_t k, cls, image;
  int64_t share, first_channel;  // a share is a run of channels of the class
  int channels;
  int first_y, first_x, height, width;  // of the bins

  __device__ int bins() const { return height * width; }
  __device__ int y_of(int bin) const { return first_y + bin / width; }
  __device__ int x_of(int bin) const { return first_x + bin % width; }
};

struct BinBlocks {
  int pooled_y, pooled_x;
  int height, width, tiles_y, tiles_x;  // of the rectangles
  int64_t boxes, classes;
  int64_t class_channels, share_channels, shares;

  int64_t count() const { return classes * shares * boxes * tiles_y * tiles_x; }

  // Neighbours have the same channels of other boxes, which may be of one image and read the same.
  template <class T>
  __device__ __forceinline__ void open(BinBlock& block, const RoiBins<T>& bins,
                                       int64_t batch) const {
    if (threadIdx.x == 0) {
      int64_t index = blockIdx.x;
      const int x = static_cast<int>(index % tiles_x) * width;
      index /= tiles_x;
      const int y = static_cast<int>(index % tiles_y) * height;
      index /= tiles_y;
      block.k = index % boxes;
      index /= boxes;
      block.share = index % shares;
      block.cls = index / shares;
      block.image = image_of(bins, block.k, batch);
      const int64_t first = block.share * share_channels;
      const int64_t left = class_channels - first;
      block.first_channel = block.cls * class_channels + first;
      block.channels = static_cast<int>(left < share_channels ? left : share_channels);
      block.first_y = y;
      block.first_x = x;
      block.height = min(height, pooled_y - y);
      block.width = min(width, pooled_x - x);
    }
    __syncthreads();
  }
};

template <class T>
void check_sizes(const RoiBins<T>& bins) {
  constexpr int64_t kMost = INT32_MAX / 4;  // leaves room for sums
  if (std::max({bins.height, bins.width, bins.pooled_y, bins.pooled_x, bins.channels,
                bins.pooled_y * bins.pooled_x}) > kMost) {
    throw std::length_error("RoI pooling: more than 2^29 rows, columns, channels or bins of a box");
  }
}

// `unit`: channels that a thread takes at once.
template <class T>
BinBlocks deal_bins(const RoiBins<T>& bins, int unit = 1) {
  check_sizes(bins);
  BinBlocks blocks = {};
  blocks.pooled_y = static_cast<int>(bins.pooled_y);
  blocks.pooled_x = static_cast<int>(bins.pooled_x);
  blocks.width = std::min(blocks.pooled_x, kMostBins);
  blocks.height = std::min(blocks.pooled_y, kMostBins / blocks.width);
  blocks.tiles_y = static_cast<int>(divide_up(blocks.pooled_y, blocks.height));
  blocks.tiles_x = static_cast<int>(divide_up(blocks.pooled_x, blocks.width));
  blocks.boxes = bins.boxes.sizes[0];
  blocks.classes = bins.classes();
  blocks.class_channels = bins.channels_per_class();

  const int64_t units = divide_up(blocks.class_channels, unit);
  const int64_t least_units = divide_up(kLeastRounds * kThreads, blocks.height * blocks.width);
  blocks.shares = 1;
  const int64_t shares = std::clamp<int64_t>(kManyBlocks / blocks.count(), 1,
                                             std::max<int64_t>(units / least_units, 1));
  blocks.share_channels = std::min(divide_up(units, shares), kMostUnits) * unit;
  blocks.shares = divide_up(blocks.class_channels, blocks.share_channels);
  return blocks;
}

// The pairs (bin, unit of channels) of a block, in the order in which they lie in memory.
struct BinItems {
  int bins, units;
  bool along_channels;

  __device__ int count() const { return bins * units; }
  __device__ int bin_of(int item) const { return along_channels ? item / units : item % bins; }
  __device__ int unit_of(int item) const { return along_channels ? item % units : item / bins; }
};

// Whether runs of channels that start at multiples of `segment` can be taken 16 bytes at a time.
template <class T>
bool has_channel_vectors(const View<T, 4>& map, int64_t segment) {
  return lanes_of(map) == Lanes::kChannels && has_vectors(map, segment);
}

// Neighbouring numbers that a thread loads or stores: one, or pieces of up to 16 bytes, aligned.
template <class T, int kCount>
struct Run {
  static constexpr int kSize = kCount < Vector<T>::kSize ? kCount : Vector<T>::kSize;
  struct alignas(kSize * sizeof(T)) Piece {
    T values[kSize];
  };
};

template <class T, int kCount>
__device__ __forceinline__ void load_run(T (&values)[kCount], const T* from) {
  using Piece = typename Run<T, kCount>::Piece;
#pragma unroll
  for (int i = 0; i < kCount; i += Run<T, kCount>::kSize) {
    const Piece piece = *reinterpret_cast<const Piece*>(from + i);
#pragma unroll
    for (int j = 0; j < Run<T, kCount>::kSize; ++j) values[i + j] = piece.values[j];
  }
}

template <class T, int kCount>
__device__ __forceinline__ void store_run(T* to, const T (&values)[kCount]) {
  using Piece = typename Run<T, kCount>::Piece;
#pragma unroll
  for (int i = 0; i < kCount; i += Run<T, kCount>::kSize) {
    Piece piece;
#pragma unroll
    for (int j = 0; j < Run<T, kCount>::kSize; ++j) piece.values[j] = values[i + j];
    *reinterpret_cast<Piece*>(to + i) = piece;
  }
}

}  // namespace deformops::cuda

// What bins read, as lists: a bin is a product of weighted rows and weighted columns of the map, so
//     sum over its samples = sum over rows of weight * (sum over columns of weight * pixel),
// which reads a pixel once however many samples touch it.
#pragma once

#include <cmath>
#include <cstdint>

#include "geometry/roi.h"
#include "kernels/cuda/roi_blocks.cuh"

namespace deformops::cuda {

// One axis of a bin.
template <class C>
struct BinAxis {
  RoiAxis<C> axis;
  int64_t bin, size;
  C move;
  int order;
};

template <class T>
__device__ __forceinline__ BinAxis<compute_t<T>> bin_axis(const RoiBins<T>& bins,
                                                          const RoiBox<compute_t<T>>& box,
                                                          bool is_y, int64_t k, int64_t cls,
                                                          int bin_y, int bin_x) {
  BinAxis<compute_t<T>> bin;
  bin.axis = is_y ? box.y : box.x;
  bin.bin = is_y ? bin_y : bin_x;
  bin.size = is_y ? bins.height : bins.width;
  bin.move = bins.move(bin.axis, k, 2 * cls + (is_y ? 1 : 0), bin_y, bin_x);
  bin.order = is_y ? bins.order_y : bins.order_x;
  return bin;
}

// The samples, or pixels, of an axis of a bin that are inside the map: [first, first + count).
struct alignas(16) BinReach {
  static constexpr int kNan = -1;  // as count: whatever is read there is NaN
  int64_t first;
  int count;
};

template <class T>
__device__ __forceinline__ BinReach reach_of(const RoiBins<T>& bins, RoiState state,
                                             const BinAxis<compute_t<T>>& bin) {
  using C = compute_t<T>;
  if (state != RoiState::kUsable) return {0, state == RoiState::kNan ? BinReach::kNan : 0};
  const bool is_pixels = bins.convention.points == RoiPoints::kPixels;
  Range range = is_pixels ? bins.pixels(bin.axis, bin.bin, bin.size)
                          : bins.inside(bin.axis, bin.bin, bin.move, bin.size);
  if (!is_pixels) {
    const auto position = [&](int64_t sample) {
      return bins.position(bin.axis, bin.bin, sample, bin.move);
    };
    // The range has samples to spare at its ends.
    while (range.first < range.end && !bins.is_inside(position(range.first), bin.size)) {
      ++range.first;
    }
    while (range.first < range.end && !bins.is_inside(position(range.end - 1), bin.size)) {
      --range.end;
    }
    const C first = position(range.first);
    if (range.first < range.end && first != first) return {0, BinReach::kNan};
  }
  return {range.first, static_cast<int>(range.end > range.first ? range.end - range.first : 0)};
}

// What an axis contributes to the number that a sum is divided by.
template <class T>
__device__ __forceinline__ compute_t<T> divisor_of(const RoiBins<T>& bins,
                                                   const RoiAxis<compute_t<T>>& axis,
                                                   const BinReach& reach) {
  using C = compute_t<T>;
  if (reach.count == BinReach::kNan) return static_cast<C>(NAN);
  return static_cast<C>(bins.convention.mean_of_inside ? reach.count : axis.samples);
}

// Calls tap(index, weights) for each row or column that the samples [first, first + count) of an
// axis touch, once for each touch. weights[i]: at order + i.
template <int kOrders, class T, class Tap>
__device__ __forceinline__ void for_each_tap(const RoiBins<T>& bins,
                                             const BinAxis<compute_t<T>>& bin, int64_t first,
                                             int count, const Tap& tap) {
  using C = compute_t<T>;
  const bool is_pixels = bins.convention.points == RoiPoints::kPixels;
  for (int64_t sample = first; sample < first + count; ++sample) {
    AxisStencil<C> stencils[kOrders];
    const C position = is_pixels ? C(0) : bins.position(bin.axis, bin.bin, sample, bin.move);
#pragma unroll
    for (int i = 0; i < kOrders; ++i) {
      stencils[i] = is_pixels ? pixel_stencil<C>(sample, bin.size)
                              : bins.weigh(bin.axis, position, bin.size, bin.order + i);
    }
#pragma unroll
    for (int corner = 0; corner < 2; ++corner) {
      if (stencils[0].index[corner] < 0) continue;
      C weights[kOrders];
#pragma unroll
      for (int i = 0; i < kOrders; ++i) weights[i] = stencils[i].weight[corner];
      tap(static_cast<int>(stencils[0].index[corner]), weights);
    }
  }
}

template <class C, int kOrders>
struct Tap {
  int index;
  C weights[kOrders];
};

// The rows and columns that the bins of a block read, in shared memory, worked out once for all of
// its channels. Bins that stay in place share them with their neighbours; if offsets move them,
// each has its own. If they are too many, a window of samples is taken after the other.
template <class T, int kOrders>
class TapLists {
 public:
  using C = compute_t<T>;
  using Element = Tap<C, kOrders>;

  // All threads of the block call this and `fill`; both end with a barrier.
  __device__ __forceinline__ void open(const RoiBins<T>& bins, const BinBlock& block) {
    if (threadIdx.x == 0) {
      box_ = bins.box(block.k);
      moved_ = bins.offset.defined();
      height_ = moved_ ? block.bins() : block.height;
      width_ = block.width;
      lists_ = height_ + (moved_ ? block.bins() : block.width);
      capacity_ = kTaps / lists_;
      // A sample touches two rows, a pixel one.
      window_ = bins.convention.points == RoiPoints::kPixels ? capacity_ : capacity_ / 2;
      windows_[0] = windows_[1] = 1;
    }
    __syncthreads();
    const int list = threadIdx.x;
    if (list < lists_) {
      const BinAxis<C> bin = axis_of(bins, block, list);
      const BinReach reach = reach_of(bins, box_.state, bin);
      reach_[list] = reach;
      divisor_[list] = divisor_of(bins, bin.axis, reach);
      atomicMax(&windows_[list < height_ ? 0 : 1], (reach.count + window_ - 1) / window_);
    }
    __syncthreads();
  }

  __device__ __forceinline__ int windows_y() const { return windows_[0]; }
  __device__ __forceinline__ int windows_x() const { return windows_[1]; }

  // Rows in window_y, columns in window_x.
  __device__ __forceinline__ void fill(const RoiBins<T>& bins, const BinBlock& block, int window_y,
                                       int window_x) {
    const int list = threadIdx.x;
    if (list < lists_) {
      const int first = (list < height_ ? window_y : window_x) * window_;
      Element* const taps = taps_ + list * capacity_;
      int count = 0;
      for_each_tap<kOrders>(
          bins, axis_of(bins, block, list), reach_[list].first + first,
          min(reach_[list].count - first, window_), [&](int index, const C(&weights)[kOrders]) {
            int i = count - 1;  // neighbouring samples touch the same rows
            if (i >= 0 && taps[i].index != index) --i;
            const bool is_new = i < 0 || taps[i].index != index;
            if (is_new) i = count++;
            taps[i].index = index;
#pragma unroll
            for (int order = 0; order < kOrders; ++order) {
              taps[i].weights[order] = (is_new ? C(0) : taps[i].weights[order]) + weights[order];
            }
          });
      count_[list] = count;
    }
    __syncthreads();
  }

  struct List {
    const Element* taps;
    int count;
  };
  __device__ __forceinline__ List rows(int bin) const { return list(row_list(bin)); }
  __device__ __forceinline__ List columns(int bin) const { return list(column_list(bin)); }

  // Whether a bin reads nothing, so that its value is 0.
  __device__ __forceinline__ bool is_empty(int bin) const {
    return reach_[row_list(bin)].count == 0 || reach_[column_list(bin)].count == 0;
  }

  // What the sum over a bin is divided by. NaN: its value is NaN.
  __device__ __forceinline__ C divisor(int bin) const {
    return is_empty(bin) ? C(1) : divisor_[row_list(bin)] * divisor_[column_list(bin)];
  }

 private:
  static constexpr int kTaps = sizeof(C) == 8 ? 512 : 1024;
  static constexpr int kLists = 2 * kMostBins;
  static_assert(kLists <= kThreads, "a thread for each list");

  // Lists of rows, then of columns.
  __device__ __forceinline__ int row_list(int bin) const { return moved_ ? bin : bin / width_; }
  __device__ __forceinline__ int column_list(int bin) const {
    return height_ + (moved_ ? bin : bin % width_);
  }
  __device__ __forceinline__ List list(int number) const {
    return {taps_ + number * capacity_, count_[number]};
  }

  __device__ __forceinline__ BinAxis<C> axis_of(const RoiBins<T>& bins, const BinBlock& block,
                                                int list) const {
    const bool is_y = list < height_;
    const int bin = is_y ? list : list - height_;
    return bin_axis(bins, box_, is_y, block.k, block.cls,
                    block.first_y + (moved_ ? bin / width_ : bin),
                    block.first_x + (moved_ ? bin % width_ : bin));
  }

  RoiBox<C> box_;
  bool moved_;
  int height_, width_, lists_;  // of rows: height_; bins side by side: width_
  int capacity_, window_;       // of a list, in taps and in samples
  int windows_[2];
  BinReach reach_[kLists];
  C divisor_[kLists];
  int count_[kLists];
  Element taps_[kTaps];
};

}  // namespace deformops::cuda

// The scatter in one fixed order, for deterministic mode: no atomics, the same bits every time.
//
// The taps of some output pixels, each an entry (offset group, tap, slot) with four weights, are
// sorted by the cell of the input that their stencil begins in. A pixel of the input then sums the
// entries of the four cells that touch it, in order, for 8 channels at a time.
//
// Pixels are taken a batch of tiles at a time, so that scratch is bounded: kBatchBytes, or what one
// tile needs if that is more. Batches follow each other and add to the same sums.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sort.cuh"
#include "kernels/cuda/taps.cuh"

namespace deformops::cuda {

constexpr int64_t kBatchBytes = int64_t{64} << 20;

// Tiles [first, first + count) of kN pixels; a slot is a pixel of one of them, inside the map or
// not.
struct TileBatch {
  int64_t first, count;
  int pixel_tiles;  // of an image

  int64_t first_image() const { return first / pixel_tiles; }
  int64_t images() const { return (first + count - 1) / pixel_tiles - first_image() + 1; }
};

// What a batch scatters: the value of (channel, tap, slot) is
// data[channel * channel_stride + tap * tap_stride + offsets[slot]].
template <class S>
struct SlotColumns {
  const S* data;
  int64_t channel_stride, tap_stride;
};

// Entry (group * taps + tap) * slots + slot.
template <class C>
struct Entries {
  int2* axes;
  Weights<C>* weights;
  int64_t* offsets;  // of slots
  int64_t slots;
};

// Cells of an image and offset group, counted from (-1, -1): [H + 1, W + 1].
struct Cells {
  int64_t height, width, groups;

  __host__ __device__ int64_t count() const { return height * width; }
  __host__ __device__ int64_t key(int64_t image, int64_t group, int64_t y, int64_t x) const {
    return (image * groups + group) * count() + (y + 1) * width + x + 1;
  }
};

// Where a slot lies in what is scattered: by its pixel in a map with these strides, or by its
// number.
struct SlotStrides {
  bool by_pixel;
  int64_t image, y, x;
};

// Entries that read nothing get the key `nowhere`, which is above all others.
template <class T>
__global__ void __launch_bounds__(kThreads)
    locate_taps_kernel(SampledWindow<T> window, TileBatch batch, int64_t first_image, Cells cells,
                       SlotStrides strides, uint32_t nowhere, Entries<compute_t<T>> entries,
                       Pairs<uint32_t> pairs) {
  using C = compute_t<T>;
  constexpr int kPixels = Tile<T>::kN;
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (slot >= entries.slots) return;
  const int64_t tile = batch.first + slot / kPixels;
  const int64_t n = tile / batch.pixel_tiles;
  const int64_t pixel = tile % batch.pixel_tiles * kPixels + slot % kPixels;
  const int64_t oy = pixel / window.x.output, ox = pixel % window.x.output;
  const bool inside = oy < window.y.output;
  entries.offsets[slot] =
      strides.by_pixel ? n * strides.image + oy * strides.y + ox * strides.x : slot;

  for (int64_t group = 0; group < window.offset_groups; ++group) {
    for (int64_t tap = 0; tap < window.taps(); ++tap) {
      const int64_t entry = (group * window.taps() + tap) * entries.slots + slot;
      int2 axes = {0, 0};
      if (inside) {
        const TapStencil<C> stencil = window.stencil(n, group, tap, oy, ox);
        const C y0 = stencil.mask * stencil.y.weight[0], y1 = stencil.mask * stencil.y.weight[1];
        axes = {pack_axis(stencil.y), pack_axis(stencil.x)};
        entries.weights[entry] = {{y0 * stencil.x.weight[0], y0 * stencil.x.weight[1],
                                   y1 * stencil.x.weight[0], y1 * stencil.x.weight[1]}};
      }
      const bool reads = (axes.x & 3) != 0 && (axes.y & 3) != 0;
      entries.axes[entry] = axes;
      pairs.entries[entry] = static_cast<uint32_t>(entry);
      pairs.keys[entry] =
          reads ? static_cast<uint32_t>(cells.key(n - first_image, group, axes.x >> 2, axes.y >> 2))
                : nowhere;
    }
  }
}

__device__ __forceinline__ int64_t lower_bound(const uint32_t* keys, int64_t size, uint32_t key) {
  int64_t low = 0, high = size;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

constexpr int kSumChannels = 8;

// A thread has a pixel of the input and kSumChannels channels of one offset group.
template <class C, class S>
__global__ void __launch_bounds__(kThreads, 7)
    sum_entries_kernel(SlotColumns<S> columns, Entries<C> entries, Pairs<uint32_t> sorted,
                       int64_t size, Cells cells, int64_t first_image, int64_t images, int64_t taps,
                       int64_t group_channels, View<C, 4> sums) {
  const int64_t height = sums.sizes[2], width = sums.sizes[3];
  const int64_t chunks = (group_channels + kSumChannels - 1) / kSumChannels;
  int64_t rest = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t x = rest % width;
  rest /= width;
  const int64_t y = rest % height;
  rest /= height;
  const int64_t chunk = rest % chunks;
  rest /= chunks;
  const int64_t group = rest % cells.groups, image = rest / cells.groups;
  if (image >= images) return;

  const int64_t first_channel = group * group_channels + chunk * kSumChannels;
  const int channels =
      static_cast<int>(min(static_cast<long long>(kSumChannels),
                           static_cast<long long>(group_channels - chunk * kSumChannels)));
  C total[kSumChannels] = {};
  bool any = false;
  for (int row = 0; row < 2; ++row) {
    // The cells (y - row, x - 1) and (y - row, x): neighbours among the keys as well.
    const uint32_t left = static_cast<uint32_t>(cells.key(image, group, y - row, x - 1));
    for (int64_t i = lower_bound(sorted.keys, size, left); i < size && sorted.keys[i] <= left + 1;
         ++i) {
      const int64_t entry = sorted.entries[i];
      const int column = sorted.keys[i] == left ? 1 : 0;
      const int2 axes = entries.axes[entry];
      if (!(axes.x >> row & 1) || !(axes.y >> column & 1)) continue;
      const C weight = entries.weights[entry].corner[row * 2 + column];
      const int64_t slot = entry % entries.slots, tap = entry / entries.slots % taps;
      const S* from = columns.data + first_channel * columns.channel_stride +
                      tap * columns.tap_stride + entries.offsets[slot];
#pragma unroll
      for (int c = 0; c < kSumChannels; ++c) {
        if (c < channels) total[c] += weight * static_cast<C>(from[c * columns.channel_stride]);
      }
      any = true;
    }
  }
  if (!any) return;
#pragma unroll
  for (int c = 0; c < kSumChannels; ++c) {
    if (c < channels) sums(first_image + image, first_channel + c, y, x) += total[c];
  }
}

template <class T>
class OrderedScatter {
 public:
  using C = compute_t<T>;

  // `slot_bytes`: what the caller keeps for each slot of a batch.
  OrderedScatter(const Context& context, const SampledWindow<T>& window, int64_t images,
                 int64_t channels, size_t slot_bytes)
      : stream_(context.stream),
        window_(window),
        pixel_tiles_(tile_pixels(window, Tile<T>::kN)),
        tiles_(images * pixel_tiles_),
        group_channels_(channels / window.offset_groups),
        cells_{window.y.input + 1, window.x.input + 1, window.offset_groups},
        batch_(std::clamp<int64_t>(
            kBatchBytes / (Tile<T>::kN * static_cast<int64_t>(slot_bytes + entry_bytes())), 1,
            std::max<int64_t>(tiles_, 1))),
        sort_(context, batch_ * Tile<T>::kN * window.offset_groups * window.taps()) {
    const int64_t slots = batch_ * Tile<T>::kN;
    const int64_t size = slots * window.offset_groups * window.taps();
    entries_ = {context.scratch->allocate_array<int2>(size),
                context.scratch->allocate_array<Weights<C>>(size),
                context.scratch->allocate_array<int64_t>(slots), slots};
  }

  int64_t batch_slots() const { return batch_ * Tile<T>::kN; }

  // Calls make(batch) for one batch after the other, then scatters `columns`.
  template <class S, class Make>
  void run(const SlotColumns<S>& columns, const SlotStrides& strides, const View<C, 4>& sums,
           const Make& make) {
    for (int64_t first = 0; first < tiles_; first += batch_) {
      const TileBatch batch = {first, std::min(batch_, tiles_ - first), pixel_tiles_};
      make(batch);
      scatter(batch, columns, strides, sums);
    }
  }

 private:
  size_t entry_bytes() const {
    const size_t entries = static_cast<size_t>(window_.offset_groups * window_.taps());
    return entries * (sizeof(int2) + sizeof(Weights<C>) + 4 * sizeof(uint32_t)) + sizeof(int64_t);
  }

  template <class S>
  void scatter(const TileBatch& batch, const SlotColumns<S>& columns, const SlotStrides& strides,
               const View<C, 4>& sums) {
    const int64_t nowhere = batch.images() * window_.offset_groups * cells_.count();
    Entries<C> entries = entries_;
    entries.slots = batch.count * Tile<T>::kN;
    const int64_t size = entries.slots * window_.offset_groups * window_.taps();
    if (nowhere > INT32_MAX || size > INT32_MAX) {
      throw std::length_error("scatter: a map of one channel has more than 2^31 cells");
    }
    int bits = 1;
    while (nowhere >> bits != 0) ++bits;

    launch("locate_taps", locate_taps_kernel<T>, divide_up(entries.slots, kThreads), kThreads,
           stream_, window_, batch, batch.first_image(), cells_, strides,
           static_cast<uint32_t>(nowhere), entries, sort_.pairs);
    sort_.sort(size, bits);
    const int64_t threads = batch.images() * window_.offset_groups *
                            divide_up(group_channels_, kSumChannels) * sums.sizes[2] *
                            sums.sizes[3];
    launch("sum_entries", sum_entries_kernel<C, S>, divide_up(threads, kThreads), kThreads, stream_,
           columns, entries, sort_.pairs, size, cells_, batch.first_image(), batch.images(),
           window_.taps(), group_channels_, sums);
  }

  void* stream_;
  SampledWindow<T> window_;
  int pixel_tiles_;
  int64_t tiles_, group_channels_;
  Cells cells_;
  int64_t batch_;
  RadixSort<uint32_t> sort_;
  Entries<C> entries_;
};

}  // namespace deformops::cuda

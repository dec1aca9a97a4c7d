// A stable radix sort of (key, entry) pairs, 8 bits a pass, least significant first. Keys are
// uint32_t or uint64_t.
//
// A pass counts the digits of every run of 2048 pairs, turns the counts into positions, and moves
// the pairs. Nothing depends on which block or warp comes first: equal input, equal output.
// Scratch: twice the pairs, and half a byte for each.
#pragma once

#include <cstdint>
#include <utility>

#include "core/context.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/scan.cuh"

namespace deformops::cuda {

constexpr int kDigits = 256;
constexpr int kSortThreads = 256;  // a digit for each, when counts are handled
constexpr int kSortWarps = kSortThreads / 32;
constexpr int kSortRun = 2048;  // pairs of a block

template <class Key>
__device__ __forceinline__ int digit_of(Key key, int shift) {
  return static_cast<int>(key >> shift & (kDigits - 1));
}

// counts[digit * runs + run].
template <class Key>
__global__ void __launch_bounds__(kSortThreads)
    count_digits_kernel(const Key* keys, int64_t size, int shift, uint32_t* counts) {
  __shared__ uint32_t local[kDigits];
  local[threadIdx.x] = 0;
  __syncthreads();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSortRun;
  for (int i = threadIdx.x; i < kSortRun && first + i < size; i += kSortThreads) {
    atomicAdd(&local[digit_of(keys[first + i], shift)], 1u);
  }
  __syncthreads();
  counts[static_cast<int64_t>(threadIdx.x) * gridDim.x + blockIdx.x] = local[threadIdx.x];
}

// Moves a run, 256 pairs at a time: a pair goes behind those of its digit in earlier runs, earlier
// rounds, lower warps and lower lanes.
template <class Key>
__global__ void __launch_bounds__(kSortThreads)
    move_pairs_kernel(const Key* keys, const uint32_t* entries, int64_t size, int shift,
                      const uint32_t* positions, Key* sorted_keys, uint32_t* sorted_entries) {
  __shared__ uint32_t counts[kSortWarps][kDigits];
  const int t = threadIdx.x, warp = t / 32;
  const unsigned lower_lanes = (1u << t % 32) - 1;
  uint32_t next = positions[static_cast<int64_t>(t) * gridDim.x + blockIdx.x];  // of digit t

  for (int round = 0; round < kSortRun; round += kSortThreads) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kSortRun + round + t;
    const bool active = i < size;
    const Key key = active ? keys[i] : 0;
    const int digit = digit_of(key, shift);
    unsigned same = __ballot_sync(~0u, active);  // the lanes that hold this digit
    for (int bit = 0; bit < 8; ++bit) {
      const unsigned with = __ballot_sync(~0u, digit >> bit & 1);
      same &= digit >> bit & 1 ? with : ~with;
    }
    const uint32_t rank = static_cast<uint32_t>(__popc(same & lower_lanes));

    for (int w = 0; w < kSortWarps; ++w) counts[w][t] = 0;
    __syncthreads();
    if (active && rank == 0) counts[warp][digit] = static_cast<uint32_t>(__popc(same));
    __syncthreads();
    for (int w = 0; w < kSortWarps; ++w) {
      const uint32_t count = counts[w][t];
      counts[w][t] = next;
      next += count;
    }
    __syncthreads();
    if (active) {
      const uint32_t position = counts[warp][digit] + rank;
      sorted_keys[position] = key;
      sorted_entries[position] = entries[i];
    }
    __syncthreads();
  }
}

template <class Key>
struct Pairs {
  Key* keys;
  uint32_t* entries;
};

// Buffers for sorts of up to `size` pairs, which `sort` reads from and leaves in `pairs`.
template <class Key>
class RadixSort {
 public:
  RadixSort(const Context& context, int64_t size)
      : stream_(context.stream),
        pairs{context.scratch->allocate_array<Key>(size),
              context.scratch->allocate_array<uint32_t>(size)},
        other_{context.scratch->allocate_array<Key>(size),
               context.scratch->allocate_array<uint32_t>(size)},
        counts_(context.scratch->allocate_array<uint32_t>(divide_up(size, kSortRun) * kDigits)),
        scan_(context, divide_up(size, kSortRun) * kDigits) {}

  // Sorts the first `size` pairs by the lowest `bits` of their keys.
  void sort(int64_t size, int bits) {
    const int64_t runs = divide_up(size, kSortRun);
    for (int shift = 0; shift < bits; shift += 8) {
      launch("count_digits", count_digits_kernel<Key>, runs, kSortThreads, stream_, pairs.keys,
             size, shift, counts_);
      scan_.run(counts_, runs * kDigits);
      launch("move_pairs", move_pairs_kernel<Key>, runs, kSortThreads, stream_, pairs.keys,
             pairs.entries, size, shift, counts_, other_.keys, other_.entries);
      std::swap(pairs, other_);
    }
  }

  // The buffers that do not hold the result.
  const Pairs<Key>& other() const { return other_; }

 private:
  void* stream_;

 public:
  Pairs<Key> pairs;

 private:
  Pairs<Key> other_;
  uint32_t* counts_;
  PrefixSum scan_;
};

}  // namespace deformops::cuda

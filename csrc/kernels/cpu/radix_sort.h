// A stable radix sort of (key, entry) pairs.
//
// One pass deals the pairs out by their highest bits, all threads at once: each has a piece of the
// array, and counts of the pieces before it tell where its pairs go. The buckets fit into the
// second-level cache, where they are sorted one by one, least significant digit first. A stable
// sort has one result, so pieces may be cut to suit the threads.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/tasks.h"

namespace deformops::cpu::DEFORMOPS_ISA {

struct SortPairs {
  uint64_t* keys;
  int32_t* entries;
};

class RadixSort {
 public:
  // Scratch: 12 bytes for each of `size` pairs besides those to be sorted.
  RadixSort(const Context& context, const Team& team, int64_t size)
      : team_(team),
        size_(size),
        pieces_(team.workers(divide_up(size, kLeastPiece))),
        other_{allocate<uint64_t>(context, size), allocate<int32_t>(context, size)},
        counts_(allocate<int64_t>(context, pieces_ * kBuckets)) {}

  // Sorts by the lowest `bits` of the keys. The memory of `pairs` is used up: read the result.
  SortPairs sort(const SortPairs& pairs, int bits) {
    const int low_bits = static_cast<int>(larger(0, bits - kBucketBits));
    deal_out(pairs, low_bits);
    const int64_t* const ends = counts_ + (pieces_ - 1) * kBuckets;
    const SortPairs dealt = other_;
    team_.for_each(kBuckets, [&](int64_t bucket, int64_t) {
      const int64_t begin = bucket == 0 ? 0 : ends[bucket - 1];
      sort_bucket({dealt.keys + begin, dealt.entries + begin},
                  {pairs.keys + begin, pairs.entries + begin}, ends[bucket] - begin, low_bits);
    });
    const bool back = passes(low_bits) % 2 == 1;
    other_ = back ? dealt : pairs;
    return back ? pairs : dealt;
  }

  // The memory that does not hold the result.
  SortPairs other() const { return other_; }

 private:
  static constexpr int64_t kLeastPiece = 1 << 12;
  static constexpr int kBucketBits = 9;
  static constexpr int64_t kBuckets = 1 << kBucketBits;
  static constexpr int kDigitBits = 8;
  static constexpr int kDigits = 1 << kDigitBits;
  static constexpr int kMostPasses = (64 - kBucketBits + kDigitBits - 1) / kDigitBits;
  static constexpr int64_t kFewPairs = 24;  // sorted by insertion

  static int passes(int bits) { return (bits + kDigitBits - 1) / kDigitBits; }

  void deal_out(const SortPairs& pairs, int shift) {
    const auto bucket = [&](int64_t i) {
      return static_cast<int64_t>(pairs.keys[i] >> shift & (kBuckets - 1));
    };
    const auto begin = [&](int64_t piece) { return size_ * piece / pieces_; };
    team_.for_each(pieces_, [&](int64_t piece, int64_t) {
      int64_t* const counts = counts_ + piece * kBuckets;
      memset(counts, 0, sizeof(int64_t) * kBuckets);
      for (int64_t i = begin(piece); i < begin(piece + 1); ++i) ++counts[bucket(i)];
    });
    int64_t before = 0;
    for (int64_t b = 0; b < kBuckets; ++b) {
      for (int64_t piece = 0; piece < pieces_; ++piece) {
        const int64_t count = counts_[piece * kBuckets + b];
        counts_[piece * kBuckets + b] = before;
        before += count;
      }
    }
    team_.for_each(pieces_, [&](int64_t piece, int64_t) {
      int64_t* const next = counts_ + piece * kBuckets;
      for (int64_t i = begin(piece); i < begin(piece + 1); ++i) {
        const int64_t to = next[bucket(i)]++;
        other_.keys[to] = pairs.keys[i];
        other_.entries[to] = pairs.entries[i];
      }
    });
  }

  // From `from` to wherever an exchange of the two in each pass leads.
  static void sort_bucket(SortPairs from, SortPairs to, int64_t size, int bits) {
    const uint64_t mask = (uint64_t{1} << bits) - 1;
    const int count = passes(bits);
    if (size <= kFewPairs) {
      for (int64_t i = 1; i < size; ++i) {
        const uint64_t key = from.keys[i];
        const int32_t entry = from.entries[i];
        int64_t at = i;
        for (; at > 0 && (from.keys[at - 1] & mask) > (key & mask); --at) {
          from.keys[at] = from.keys[at - 1];
          from.entries[at] = from.entries[at - 1];
        }
        from.keys[at] = key;
        from.entries[at] = entry;
      }
      if (count % 2 == 1) {
        memcpy(to.keys, from.keys, static_cast<size_t>(size) * sizeof(uint64_t));
        memcpy(to.entries, from.entries, static_cast<size_t>(size) * sizeof(int32_t));
      }
      return;
    }
    int32_t counts[kMostPasses][kDigits] = {};
    for (int64_t i = 0; i < size; ++i) {
      const uint64_t key = from.keys[i] & mask;
      for (int pass = 0; pass < count; ++pass) {
        ++counts[pass][key >> (pass * kDigitBits) & (kDigits - 1)];
      }
    }
    for (int pass = 0; pass < count; ++pass) {
      int32_t before = 0;
      for (int32_t& next : counts[pass]) {
        const int32_t here = next;
        next = before;
        before += here;
      }
      for (int64_t i = 0; i < size; ++i) {
        const uint64_t key = from.keys[i];
        const int32_t at = counts[pass][(key & mask) >> (pass * kDigitBits) & (kDigits - 1)]++;
        to.keys[at] = key;
        to.entries[at] = from.entries[i];
      }
      const SortPairs sorted = to;
      to = from;
      from = sorted;
    }
  }

  const Team& team_;
  int64_t size_, pieces_;
  SortPairs other_;
  int64_t* counts_;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

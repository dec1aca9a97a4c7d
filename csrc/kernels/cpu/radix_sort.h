// A stable radix sort of (key, entry) pairs, 8 bits a pass, least significant first.
//
// Every pass counts the digits of some pieces of the array, which tells each piece where its pairs
// go. A stable sort has one result, so pieces may be cut to suit the threads.
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
        pieces_(team.workers(size)),
        other_{allocate<uint64_t>(context, size), allocate<int32_t>(context, size)},
        counts_(allocate<int64_t>(context, pieces_ * kDigits)) {}

  // Sorts by the lowest `bits` of the keys. The memory of `pairs` is used up: read the result.
  SortPairs sort(SortPairs pairs, int bits) {
    for (int shift = 0; shift < bits; shift += kDigitBits) {
      pass(pairs, shift);
      const SortPairs sorted = other_;
      other_ = pairs;
      pairs = sorted;
    }
    return pairs;
  }

  // The memory that does not hold the result.
  SortPairs other() const { return other_; }

 private:
  static constexpr int kDigitBits = 8;
  static constexpr int64_t kDigits = 1 << kDigitBits;

  static int64_t digit(uint64_t key, int shift) {
    return static_cast<int64_t>(key >> shift & (kDigits - 1));
  }
  int64_t begin(int64_t piece) const { return size_ * piece / pieces_; }

  void pass(const SortPairs& from, int shift) {
    team_.for_each(pieces_, [&](int64_t piece, int64_t) {
      int64_t* const counts = counts_ + piece * kDigits;
      memset(counts, 0, sizeof(int64_t) * kDigits);
      for (int64_t i = begin(piece); i < begin(piece + 1); ++i) {
        ++counts[digit(from.keys[i], shift)];
      }
    });
    int64_t before = 0;
    for (int64_t d = 0; d < kDigits; ++d) {
      for (int64_t piece = 0; piece < pieces_; ++piece) {
        const int64_t count = counts_[piece * kDigits + d];
        counts_[piece * kDigits + d] = before;
        before += count;
      }
    }
    team_.for_each(pieces_, [&](int64_t piece, int64_t) {
      int64_t* const next = counts_ + piece * kDigits;
      for (int64_t i = begin(piece); i < begin(piece + 1); ++i) {
        const int64_t to = next[digit(from.keys[i], shift)]++;
        other_.keys[to] = from.keys[i];
        other_.entries[to] = from.entries[i];
      }
    });
  }

  const Team& team_;
  int64_t size_, pieces_;
  SortPairs other_;
  int64_t* counts_;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

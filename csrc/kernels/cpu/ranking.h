// Numbers in order: keys that compare as integers, and a stable radix sort of them.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/scalars.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// The higher the score the lower its key; NaN has the lowest, and 0 and -0 have the same.
DEFORMOPS_INLINE uint32_t falling_key(float score) {
  if (score != score) return 0;
  const uint32_t bits = bit_cast<uint32_t>(score + 0.0f);
  return bits >> 31 ? bits : bits ^ 0x7fffffffu;
}

DEFORMOPS_INLINE uint64_t falling_key(double score) {
  if (score != score) return 0;
  const uint64_t bits = bit_cast<uint64_t>(score + 0.0);
  return bits >> 63 ? bits : bits ^ (~uint64_t{0} >> 1);
}

template <class K>
struct Ranked {
  K key;
  uint32_t entry;
};

// Sorts by key; pairs of one key keep their order. `spare` has room for as many.
template <class K>
DEFORMOPS_INLINE void sort_by_key(Ranked<K>* pairs, Ranked<K>* spare, int64_t count) {
  constexpr int kMostBits = 11;
  K varying = 0;
  bool sorted = true;
  for (int64_t i = 1; i < count; ++i) {
    varying |= pairs[i].key ^ pairs[0].key;
    sorted &= pairs[i - 1].key <= pairs[i].key;
  }
  if (sorted) return;

  const int bits = count < 4096 ? 8 : kMostBits;  // few boxes should not pay for many digits
  const K digits = K{1} << bits;
  uint32_t places[1 << kMostBits];
  Ranked<K>* from = pairs;
  Ranked<K>* to = spare;
  for (int shift = 0; shift < static_cast<int>(8 * sizeof(K)); shift += bits) {
    if ((varying >> shift & (digits - 1)) == 0) continue;
    memset(places, 0, static_cast<size_t>(digits) * sizeof(uint32_t));
    for (int64_t i = 0; i < count; ++i) ++places[from[i].key >> shift & (digits - 1)];
    uint32_t before = 0;
    for (K digit = 0; digit < digits; ++digit) {
      const uint32_t here = places[digit];
      places[digit] = before;
      before += here;
    }
    for (int64_t i = 0; i < count; ++i) {
      to[places[from[i].key >> shift & (digits - 1)]++] = from[i];
    }
    Ranked<K>* const swapped = from;
    from = to;
    to = swapped;
  }
  if (from != pairs) memcpy(pairs, from, static_cast<size_t>(count) * sizeof(Ranked<K>));
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

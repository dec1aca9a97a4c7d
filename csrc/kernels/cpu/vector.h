// Vectors as wide as the instruction set that the including file is compiled for.
//
// Compiler vectors instead of intrinsics: one text serves every instruction set. Products and sums
// are fused where the processor can (the build asks for it), so results differ between instruction
// sets in their last bits, never between runs or numbers of threads.
//
// Headers of this folder that say DEFORMOPS_ISA are included by *.isa.cpp only: each instruction
// set has a namespace of its own, and nothing but always-inlined functions comes from outside it.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"
#include "core/scalars.h"

namespace deformops::cpu::DEFORMOPS_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class C>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t index;
  typedef index integers __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t index;
  typedef index integers __attribute__((vector_size(kVectorBytes)));
};

template <class C>
using Vector = typename VectorOf<C>::type;
template <class C>
using Integers = typename VectorOf<C>::integers;

template <class C>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(C));

// The width of everything that is cut into blocks of channels: packed weights, tiles of results,
// maps with one block of channels after the other.
template <class C>
constexpr int kBlock = 2 * kLanes<C>;

// Rows of a tile that one step of a product keeps in registers: two vectors of sums for each, two
// of the other factor and a broadcast number fill them.
#if defined(__AVX512F__)
constexpr int kTileRows = 14;
#else
constexpr int kTileRows = 6;
#endif

// Pixels of a tile: with 256 channels a tile of columns and one of sums fill a fifth of a
// second-level cache of 1 MiB, and a product over the pixels of a tile is deep enough to pay for
// its sums.
template <class C>
constexpr int64_t kTilePixels = 448 / static_cast<int64_t>(sizeof(C)) / kTileRows * kTileRows;

// The address `distance` elements after (or before) another, which need not be in the same array.
template <class C>
DEFORMOPS_INLINE C* at_distance(C* address, int64_t distance) {
  return reinterpret_cast<C*>(reinterpret_cast<uintptr_t>(address) +
                              static_cast<uintptr_t>(distance) * sizeof(C));
}

template <class C>
DEFORMOPS_INLINE Vector<C> load(const C* address) {
  return *reinterpret_cast<const typename VectorOf<C>::unaligned*>(address);
}

template <class C>
DEFORMOPS_INLINE void store(C* address, Vector<C> vector) {
  *reinterpret_cast<typename VectorOf<C>::unaligned*>(address) = vector;
}

// The lanes of (a, b) that `lanes` names, which are constants: clang makes a shuffle of the loop,
// g++ has to be told.
template <class C>
DEFORMOPS_INLINE Vector<C> shuffle(Vector<C> a, Vector<C> b, Integers<C> lanes) {
#if defined(__clang__)
  Vector<C> result;
#pragma clang loop unroll(full)
  for (int i = 0; i < kLanes<C>; ++i) {
    result[i] = lanes[i] < kLanes<C> ? a[lanes[i]] : b[lanes[i] - kLanes<C>];
  }
  return result;
#else
  return __builtin_shuffle(a, b, lanes);
#endif
}

// Exchanges the lanes of a and b that are kWidth apart: afterwards a has, in every group of 2 *
// kWidth lanes, the first halves of both, and b the second halves.
template <class C, int kWidth>
DEFORMOPS_INLINE void exchange(Vector<C>& a, Vector<C>& b) {
  Integers<C> first = {}, second = {};
  for (int lane = 0; lane < kLanes<C>; ++lane) {
    const bool of_b = (lane & kWidth) != 0;
    first[lane] = of_b ? kLanes<C> + lane - kWidth : lane;
    second[lane] = of_b ? kLanes<C> + lane : lane + kWidth;
  }
  const Vector<C> halves = shuffle<C>(a, b, first);
  b = shuffle<C>(a, b, second);
  a = halves;
}

// Adds up the lanes that are kWidth, 2 * kWidth, 4 * kWidth ... apart.
template <class C, int kWidth>
DEFORMOPS_INLINE void fold(Vector<C>& vector) {
  if constexpr (kWidth < kLanes<C>) {
    Vector<C> other = vector;
    exchange<C, kWidth>(vector, other);
    vector += other;
    fold<C, 2 * kWidth>(vector);
  }
}

// The sum of the lanes of each of four vectors.
template <class C>
DEFORMOPS_INLINE void sum_each(Vector<C> a, Vector<C> b, Vector<C> c, Vector<C> d, C* sums) {
  exchange<C, 1>(a, b);
  exchange<C, 1>(c, d);
  Vector<C> ab = a + b, cd = c + d;  // lanes a b a b ...
  if constexpr (kLanes<C> == 2) {
    store(sums, ab);
    store(sums + 2, cd);
  } else {
    exchange<C, 2>(ab, cd);
    Vector<C> all = ab + cd;  // lanes a b c d a b c d ...
    fold<C, 4>(all);
    memcpy(sums, &all, 4 * sizeof(C));
  }
}

// std::min and its like are templates that a compiler may leave behind as symbols; these are not.
DEFORMOPS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DEFORMOPS_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
DEFORMOPS_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
DEFORMOPS_INLINE int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

template <class C, class T>
DEFORMOPS_INLINE C convert(T value) {
  return static_cast<C>(value);
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

// Whole vectors of storage types to and from the type that is computed in.
//
// For half types these are the conversions of core/scalars.h as integer arithmetic without
// branches.
#pragma once

#include <cstdint>

#include "core/scalars.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));

// binary16 in the low halves of `bits`. Its exponent counts from 15 and float's from 127.
DEFORMOPS_INLINE Words widen(Words bits, half) {
  const Words magnitude = (bits & 0x7fffu) << 13;
  const Vector<float> scaled = reinterpret_cast<Vector<float>>(magnitude) * 0x1p112f;
  const Words finite = reinterpret_cast<Words>(scaled);
  const Words word = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite;
  return word | (bits & 0x8000u) << 16;
}

DEFORMOPS_INLINE Words widen(Words bits, bfloat16) { return bits << 16; }

DEFORMOPS_INLINE Words narrow(Words word, half) {
  const Words magnitude = word & 0x7fffffffu;
  const Words normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 the float addition rounds to multiples of 2^-24.
  const Vector<float> shifted = reinterpret_cast<Vector<float>>(magnitude) + 0.5f;
  const Words tiny = reinterpret_cast<Words>(shifted) - 0x3f000000u;
  Words result = magnitude < 0x38800000u ? tiny : normal;
  result = magnitude >= 0x47800000u ? Words{} + 0x7c00u : result;
  result = magnitude > 0x7f800000u ? Words{} + 0x7e00u : result;
  return result | ((word >> 16) & 0x8000u);
}

DEFORMOPS_INLINE Words narrow(Words word, bfloat16) {
  const Words rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;  // to even
  return (word & 0x7fffffffu) > 0x7f800000u ? word >> 16 | 0x40u : rounded;
}

template <class C, class T>
DEFORMOPS_INLINE Vector<C> load_as(const T* address) {
  if constexpr (sizeof(T) == sizeof(C)) {
    return load(address);
  } else {
    HalfWords bits;
    memcpy(&bits, address, sizeof(bits));
    return reinterpret_cast<Vector<C>>(widen(__builtin_convertvector(bits, Words), T{}));
  }
}

template <class C, class T>
DEFORMOPS_INLINE void store_as(T* address, Vector<C> vector) {
  if constexpr (sizeof(T) == sizeof(C)) {
    store(address, vector);
  } else {
    const HalfWords bits =
        __builtin_convertvector(narrow(reinterpret_cast<Words>(vector), T{}), HalfWords);
    memcpy(address, &bits, sizeof(bits));
  }
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

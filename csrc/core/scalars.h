// Storage types and the type that arithmetic on them is done in.
//
// half and bfloat16 only store: kernels load, compute in float and round once when they store.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"

#if defined(__CUDA_ARCH__)
#include <cuda_fp16.h>
#endif

namespace deformops {

template <class To, class From>
DEFORMOPS_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs types of one size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// IEEE 754 binary16.
struct half {
  uint16_t bits;

  half() = default;
  DEFORMOPS_INLINE explicit half(float value) : bits(encode(value)) {}
  DEFORMOPS_INLINE explicit operator float() const { return decode(bits); }

 private:
#if defined(__CUDA_ARCH__)
  static DEFORMOPS_INLINE uint16_t encode(float v) { return __half_as_ushort(__float2half_rn(v)); }
  static DEFORMOPS_INLINE float decode(uint16_t b) { return __half2float(__ushort_as_half(b)); }
#elif defined(__FLT16_MANT_DIG__) && defined(__F16C__)
  static DEFORMOPS_INLINE uint16_t encode(float v) {
    return bit_cast<uint16_t>(static_cast<_Float16>(v));
  }
  static DEFORMOPS_INLINE float decode(uint16_t b) {
    return static_cast<float>(bit_cast<_Float16>(b));
  }
#else
  // Scaling by powers of two lets the float unit do the rounding, subnormals included.
  static DEFORMOPS_INLINE uint16_t encode(float v) {
    const uint32_t word = bit_cast<uint32_t>(v);
    const uint32_t sign = (word >> 16) & 0x8000u;
    const uint32_t magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {  // below 2^-14: the float addition rounds to multiples of 2^-24
      const float shifted = bit_cast<float>(magnitude) + 0.5f;
      return static_cast<uint16_t>(sign | (bit_cast<uint32_t>(shifted) - 0x3f000000u));
    }
    const uint32_t odd = (magnitude >> 13) & 1u;
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
  }
  static DEFORMOPS_INLINE float decode(uint16_t b) {
    const uint32_t sign = static_cast<uint32_t>(b & 0x8000u) << 16;
    const uint32_t magnitude = b & 0x7fffu;
    if (magnitude >= 0x7c00u) return bit_cast<float>(sign | 0x7f800000u | (magnitude << 13));
    const float scaled = bit_cast<float>(magnitude << 13) * 5.192296858534828e33f;  // 2^112
    return bit_cast<float>(sign | bit_cast<uint32_t>(scaled));
  }
#endif
};

// The upper 16 bits of a float.
struct bfloat16 {
  uint16_t bits;

  bfloat16() = default;
  DEFORMOPS_INLINE explicit bfloat16(float value) {
    const uint32_t word = bit_cast<uint32_t>(value);
    if ((word & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((word >> 16) | 0x40u);  // a quiet NaN stays one
    } else {
      bits = static_cast<uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);  // to even
    }
  }
  DEFORMOPS_INLINE explicit operator float() const {
    return bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// The type in which products and sums of T are formed.
template <class T>
struct compute {
  using type = T;
};
template <>
struct compute<half> {
  using type = float;
};
template <>
struct compute<bfloat16> {
  using type = float;
};
template <class T>
using compute_t = typename compute<T>::type;

}  // namespace deformops

// The exponential function of vectors of any width.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

template <class C>
struct FloatBits;
template <>
struct FloatBits<float> {
  typedef int32_t integer;
  static constexpr int kMantissa = 23, kTerms = 7;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float kLowest = -87.0f;
  static constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
};
template <>
struct FloatBits<double> {
  typedef int64_t integer;
  static constexpr int kMantissa = 52, kTerms = 13;
  static constexpr double kRound = 6755399441055744.0;
  static constexpr double kLowest = -708.0;
  static constexpr double kLog2High = 6.93145751953125e-1, kLog2Low = 1.42860682030941723212e-6;
};

// exp(x) for x <= 0, within two units in the last place; 0 below the smallest normal number, NaN
// for NaN. V is a vector of C, or C.
template <class C, class V>
DEFORMOPS_INLINE V exponential(V x) {
  using Bits = FloatBits<C>;
  typedef typename Bits::integer Integer;
  typedef Integer Integers __attribute__((vector_size(sizeof(V))));
  typedef C Values __attribute__((vector_size(sizeof(V))));
  Values v;
  memcpy(&v, &x, sizeof(v));
  const Integers tiny = v < Bits::kLowest;
  const Integers nan = v != v;
  const Values shifted = v * C(1.4426950408889634) + Bits::kRound;
  const Values whole = shifted - Bits::kRound;
  const Values rest = (v - whole * Bits::kLog2High) - whole * Bits::kLog2Low;
  // The Taylor series: |rest| <= log(2) / 2.
  Values sum = Values{} + C(1);
#pragma GCC unroll 16
  for (int k = Bits::kTerms; k > 0; --k) sum = sum * (rest * (C(1) / static_cast<C>(k))) + C(1);
  const Integers power = reinterpret_cast<Integers>(shifted) << Bits::kMantissa;
  Integers bits = reinterpret_cast<Integers>(sum) + power;
  bits = (bits & ~tiny & ~nan) | (reinterpret_cast<Integers>(v) & nan);
  memcpy(&x, &bits, sizeof(x));
  return x;
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

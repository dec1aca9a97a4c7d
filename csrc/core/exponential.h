// exp(-x) with the same bits on every processor, to about one unit in the last place.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/rounding.h"
#include "core/scalars.h"

namespace deformops {

// Integers as wide as the numbers, lane by lane for vectors.
template <class C>
struct integers {
  using type = decltype(C{} < C{});
};
template <>
struct integers<float> {
  using type = int32_t;
};
template <>
struct integers<double> {
  using type = int64_t;
};

// The layout of a floating-point number, and ln 2 as a sum whose first part has few digits.
template <int kBytes>
struct ExponentialConstants;
template <>
struct ExponentialConstants<4> {
  static constexpr int kFraction = 23, kBias = 127, kTerms = 7;
  static constexpr double kShift = 0x1.8p23, kLargest = 87.0;
  static constexpr double kLn2High = 0x1.63p-1, kLn2Low = -0x1.bd0106p-13;
};
template <>
struct ExponentialConstants<8> {
  static constexpr int kFraction = 52, kBias = 1023, kTerms = 13;
  static constexpr double kShift = 0x1.8p52, kLargest = 708.0;
  static constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
};

// exp(-x) for x >= 0, or 0 where that is (almost) too small for a normal number. C is float, double
// or a vector of them; Scalar is the type of its elements.
//
// With n = round(x / ln 2), exp(-x) = 2^-n * exp(n ln 2 - x), and the series of the second factor
// ends soon, since its argument is at most ln 2 / 2.
template <class Scalar, class C>
DEFORMOPS_INLINE C exponential_of_minus(C x) {
  using Constants = ExponentialConstants<sizeof(Scalar)>;
  using Bits = typename integers<C>::type;
  const auto number = [](double value) { return C{} + static_cast<Scalar>(value); };
  const C largest = number(Constants::kLargest);
  const C inside = x < largest ? x : largest;

  // Adding a large number leaves no room for a fraction: n is in the lowest bits of the sum.
  const C shift = number(Constants::kShift);
  const C shifted = product(inside, number(0x1.71547652b82fep0)) + shift;  // 1 / ln 2
  const C n = shifted - shift;
  const C rest =
      (product(n, number(Constants::kLn2High)) - inside) + product(n, number(Constants::kLn2Low));
  C series = number(1);
  for (int k = Constants::kTerms; k > 0; --k) {
    series = number(1) + product(rest, product(series, number(1.0 / k)));
  }
  const Bits exponent = bit_cast<Bits>(shift) - bit_cast<Bits>(shifted) + Constants::kBias;
  const C power = bit_cast<C>(static_cast<Bits>(exponent << Constants::kFraction));
  return x < largest ? product(series, power) : C{};
}

}  // namespace deformops

// Arithmetic that has the same bits on every processor.
//
// Sums, differences and quotients are rounded once wherever they are computed. A product may be
// fused with a sum that follows it and then is not rounded at all: g++ and nvcc do so where there
// is an instruction for it. `product` is rounded everywhere.
#pragma once

#include <cmath>
#include <limits>

#include "core/macros.h"

namespace deformops {

// C is float, double, or (on the host) a vector of them.
template <class C>
DEFORMOPS_INLINE C product(C a, C b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(C) == sizeof(float)) {
    return __fmul_rn(a, b);
  } else {
    return __dmul_rn(a, b);
  }
#else
  C result = a * b;
  // The compiler does not know what happens to the number here: nothing.
#if defined(__AVX512F__)
  asm("" : "+v"(result));
#elif defined(__x86_64__)
  asm("" : "+x"(result));
#elif defined(__aarch64__)
  asm("" : "+w"(result));
#else
  asm("" : "+m"(result));
#endif
  return result;
#endif
}

// The largest C that is not above a number: x > number and x > rounded_down<C>(number) are the same
// for all x of type C. For the host.
template <class C>
__attribute__((always_inline)) inline C rounded_down(double number) {
  const C nearest = static_cast<C>(number);
  if (!(static_cast<double>(nearest) > number)) return nearest;
  return std::nextafter(nearest, -std::numeric_limits<C>::infinity());
}

// The smallest C that is not below a number.
template <class C>
__attribute__((always_inline)) inline C rounded_up(double number) {
  return -rounded_down<C>(-number);
}

}  // namespace deformops

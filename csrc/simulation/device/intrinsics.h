// Arithmetic that CUDA has as built-in functions. The fast approximations (__expf and the like) are
// exact here: results may differ from a GPU's in the last bits.
#pragma once

// The C header, not <cmath>: it brings floor(float) and its like into the global namespace, where
// CUDA has them.
#include <math.h>

#include <climits>
#include <cmath>
#include <cstring>

#include "simulation/device/language.h"

// --- minimum and maximum -------------------------------------------------------------------------
#define DEFORMOPS_MIN_MAX(type)                                                \
  DEFORMOPS_DEVICE_FUNCTION type min(type a, type b) { return b < a ? b : a; } \
  DEFORMOPS_DEVICE_FUNCTION type max(type a, type b) { return a < b ? b : a; }
DEFORMOPS_MIN_MAX(int)
DEFORMOPS_MIN_MAX(unsigned)
DEFORMOPS_MIN_MAX(long)
DEFORMOPS_MIN_MAX(unsigned long)
DEFORMOPS_MIN_MAX(long long)
DEFORMOPS_MIN_MAX(unsigned long long)
#undef DEFORMOPS_MIN_MAX
// With a NaN the other argument is the result.
DEFORMOPS_DEVICE_FUNCTION float min(float a, float b) { return ::fminf(a, b); }
DEFORMOPS_DEVICE_FUNCTION float max(float a, float b) { return ::fmaxf(a, b); }
DEFORMOPS_DEVICE_FUNCTION double min(double a, double b) { return ::fmin(a, b); }
DEFORMOPS_DEVICE_FUNCTION double max(double a, double b) { return ::fmax(a, b); }

// --- loads and stores with a hint for the caches -------------------------------------------------
#define DEFORMOPS_LOAD(name)                           \
  template <class T>                                   \
  DEFORMOPS_DEVICE_FUNCTION T name(const T* address) { \
    return *address;                                   \
  }
DEFORMOPS_LOAD(__ldg)
DEFORMOPS_LOAD(__ldca)
DEFORMOPS_LOAD(__ldcg)
DEFORMOPS_LOAD(__ldcs)
DEFORMOPS_LOAD(__ldlu)
#undef DEFORMOPS_LOAD
#define DEFORMOPS_STORE(name)                                \
  template <class T>                                         \
  DEFORMOPS_DEVICE_FUNCTION void name(T* address, T value) { \
    *address = value;                                        \
  }
DEFORMOPS_STORE(__stcg)
DEFORMOPS_STORE(__stcs)
DEFORMOPS_STORE(__stwb)
DEFORMOPS_STORE(__stwt)
#undef DEFORMOPS_STORE

// --- bits ----------------------------------------------------------------------------------------
DEFORMOPS_DEVICE_FUNCTION int __popc(unsigned x) { return __builtin_popcount(x); }
DEFORMOPS_DEVICE_FUNCTION int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
DEFORMOPS_DEVICE_FUNCTION int __ffs(int x) { return __builtin_ffs(x); }
DEFORMOPS_DEVICE_FUNCTION int __ffsll(long long x) { return __builtin_ffsll(x); }
DEFORMOPS_DEVICE_FUNCTION int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
DEFORMOPS_DEVICE_FUNCTION int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
DEFORMOPS_DEVICE_FUNCTION unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1) << (31 - i);
  return reversed;
}
DEFORMOPS_DEVICE_FUNCTION int __mulhi(int a, int b) {
  return static_cast<int>(static_cast<long long>(a) * b >> 32);
}
DEFORMOPS_DEVICE_FUNCTION unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
DEFORMOPS_DEVICE_FUNCTION unsigned long long __umul64hi(unsigned long long a,
                                                        unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
DEFORMOPS_DEVICE_FUNCTION unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
  return static_cast<unsigned>(both << (shift & 31) >> 32);
}
DEFORMOPS_DEVICE_FUNCTION unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
  return static_cast<unsigned>(both >> (shift & 31));
}
// Byte i of the result is byte (selector >> 4 * i & 7) of b:a.
DEFORMOPS_DEVICE_FUNCTION unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const unsigned long long both = static_cast<unsigned long long>(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned byte = selector >> (4 * i) & 7;
    result |= static_cast<unsigned>(both >> (8 * byte) & 0xff) << (8 * i);
  }
  return result;
}

#define DEFORMOPS_BIT_CAST(name, to, from)                          \
  DEFORMOPS_DEVICE_FUNCTION to name(from value) {                   \
    static_assert(sizeof(to) == sizeof(from), "types of one size"); \
    to result;                                                      \
    std::memcpy(&result, &value, sizeof(result));                   \
    return result;                                                  \
  }
DEFORMOPS_BIT_CAST(__float_as_int, int, float)
DEFORMOPS_BIT_CAST(__int_as_float, float, int)
DEFORMOPS_BIT_CAST(__float_as_uint, unsigned, float)
DEFORMOPS_BIT_CAST(__uint_as_float, float, unsigned)
DEFORMOPS_BIT_CAST(__double_as_longlong, long long, double)
DEFORMOPS_BIT_CAST(__longlong_as_double, double, long long)
#undef DEFORMOPS_BIT_CAST

DEFORMOPS_DEVICE_FUNCTION void __trap() { __builtin_trap(); }

// --- rounding: conversions to integers saturate, and NaN becomes 0 -------------------------------
namespace deformops::simulation {
DEFORMOPS_DEVICE_FUNCTION int saturated_int(double value) {
  if (value != value) return 0;
  if (value >= 2147483647.0) return INT_MAX;
  if (value <= -2147483648.0) return INT_MIN;
  return static_cast<int>(value);
}
}  // namespace deformops::simulation
DEFORMOPS_DEVICE_FUNCTION int __float2int_rd(float x) {
  return deformops::simulation::saturated_int(std::floor(x));
}
DEFORMOPS_DEVICE_FUNCTION int __float2int_rn(float x) {
  return deformops::simulation::saturated_int(std::nearbyint(x));
}
DEFORMOPS_DEVICE_FUNCTION int __float2int_ru(float x) {
  return deformops::simulation::saturated_int(std::ceil(x));
}
DEFORMOPS_DEVICE_FUNCTION int __float2int_rz(float x) {
  return deformops::simulation::saturated_int(std::trunc(x));
}
DEFORMOPS_DEVICE_FUNCTION float __int2float_rn(int x) { return static_cast<float>(x); }
DEFORMOPS_DEVICE_FUNCTION float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

// --- single operations that must not be contracted, and fused ones -------------------------------
#define DEFORMOPS_ARITHMETIC(type, prefix)                        \
  DEFORMOPS_DEVICE_FUNCTION type prefix##add_rn(type a, type b) { \
    volatile type result = a + b;                                 \
    return result;                                                \
  }                                                               \
  DEFORMOPS_DEVICE_FUNCTION type prefix##sub_rn(type a, type b) { \
    volatile type result = a - b;                                 \
    return result;                                                \
  }                                                               \
  DEFORMOPS_DEVICE_FUNCTION type prefix##mul_rn(type a, type b) { \
    volatile type result = a * b;                                 \
    return result;                                                \
  }
DEFORMOPS_ARITHMETIC(float, __f)
DEFORMOPS_ARITHMETIC(double, __d)
#undef DEFORMOPS_ARITHMETIC
DEFORMOPS_DEVICE_FUNCTION float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
DEFORMOPS_DEVICE_FUNCTION double __fma_rn(double a, double b, double c) {
  return std::fma(a, b, c);
}
DEFORMOPS_DEVICE_FUNCTION float __fdiv_rn(float a, float b) { return a / b; }
DEFORMOPS_DEVICE_FUNCTION float __fdividef(float a, float b) { return a / b; }
DEFORMOPS_DEVICE_FUNCTION float __frcp_rn(float x) { return 1.0f / x; }
DEFORMOPS_DEVICE_FUNCTION float __fsqrt_rn(float x) { return std::sqrt(x); }
DEFORMOPS_DEVICE_FUNCTION float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
DEFORMOPS_DEVICE_FUNCTION float rsqrt(float x) { return 1.0f / std::sqrt(x); }
DEFORMOPS_DEVICE_FUNCTION double rsqrt(double x) { return 1.0 / std::sqrt(x); }
DEFORMOPS_DEVICE_FUNCTION float __saturatef(float x) {
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;  // NaN becomes 0
}

// --- fast approximations -------------------------------------------------------------------------
DEFORMOPS_DEVICE_FUNCTION float __expf(float x) { return std::exp(x); }
DEFORMOPS_DEVICE_FUNCTION float __logf(float x) { return std::log(x); }
DEFORMOPS_DEVICE_FUNCTION float __log2f(float x) { return std::log2(x); }
DEFORMOPS_DEVICE_FUNCTION float __powf(float x, float y) { return std::pow(x, y); }
DEFORMOPS_DEVICE_FUNCTION float __sinf(float x) { return std::sin(x); }
DEFORMOPS_DEVICE_FUNCTION float __cosf(float x) { return std::cos(x); }
DEFORMOPS_DEVICE_FUNCTION float __tanf(float x) { return std::tan(x); }

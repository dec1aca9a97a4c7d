// The 16-bit types of cuda_fp16.h and cuda_bf16.h. Each operation is done in float and rounded
// once, which is what the hardware's own 16-bit instructions give.
#pragma once

#include <cmath>
#include <cstring>

#include "simulation/device/atomics.h"
#include "simulation/device/language.h"
#include "simulation/device/vector_types.h"

#define DEFORMOPS_SHORT_FLOAT_OPERATOR(type, op)                 \
  DEFORMOPS_DEVICE_FUNCTION type operator op(type a, type b) {   \
    return type(static_cast<float>(a) op static_cast<float>(b)); \
  }                                                              \
  DEFORMOPS_DEVICE_FUNCTION type& operator op## = (type & a, type b) { return a = a op b; }

#define DEFORMOPS_SHORT_FLOAT_COMPARISON(type, name, op)       \
  DEFORMOPS_DEVICE_FUNCTION bool operator op(type a, type b) { \
    return static_cast<float>(a) op static_cast<float>(b);     \
  }                                                            \
  DEFORMOPS_DEVICE_FUNCTION bool name(type a, type b) { return a op b; }

#define DEFORMOPS_SHORT_FLOAT_BINARY(type, pair, name, expression)           \
  DEFORMOPS_DEVICE_FUNCTION type name(type a, type b) { return expression; } \
  DEFORMOPS_DEVICE_FUNCTION pair name##2(pair a, pair b) {                   \
    return pair(name(a.x, b.x), name(a.y, b.y));                             \
  }

// type: __half; pair: __half2; word: as it stands in function names; storage: what converts.
#define DEFORMOPS_SHORT_FLOAT(type, pair, raw, word, storage)                                   \
  struct raw {                                                                                  \
    unsigned short x;                                                                           \
  };                                                                                            \
  struct type {                                                                                 \
    unsigned short bits;                                                                        \
    type() = default;                                                                           \
    type(raw value) : bits(value.x) {}                                                          \
    type(float value) : bits(storage(value).bits) {}                                            \
    type(double value) : type(static_cast<float>(value)) {}                                     \
    type(int value) : type(static_cast<float>(value)) {}                                        \
    operator raw() const { return {bits}; }                                                     \
    operator float() const {                                                                    \
      storage value;                                                                            \
      value.bits = bits;                                                                        \
      return static_cast<float>(value);                                                         \
    }                                                                                           \
  };                                                                                            \
  struct alignas(4) pair {                                                                      \
    type x, y;                                                                                  \
    pair() = default;                                                                           \
    pair(type x, type y) : x(x), y(y) {}                                                        \
  };                                                                                            \
  DEFORMOPS_DEVICE_FUNCTION float __##word##2float(type a) { return static_cast<float>(a); }    \
  DEFORMOPS_DEVICE_FUNCTION type __float2##word(float a) { return type(a); }                    \
  DEFORMOPS_DEVICE_FUNCTION type __float2##word##_rn(float a) { return type(a); }               \
  DEFORMOPS_DEVICE_FUNCTION type __double2##word(double a) { return type(a); }                  \
  DEFORMOPS_DEVICE_FUNCTION unsigned short __##word##_as_ushort(type a) { return a.bits; }      \
  DEFORMOPS_DEVICE_FUNCTION type __ushort_as_##word(unsigned short a) { return type(raw{a}); }  \
  DEFORMOPS_DEVICE_FUNCTION pair __##word##2##word##2(type a) { return pair(a, a); }            \
  DEFORMOPS_DEVICE_FUNCTION pair __halves2##word##2(type a, type b) { return pair(a, b); }      \
  DEFORMOPS_DEVICE_FUNCTION pair __float2##word##2_rn(float a) { return pair(a, a); }           \
  DEFORMOPS_DEVICE_FUNCTION pair __floats2##word##2_rn(float a, float b) { return pair(a, b); } \
  DEFORMOPS_DEVICE_FUNCTION pair __float22##word##2_rn(float2 a) { return pair(a.x, a.y); }     \
  DEFORMOPS_DEVICE_FUNCTION float2 __##word##22float2(pair a) { return {a.x, a.y}; }            \
  DEFORMOPS_DEVICE_FUNCTION type __low2##word(pair a) { return a.x; }                           \
  DEFORMOPS_DEVICE_FUNCTION type __high2##word(pair a) { return a.y; }                          \
  DEFORMOPS_DEVICE_FUNCTION float __low2float(pair a) { return a.x; }                           \
  DEFORMOPS_DEVICE_FUNCTION float __high2float(pair a) { return a.y; }                          \
  DEFORMOPS_SHORT_FLOAT_OPERATOR(type, +)                                                       \
  DEFORMOPS_SHORT_FLOAT_OPERATOR(type, -)                                                       \
  DEFORMOPS_SHORT_FLOAT_OPERATOR(type, *)                                                       \
  DEFORMOPS_SHORT_FLOAT_OPERATOR(type, /)                                                       \
  DEFORMOPS_SHORT_FLOAT_COMPARISON(type, __heq, ==)                                             \
  DEFORMOPS_SHORT_FLOAT_COMPARISON(type, __hne, !=)                                             \
  DEFORMOPS_SHORT_FLOAT_COMPARISON(type, __hlt, <)                                              \
  DEFORMOPS_SHORT_FLOAT_COMPARISON(type, __hle, <=)                                             \
  DEFORMOPS_SHORT_FLOAT_COMPARISON(type, __hgt, >)                                              \
  DEFORMOPS_SHORT_FLOAT_COMPARISON(type, __hge, >=)                                             \
  DEFORMOPS_SHORT_FLOAT_BINARY(type, pair, __hadd, a + b)                                       \
  DEFORMOPS_SHORT_FLOAT_BINARY(type, pair, __hsub, a - b)                                       \
  DEFORMOPS_SHORT_FLOAT_BINARY(type, pair, __hmul, a* b)                                        \
  DEFORMOPS_SHORT_FLOAT_BINARY(type, pair, __hmax, type(std::fmax(float(a), float(b))))         \
  DEFORMOPS_SHORT_FLOAT_BINARY(type, pair, __hmin, type(std::fmin(float(a), float(b))))         \
  DEFORMOPS_DEVICE_FUNCTION type operator-(type a) { return type(-static_cast<float>(a)); }     \
  DEFORMOPS_DEVICE_FUNCTION type __hdiv(type a, type b) { return a / b; }                       \
  DEFORMOPS_DEVICE_FUNCTION type __hneg(type a) { return -a; }                                  \
  DEFORMOPS_DEVICE_FUNCTION type __habs(type a) { return type(std::fabs(float(a))); }           \
  DEFORMOPS_DEVICE_FUNCTION bool __hisnan(type a) { return std::isnan(float(a)); }              \
  DEFORMOPS_DEVICE_FUNCTION type __hfma(type a, type b, type c) {                               \
    return type(std::fma(float(a), float(b), float(c)));                                        \
  }                                                                                             \
  DEFORMOPS_DEVICE_FUNCTION pair __hfma2(pair a, pair b, pair c) {                              \
    return pair(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));                                  \
  }                                                                                             \
  DEFORMOPS_ATOMIC(atomicAdd, type, old + value)                                                \
  DEFORMOPS_ATOMIC(atomicAdd, pair, __hadd2(old, value))

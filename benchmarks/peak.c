// How many floating point operations a second one core can do: the floor under every benchmark.
//
// Independent chains of fused multiply-adds that never leave the registers. Enough chains to hide
// the latency of the unit (4 cycles, 2 units: at least 8), few enough to fit the register file.
// Built at run time by benchmarks/peak.py, because the package's own library has no use for it.

#include <stdint.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Defines `double NAME(int64_t rounds)`: multiply-adds of vectors of BYTES bytes, in flop/s.
// The empty asm hides the values from the compiler, which could otherwise merge the rounds.
#define DEFINE_PEAK(NAME, TARGET, BYTES, CHAINS, REGISTER)                                       \
  typedef float NAME##_vector __attribute__((vector_size(BYTES)));                               \
  TARGET static double NAME(int64_t rounds) {                                                    \
    NAME##_vector chain[CHAINS], scale, shift;                                                   \
    for (int lane = 0; lane < (int)(BYTES / sizeof(float)); ++lane) {                            \
      scale[lane] = 0.999f;                                                                      \
      shift[lane] = 1e-3f;                                                                       \
    }                                                                                            \
    _Pragma("GCC unroll 24") for (int c = 0; c < CHAINS; ++c) chain[c] = scale * (float)(c + 1); \
    const double start = now();                                                                  \
    for (int64_t round = 0; round < rounds; ++round) {                                           \
      _Pragma("GCC unroll 24") for (int c = 0; c < CHAINS; ++c) {                                \
        chain[c] = chain[c] * scale + shift;                                                     \
        __asm__ volatile("" : "+" REGISTER(chain[c]));                                           \
      }                                                                                          \
    }                                                                                            \
    const double seconds = now() - start;                                                        \
    return 2.0 * CHAINS * (BYTES / sizeof(float)) * rounds / seconds;                            \
  }

#if defined(__x86_64__)
DEFINE_PEAK(peak_avx512, __attribute__((target("avx512f"))), 64, 16, "v")
DEFINE_PEAK(peak_avx2, __attribute__((target("avx2,fma"))), 32, 12, "x")
DEFINE_PEAK(peak_portable, , 16, 12, "x")
#elif defined(__aarch64__)
DEFINE_PEAK(peak_portable, , 16, 24, "w")
#else
DEFINE_PEAK(peak_portable, , 16, 12, "m")
#endif

#if defined(__x86_64__)
static int has_avx512(void) { return __builtin_cpu_supports("avx512f"); }
static int has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

// The vector instructions that `fma_peak` uses on this machine.
const char* fma_instructions(void) {
#if defined(__x86_64__)
  if (has_avx512()) return "AVX-512";
  if (has_avx2()) return "AVX2+FMA";
  return "SSE2";
#elif defined(__aarch64__)
  return "NEON";
#else
  return "portable";
#endif
}

// flop/s of the calling thread over `rounds` rounds of multiply-adds.
double fma_peak(int64_t rounds) {
#if defined(__x86_64__)
  if (has_avx512()) return peak_avx512(rounds);
  if (has_avx2()) return peak_avx2(rounds);
#endif
  return peak_portable(rounds);
}

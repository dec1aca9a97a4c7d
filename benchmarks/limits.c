// How many floating point operations a second one core can do, and how many bytes it can copy: the
// floor under every benchmark.
//
// Arithmetic: independent chains of fused multiply-adds that never leave the registers. Enough
// chains to hide the latency of the unit (4 cycles, 2 units: at least 8), few enough to fit the
// register file. Built at run time by benchmarks/limits.py, because the package's own library has
// no use for it.

#include <stdint.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

#define REPEAT_12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define REPEAT_16(X) REPEAT_12(X) X(12) X(13) X(14) X(15)
#define REPEAT_24(X) REPEAT_16(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)

// Variables and not an array: compilers leave an array in memory, and its latency in the chain.
#define START(i) vector chain##i = scale * (float)(i + 1);
#define STEP(i) chain##i = chain##i * scale + shift;
#define ADD(i) total += chain##i;

static volatile float result;  // what is stored here cannot be left out

// Defines `double NAME(int64_t rounds)`: multiply-adds of vectors of BYTES bytes, in flop/s.
#define DEFINE_PEAK(NAME, TARGET, BYTES, CHAINS)                      \
  TARGET static double NAME(int64_t rounds) {                         \
    typedef float vector __attribute__((vector_size(BYTES)));         \
    vector total = {0};                                               \
    const vector scale = total + 0.999f, shift = total + 1e-3f;       \
    REPEAT_##CHAINS(START);                                           \
    const double start = now();                                       \
    for (int64_t round = 0; round < rounds; ++round) {                \
      REPEAT_##CHAINS(STEP)                                           \
    }                                                                 \
    REPEAT_##CHAINS(ADD);                                             \
    result = total[0];                                                \
    const double seconds = now() - start;                             \
    return 2.0 * CHAINS * (BYTES / sizeof(float)) * rounds / seconds; \
  }

#if defined(__x86_64__)
DEFINE_PEAK(peak_avx512, __attribute__((target("avx512f"))), 64, 16)
DEFINE_PEAK(peak_avx2, __attribute__((target("avx2,fma"))), 32, 12)
DEFINE_PEAK(peak_portable, , 16, 12)
#elif defined(__aarch64__)
DEFINE_PEAK(peak_portable, , 16, 24)
#else
DEFINE_PEAK(peak_portable, , 16, 12)
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

// Bytes read and written a second when the calling thread copies `bytes` bytes `rounds` times.
double copy_rate(char* to, const char* from, int64_t bytes, int64_t rounds) {
  const double start = now();
  for (int64_t round = 0; round < rounds; ++round) {
    memcpy(to, from, (size_t)bytes);
    result = to[round % bytes];
  }
  return 2.0 * bytes * rounds / (now() - start);
}

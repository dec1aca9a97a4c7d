// The instructions that C++ has no word for: one wrapper each, with two bodies. nvcc gets PTX, the
// simulated device a call. No other file contains asm, or asks which architecture it is compiled
// for.
#pragma once

#include <cstdint>

#include "core/scalars.h"

#if defined(DEFORMOPS_SIMULATED)
#include "simulation/device/ptx.h"
#define DEFORMOPS_ARCH DEFORMOPS_SIMULATED_ARCH
#elif defined(__CUDA_ARCH__)
#define DEFORMOPS_ARCH __CUDA_ARCH__
#else
#define DEFORMOPS_ARCH 0  // nvcc's pass for the host, which reads device code but never runs it
#endif

namespace deformops::cuda {

// Which operands the tensor cores take: halves from sm_75 on, bfloat16 and tf32 from sm_80 on.
template <class T>
constexpr bool kHasTensorCores = false;
template <>
inline constexpr bool kHasTensorCores<half> = DEFORMOPS_ARCH >= 750;
template <>
inline constexpr bool kHasTensorCores<bfloat16> = DEFORMOPS_ARCH >= 800;
template <>
inline constexpr bool kHasTensorCores<float> = DEFORMOPS_ARCH >= 800;  // tf32

#if !defined(DEFORMOPS_SIMULATED)
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
#endif

// --- Copies from global to shared memory that do not pass through registers
// ------------------------

// 16 aligned bytes. They are there after copy_async_wait; for other threads, after a barrier as
// well.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
#if DEFORMOPS_ARCH < 800
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#elif defined(DEFORMOPS_SIMULATED)
  simulation::cp_async<16>(shared, global);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
#endif
}

// Waits for all copies of the calling thread.
__device__ __forceinline__ void copy_async_wait() {
#if DEFORMOPS_ARCH < 800
#elif defined(DEFORMOPS_SIMULATED)
  simulation::cp_async_wait_all();
#else
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// --- Matrix fragments
// -------------------------------------------------------------------------------
//
// A warp multiplies a 16 x 32-byte A by a 32-byte x 8 B. `row` is the 16 bytes that this lane
// points at; of matrix i (8 rows, those of lanes 8 i to 8 i + 7) it gets the word lane % 4 of row
// lane / 4.

__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], const void* row) {
#if defined(DEFORMOPS_SIMULATED)
  simulation::ldmatrix<4>(words, row);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// The same of the transposed matrices of 16-bit elements.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&words)[4], const void* row) {
#if defined(DEFORMOPS_SIMULATED)
  simulation::ldmatrix_transposed<4>(words, row);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// sum += a b. Lane 4 g + t holds of a the rows g, g + 8, g, g + 8 at word t, t, t + 4, t + 4; of b
// column g at words t and t + 4; of sum row g, columns 2 t and 2 t + 1, then row g + 8. A word is
// two halves, or one float of which only the upper 19 bits count (tf32).
__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2], half) {
#if DEFORMOPS_ARCH >= 800
#if defined(DEFORMOPS_SIMULATED)
  simulation::mma_m16n8k16_f16(sum, a, b, sum);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
#elif DEFORMOPS_ARCH >= 750
  // Turing multiplies half as deep.
  for (int depth = 0; depth < 2; ++depth) {
#if defined(DEFORMOPS_SIMULATED)
    const uint32_t a_half[2] = {a[2 * depth], a[2 * depth + 1]};
    const uint32_t b_half[1] = {b[depth]};
    simulation::mma_m16n8k8_f16(sum, a_half, b_half, sum);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[2 * depth]), "r"(a[2 * depth + 1]), "r"(b[depth]));
#endif
  }
#endif
}

__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2], bfloat16) {
#if DEFORMOPS_ARCH >= 800
#if defined(DEFORMOPS_SIMULATED)
  simulation::mma_m16n8k16_bf16(sum, a, b, sum);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
#endif
}

__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2], float) {
#if DEFORMOPS_ARCH >= 800
#if defined(DEFORMOPS_SIMULATED)
  simulation::mma_m16n8k8_tf32(sum, a, b, sum);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
#endif
}

// --- Rounding
// ---------------------------------------------------------------------------------------

// The nearest number with tf32's 10 bits of mantissa; the tensor core itself would cut bits off.
__device__ __forceinline__ float round_to_tf32(float value) {
#if DEFORMOPS_ARCH < 800
  return value;
#elif defined(DEFORMOPS_SIMULATED)
  return bit_cast<float>(simulation::cvt_rna_tf32(value));
#else
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bit_cast<float>(bits);
#endif
}

template <class T>
__device__ __forceinline__ T round_to(compute_t<T> value) {
  return static_cast<T>(value);
}
#if DEFORMOPS_ARCH >= 800 && !defined(DEFORMOPS_SIMULATED)
template <>
__device__ __forceinline__ bfloat16 round_to<bfloat16>(float value) {
  bfloat16 rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
  return rounded;
}
#endif

}  // namespace deformops::cuda

// The instructions that kernels reach by inline PTX. kernels/cuda/ptx.cuh calls these where nvcc
// would assemble; names and operands are those of the PTX manual.
#pragma once

#include "simulation/device/language.h"

namespace deformops::simulation {

// cp.async.{ca,cg}.shared.global: the first source_bytes are copied, the rest is filled with zeros.
template <int Bytes>
DEFORMOPS_DEVICE_FUNCTION void cp_async(void* shared, const void* global, int source_bytes = Bytes,
                                        Site site = Site::here()) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  async_copy(shared, global, Bytes, source_bytes, site);
}
// cp.async.commit_group
DEFORMOPS_DEVICE_FUNCTION void cp_async_commit() { async_commit(); }
// cp.async.wait_group: all but the newest Pending groups of this thread are complete.
template <int Pending>
DEFORMOPS_DEVICE_FUNCTION void cp_async_wait_group() {
  async_wait(Pending);
}
// cp.async.wait_all: those not yet committed too.
DEFORMOPS_DEVICE_FUNCTION void cp_async_wait_all() {
  async_commit();
  async_wait(0);
}

// ldmatrix.sync.aligned.m8n8.x{Count}.shared.b16; row: the row that this lane is to point at.
template <int Count>
DEFORMOPS_DEVICE_FUNCTION void ldmatrix(uint32_t (&d)[Count], const void* row,
                                        Site site = Site::here()) {
  static_assert(Count == 1 || Count == 2 || Count == 4, "ldmatrix loads 1, 2 or 4 matrices");
  load_matrices(d, Count, false, row, site);
}
// ldmatrix.sync.aligned.m8n8.x{Count}.trans.shared.b16
template <int Count>
DEFORMOPS_DEVICE_FUNCTION void ldmatrix_transposed(uint32_t (&d)[Count], const void* row,
                                                   Site site = Site::here()) {
  static_assert(Count == 1 || Count == 2 || Count == 4, "ldmatrix loads 1, 2 or 4 matrices");
  load_matrices(d, Count, true, row, site);
}

// mma.sync.aligned.{shape}.row.col.f32.{type}.{type}.f32: d = a * b + c, where d may be c.
DEFORMOPS_DEVICE_FUNCTION void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2], const float (&c)[4],
                                                Site site = Site::here()) {
  multiply(Multiply::kM16N8K16F16, d, a, b, c, site);
}
DEFORMOPS_DEVICE_FUNCTION void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                 const uint32_t (&b)[2], const float (&c)[4],
                                                 Site site = Site::here()) {
  multiply(Multiply::kM16N8K16BF16, d, a, b, c, site);
}
DEFORMOPS_DEVICE_FUNCTION void mma_m16n8k8_f16(float (&d)[4], const uint32_t (&a)[2],
                                               const uint32_t (&b)[1], const float (&c)[4],
                                               Site site = Site::here()) {
  multiply(Multiply::kM16N8K8F16, d, a, b, c, site);
}
DEFORMOPS_DEVICE_FUNCTION void mma_m16n8k8_bf16(float (&d)[4], const uint32_t (&a)[2],
                                                const uint32_t (&b)[1], const float (&c)[4],
                                                Site site = Site::here()) {
  multiply(Multiply::kM16N8K8BF16, d, a, b, c, site);
}
// The low 13 bits of each element of a and b are ignored: round with cvt_rna_tf32 first.
DEFORMOPS_DEVICE_FUNCTION void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2], const float (&c)[4],
                                                Site site = Site::here()) {
  multiply(Multiply::kM16N8K8TF32, d, a, b, c, site);
}
DEFORMOPS_DEVICE_FUNCTION void mma_m16n8k4_tf32(float (&d)[4], const uint32_t (&a)[2],
                                                const uint32_t (&b)[1], const float (&c)[4],
                                                Site site = Site::here()) {
  multiply(Multiply::kM16N8K4TF32, d, a, b, c, site);
}
// mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64
DEFORMOPS_DEVICE_FUNCTION void mma_m8n8k4_f64(double (&d)[2], double a, double b,
                                              const double (&c)[2], Site site = Site::here()) {
  multiply(Multiply::kM8N8K4F64, d, &a, &b, c, site);
}

// cvt.rna.tf32.f32: to the nearest of 10 bits of mantissa, ties away from zero.
DEFORMOPS_DEVICE_FUNCTION uint32_t cvt_rna_tf32(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return (finite ? bits + 0x1000u : bits) & 0xffffe000u;
}

}  // namespace deformops::simulation

// Single instructions: fragments in, fragments out, so that a test can check layouts against a
// description of its own.
#include <cuda_runtime.h>

#include "simulation/device/ptx.h"
#include "simulation/selftest/kernels.h"

namespace deformops::simulation::selftest {
namespace {

template <int kWordsA, int kWordsB, class Instruction>
__device__ void multiply_fragments(const uint32_t* a, const uint32_t* b, const float* c, float* d,
                                   const Instruction& instruction) {
  const int lane = threadIdx.x;
  uint32_t fragment_a[kWordsA], fragment_b[kWordsB];
  float sums[4];
  for (int i = 0; i < kWordsA; ++i) fragment_a[i] = a[lane * kWordsA + i];
  for (int i = 0; i < kWordsB; ++i) fragment_b[i] = b[lane * kWordsB + i];
  for (int i = 0; i < 4; ++i) sums[i] = c[lane * 4 + i];
  instruction(sums, fragment_a, fragment_b);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sums[i];
}

using Deep = const uint32_t (&)[4];
using Half = const uint32_t (&)[2];
using Single = const uint32_t (&)[1];

__global__ void multiply_kernel(int shape, const uint32_t* a, const uint32_t* b, const float* c,
                                float* d) {
  switch (static_cast<Multiply>(shape)) {
    case Multiply::kM16N8K16F16:
      return multiply_fragments<4, 2>(
          a, b, c, d, [](float (&sums)[4], Deep a, Half b) { mma_m16n8k16_f16(sums, a, b, sums); });
    case Multiply::kM16N8K16BF16:
      return multiply_fragments<4, 2>(a, b, c, d, [](float (&sums)[4], Deep a, Half b) {
        mma_m16n8k16_bf16(sums, a, b, sums);
      });
    case Multiply::kM16N8K8F16:
      return multiply_fragments<2, 1>(a, b, c, d, [](float (&sums)[4], Half a, Single b) {
        mma_m16n8k8_f16(sums, a, b, sums);
      });
    case Multiply::kM16N8K8BF16:
      return multiply_fragments<2, 1>(a, b, c, d, [](float (&sums)[4], Half a, Single b) {
        mma_m16n8k8_bf16(sums, a, b, sums);
      });
    case Multiply::kM16N8K8TF32:
      return multiply_fragments<4, 2>(
          a, b, c, d, [](float (&sums)[4], Deep a, Half b) { mma_m16n8k8_tf32(sums, a, b, sums); });
    case Multiply::kM16N8K4TF32:
      return multiply_fragments<2, 1>(a, b, c, d, [](float (&sums)[4], Half a, Single b) {
        mma_m16n8k4_tf32(sums, a, b, sums);
      });
    case Multiply::kM8N8K4F64:
      return;
  }
}

__global__ void multiply_f64_kernel(const double* a, const double* b, const double* c, double* d) {
  const int lane = threadIdx.x;
  double sums[2] = {c[2 * lane], c[2 * lane + 1]};
  mma_m8n8k4_f64(sums, a[lane], b[lane], sums);
  d[2 * lane] = sums[0];
  d[2 * lane + 1] = sums[1];
}

template <int kCount>
__global__ void load_kernel(bool transposed, const uint16_t* matrices, uint32_t* words) {
  __shared__ __align__(16) uint16_t rows[kCount * 8][8];
  const int lane = threadIdx.x;
  for (int i = lane; i < kCount * 64; i += 32) rows[i / 8][i % 8] = matrices[i];
  __syncwarp();
  uint32_t fragment[kCount];
  // Lanes that have no row to point at may point anywhere.
  const uint16_t* const row = lane < kCount * 8 ? rows[lane] : nullptr;
  if (transposed) {
    ldmatrix_transposed<kCount>(fragment, row);
  } else {
    ldmatrix<kCount>(fragment, row);
  }
  for (int i = 0; i < kCount; ++i) words[lane * kCount + i] = fragment[i];
}

}  // namespace

void multiply(int shape, const uint32_t* a, const uint32_t* b, const float* c, float* d) {
  multiply_kernel<<<1, 32>>>(shape, a, b, c, d);
}

void multiply_f64(const double* a, const double* b, const double* c, double* d) {
  multiply_f64_kernel<<<1, 32>>>(a, b, c, d);
}

void load_matrices(int count, bool transposed, const uint16_t* matrices, uint32_t* words) {
  if (count == 1) {
    load_kernel<1><<<1, 32>>>(transposed, matrices, words);
  } else if (count == 2) {
    load_kernel<2><<<1, 32>>>(transposed, matrices, words);
  } else {
    load_kernel<4><<<1, 32>>>(transposed, matrices, words);
  }
}

}  // namespace deformops::simulation::selftest

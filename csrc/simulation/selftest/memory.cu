// Mistakes with global memory, most of which a single run on a GPU does not show.
#include <cuda_runtime.h>

#include "simulation/selftest/kernels.h"

namespace deformops::simulation::selftest {
namespace {

constexpr int kThreads = 64;

__global__ void scatter_kernel(const int* index, float* out, bool atomic) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (atomic) {
    atomicAdd(out + index[i], 1.0f);
  } else {
    out[index[i]] += 1.0f;
  }
}

template <Mistake kMistake>
__global__ void copy_kernel(const float* in, float* out, int n) {
  const int first = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (kMistake == Mistake::kMisaligned) {
    if (first + 5 <= n) {
      *reinterpret_cast<float4*>(out + first) = *reinterpret_cast<const float4*>(in + first + 1);
    }
  } else if (first + 4 <= n) {
    *reinterpret_cast<float4*>(out + first) = *reinterpret_cast<const float4*>(in + first);
  } else {
    for (int i = first; i < n; ++i) {
      // What is read past the end is not even used: nobody would see it in the result.
      const bool skip = kMistake == Mistake::kPastTheEnd && in[i + 1] == 1e30f;
      out[i] = skip ? 0.0f : in[i];
    }
  }
  if (kMistake == Mistake::kWriteToInput && first == 0) const_cast<float*>(in)[n / 2] += 1.0f;
}

__global__ void double_kernel(const float* in, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = 2 * in[i];
}

__global__ void plain_copy_kernel(const float* in, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i];
}

// Blocks of a launch run in any order, and what one writes others see only if it is published:
// written, then a fence, then an atomic that tells of it; and on the other side an atomic that
// learns of it, then a fence, then reading.
__global__ void last_block_kernel(const float* in, int n, float* partial, unsigned* arrived,
                                  float* out, bool fenced) {
  __shared__ bool is_last;
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    sum += in[i];
  }
  for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    if (fenced) __threadfence();
    is_last = atomicAdd(arrived, 1u) == gridDim.x - 1;
    if (fenced) __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  sum = threadIdx.x < gridDim.x ? partial[threadIdx.x] : 0.0f;
  for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);
  if (threadIdx.x == 0) *out = sum;
}

__device__ __noinline__ int count_down(int depth, volatile int* seen) {
  volatile int frame[64];
  frame[depth % 64] = depth;
  if (depth == 0) return *seen + frame[0];
  return count_down(depth - 1, &frame[depth % 64]) + frame[depth % 64] - depth;
}

__global__ void divide_kernel(const int* in, int* out, int depth) {
  volatile int zero = 0;
  out[threadIdx.x] = 100 / in[threadIdx.x] + 0 * count_down(depth, &zero);
}

}  // namespace

void scatter(Mistake mistake, const int* index, float* out) {
  scatter_kernel<<<4, 32>>>(index, out, mistake != Mistake::kNotAtomic);
}

void copy(Mistake mistake, const float* in, float* out, int n) {
  const int blocks = (n + 4 * kThreads - 1) / (4 * kThreads);
  switch (mistake) {
    case Mistake::kPastTheEnd:
      return copy_kernel<Mistake::kPastTheEnd><<<blocks, kThreads>>>(in, out, n);
    case Mistake::kWriteToInput:
      return copy_kernel<Mistake::kWriteToInput><<<blocks, kThreads>>>(in, out, n);
    case Mistake::kMisaligned:
      return copy_kernel<Mistake::kMisaligned><<<blocks, kThreads>>>(in, out, n);
    case Mistake::kTooMuchShared:
      return copy_kernel<Mistake::kNone><<<blocks, kThreads, 64 << 10>>>(in, out, n);
    default:
      return copy_kernel<Mistake::kNone><<<blocks, kThreads>>>(in, out, n);
  }
}

void through_scratch(Mistake mistake, const float* in, float* scratch, float* out, int n) {
  const int blocks = (n + kThreads - 1) / kThreads;
  // One element short: nobody writes the last.
  const int written = mistake == Mistake::kUnwrittenGlobal ? n - 1 : n;
  double_kernel<<<blocks, kThreads>>>(in, scratch, written);
  plain_copy_kernel<<<blocks, kThreads>>>(scratch, out, n);
}

void last_block_sum(Mistake mistake, const float* in, int n, float* partial, unsigned* arrived,
                    float* out) {
  cudaMemsetAsync(arrived, 0, sizeof(*arrived));
  last_block_kernel<<<8, 32>>>(in, n, partial, arrived, out, mistake != Mistake::kMissingFence);
}

void divide(Mistake mistake, const int* in, int* out) {
  divide_kernel<<<1, 32>>>(in, out, mistake == Mistake::kEndlessRecursion ? 1 << 20 : 3);
}

}  // namespace deformops::simulation::selftest

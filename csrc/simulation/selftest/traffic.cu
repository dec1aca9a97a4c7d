// Kernels whose memory transactions can be counted by hand.
#include <cuda_runtime.h>

#include "simulation/selftest/kernels.h"

namespace deformops::simulation::selftest {
namespace {

__global__ void transpose_kernel(const float* in, float* out, int pitch) {
  extern __shared__ float tile[];
  tile[threadIdx.y * pitch + threadIdx.x] = in[threadIdx.y * 32 + threadIdx.x];
  __syncthreads();
  out[threadIdx.y * 32 + threadIdx.x] = tile[threadIdx.x * pitch + threadIdx.y];
}

__global__ void strided_kernel(const float* in, float* out, int stride) {
  out[threadIdx.x] = in[stride * threadIdx.x];
}

__global__ void window_sum_kernel(const float* in, float* out, int n, int radius) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    float sum = 0;
    for (int j = max(i - radius, 0); j <= min(i + radius, n - 1); ++j) sum += in[j];
    out[i] = sum;
  }
}

}  // namespace

void transpose(const float* in, float* out, int pitch) {
  const size_t shared = 32 * static_cast<size_t>(pitch) * sizeof(float);
  transpose_kernel<<<1, dim3(32, 32), shared>>>(in, out, pitch);
}

void strided(const float* in, float* out, int stride) {
  strided_kernel<<<1, 32>>>(in, out, stride);
}

void window_sum(const float* in, float* out, int n, int radius) {
  window_sum_kernel<<<(n + 255) / 256, 256>>>(in, out, n, radius);
}

}  // namespace deformops::simulation::selftest

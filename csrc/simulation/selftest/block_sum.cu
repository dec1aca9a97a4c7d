// A sum over a block: the shortest kernel that needs everything a barrier is for.
#include <cuda_runtime.h>

#include "simulation/selftest/kernels.h"

namespace deformops::simulation::selftest {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

template <Mistake kMistake>
__global__ void __launch_bounds__(kThreads) sum_kernel(const float* in, int n, float* out) {
  __shared__ float warp_sum[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  float sum = 0;
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < n; i += kThreads * gridDim.x) sum += in[i];
  if (kMistake == Mistake::kMissingLane && lane == 31) return;
  if (kMistake == Mistake::kEarlyExit && threadIdx.x == 200) return;
  for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);

  if (lane == 0) warp_sum[kMistake == Mistake::kSharedOverrun ? warp + 1 : warp] = sum;
  if (kMistake == Mistake::kDivergentBarrier) {
    if (warp == 0) __syncthreads();
  } else if (kMistake == Mistake::kTwoBarriers) {
    if (warp == 0) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if (kMistake != Mistake::kMissingBarrier) {
    __syncthreads();
  }

  if (warp != 0) return;
  sum = lane < kWarps ? warp_sum[lane] : 0.0f;
  for (int delta = kWarps / 2; delta > 0; delta /= 2) {
    sum += __shfl_down_sync(0xffffffffu, sum, delta);
  }
  if (lane == 0) atomicAdd(out, sum);
}

template <Mistake kMistake>
void launch_sum(const float* in, int n, float* out) {
  sum_kernel<kMistake><<<4, kThreads>>>(in, n, out);
}

}  // namespace

void block_sum(Mistake mistake, const float* in, int n, float* out) {
  switch (mistake) {
    case Mistake::kMissingBarrier:
      return launch_sum<Mistake::kMissingBarrier>(in, n, out);
    case Mistake::kSharedOverrun:
      return launch_sum<Mistake::kSharedOverrun>(in, n, out);
    case Mistake::kDivergentBarrier:
      return launch_sum<Mistake::kDivergentBarrier>(in, n, out);
    case Mistake::kTwoBarriers:
      return launch_sum<Mistake::kTwoBarriers>(in, n, out);
    case Mistake::kEarlyExit:
      return launch_sum<Mistake::kEarlyExit>(in, n, out);
    case Mistake::kMissingLane:
      return launch_sum<Mistake::kMissingLane>(in, n, out);
    default:
      return launch_sum<Mistake::kNone>(in, n, out);
  }
}

}  // namespace deformops::simulation::selftest

// What the lanes of a warp do together.
#include <cuda_runtime.h>

#include "simulation/selftest/kernels.h"

namespace deformops::simulation::selftest {
namespace {

// A level of the tree reads what other lanes wrote on the level before. On GPUs before Volta the
// lanes of a warp ran in step and nothing else was needed; code from that time is wrong today.
__global__ void tree_kernel(const float* in, float* out, bool synchronized) {
  __shared__ float sums[64];
  const int thread = threadIdx.x, lane = thread % 32;
  sums[thread] = in[blockIdx.x * 64 + thread];
  __syncwarp();
  for (int half = 16; half > 0; half /= 2) {
    const float other = lane < half ? sums[thread + half] : 0.0f;
    if (synchronized) __syncwarp();
    sums[thread] += other;
    if (synchronized) __syncwarp();
  }
  if (lane == 0) atomicAdd(out, sums[thread]);
}

// Each group of 8 lanes adds up its values with a mask of its own, and goes round as often as its
// number says, so groups of one warp are never at the same place.
template <Mistake kMistake>
__global__ void groups_kernel(const float* in, float* out) {
  const int thread = threadIdx.x, lane = thread % 32, group = lane / 8;
  unsigned mask = 0xffu << (8 * group);
  if (kMistake == Mistake::kWrongMask) mask <<= 8;
  float sum = 0;
  for (int round = 0; round <= group; ++round) {
    sum = in[thread];
    for (int step = 1; step < 8; step *= 2) sum += __shfl_xor_sync(mask, sum, step);
  }
  if (kMistake == Mistake::kMismatchedCollective && lane % 2 == 1) {
    sum += static_cast<float>(__ballot_sync(mask, 1));
  } else {
    sum += 0.0f * __shfl_sync(mask, sum, 0, 8);
  }
  out[thread] = sum;
}

struct Pair {
  double value;
  int lane;
};

__global__ void collectives_kernel(int* out) {
  const int thread = threadIdx.x, lane = thread % 32;
  int* row = out + thread * 12;
  row[0] = __shfl_sync(0xffffffffu, thread, lane + 5);
  row[1] = __shfl_up_sync(0xffffffffu, thread, 3, 8);
  row[2] = __shfl_down_sync(0xffffffffu, thread, 3, 8);
  row[3] = __shfl_xor_sync(0xffffffffu, thread, 9);
  row[4] = static_cast<int>(__ballot_sync(0xffffffffu, lane % 3 == 0));
  row[5] = __any_sync(0xffffffffu, thread == 40) + 2 * __all_sync(0xffffffffu, thread < 32);
  row[6] = static_cast<int>(__match_any_sync(0xffffffffu, lane / 10));
  row[7] = __reduce_add_sync(0xffffffffu, thread);
  row[8] = __reduce_min_sync(0xffffffffu, 7 - thread);
  const Pair pair = __shfl_sync(0xffffffffu, Pair{0.5 * thread, lane}, 30);
  row[9] = static_cast<int>(4 * pair.value) + 1000 * pair.lane;
  row[10] = __syncthreads_count(thread % 5 == 0);
  row[11] = __syncthreads_or(thread == 63) + 2 * __syncthreads_and(thread < 63);
}

}  // namespace

void warp_tree(Mistake mistake, const float* in, float* out) {
  tree_kernel<<<4, 64>>>(in, out, mistake != Mistake::kMissingWarpBarrier);
}

void groups_of_eight(Mistake mistake, const float* in, float* out) {
  if (mistake == Mistake::kWrongMask) {
    groups_kernel<Mistake::kWrongMask><<<1, 64>>>(in, out);
  } else if (mistake == Mistake::kMismatchedCollective) {
    groups_kernel<Mistake::kMismatchedCollective><<<1, 64>>>(in, out);
  } else {
    groups_kernel<Mistake::kNone><<<1, 64>>>(in, out);
  }
}

void collectives(int* out) { collectives_kernel<<<1, 64>>>(out); }

}  // namespace deformops::simulation::selftest

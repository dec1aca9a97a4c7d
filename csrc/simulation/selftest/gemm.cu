// A matrix product on tensor cores, double-buffered with cp.async: each of its barriers and waits
// is needed, and leaving one out goes unnoticed on most runs of a real GPU.
#include <cuda_runtime.h>

#include "simulation/device/ptx.h"
#include "simulation/selftest/kernels.h"

namespace deformops::simulation::selftest {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 64, kColumns = 32, kDepth = 32;  // of a block's tile; a warp has 16 rows
constexpr int kPitchA = kDepth + 8,
              kPitchB = kColumns + 8;  // the 8 keep ldmatrix free of conflicts
constexpr int kBufferA = kRows * kPitchA, kBufferB = kDepth * kPitchB;

template <Mistake kMistake>
__global__ void __launch_bounds__(kThreads)
    gemm_kernel(const uint16_t* a, const uint16_t* b, float* c, int n, int k) {
  extern __shared__ __align__(128) uint16_t tiles[];
  uint16_t* const tile_a = tiles;
  uint16_t* const tile_b = tiles + 2 * kBufferA;
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int first_row = blockIdx.y * kRows, first_column = blockIdx.x * kColumns;

  const auto load = [&](int buffer, int depth) {
    for (int i = thread; i < kRows * kDepth / 8; i += kThreads) {
      const int row = i / (kDepth / 8), column = i % (kDepth / 8) * 8;
      cp_async<16>(tile_a + buffer * kBufferA + row * kPitchA + column,
                   a + static_cast<int64_t>(first_row + row) * k + depth + column);
    }
    for (int i = thread; i < kDepth * kColumns / 8; i += kThreads) {
      const int row = i / (kColumns / 8), column = i % (kColumns / 8) * 8;
      cp_async<16>(tile_b + buffer * kBufferB + row * kPitchB + column,
                   b + static_cast<int64_t>(depth + row) * n + first_column + column);
    }
    cp_async_commit();
  };

  float sums[4][4] = {};
  load(0, 0);
  for (int depth = 0, buffer = 0; depth < k; depth += kDepth, buffer ^= 1) {
    if (depth + kDepth < k) {
      load(buffer ^ 1, depth + kDepth);
      if (kMistake != Mistake::kMissingWait) cp_async_wait_group<1>();
    } else if (kMistake != Mistake::kMissingWait && kMistake != Mistake::kUnfinishedCopy) {
      cp_async_wait_group<0>();
    }
    if (kMistake != Mistake::kNoBarrierAfterWait) __syncthreads();
    for (int step = 0; step < kDepth; step += 16) {
      uint32_t fragment_a[4];
      const int column = step + (kMistake == Mistake::kWrongFragment ? 0 : lane / 16 * 8);
      ldmatrix<4>(fragment_a,
                  tile_a + buffer * kBufferA + (warp * 16 + lane % 16) * kPitchA + column);
      for (int j = 0; j < 4; ++j) {
        uint32_t fragment_b[2];
        ldmatrix_transposed<2>(fragment_b,
                               tile_b + buffer * kBufferB + (step + lane % 16) * kPitchB + j * 8);
        mma_m16n8k16_f16(sums[j], fragment_a, fragment_b, sums[j]);
      }
    }
    if (kMistake != Mistake::kNoBarrierBeforeRefill) __syncthreads();
  }
  if (kMistake == Mistake::kMissingWait) cp_async_wait_all();
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + warp * 16 + lane / 4 + i / 2 * 8;
      const int column = first_column + j * 8 + lane % 4 * 2 + i % 2;
      c[static_cast<int64_t>(row) * n + column] = sums[j][i];
    }
  }
}

template <Mistake kMistake>
void launch_gemm(const uint16_t* a, const uint16_t* b, float* c, int m, int n, int k) {
  const size_t shared = 2 * (kBufferA + kBufferB) * sizeof(uint16_t);
  gemm_kernel<kMistake><<<dim3(n / kColumns, m / kRows), kThreads, shared>>>(a, b, c, n, k);
}

}  // namespace

void gemm(Mistake mistake, const uint16_t* a, const uint16_t* b, float* c, int m, int n, int k) {
  switch (mistake) {
    case Mistake::kMissingWait:
      return launch_gemm<Mistake::kMissingWait>(a, b, c, m, n, k);
    case Mistake::kNoBarrierAfterWait:
      return launch_gemm<Mistake::kNoBarrierAfterWait>(a, b, c, m, n, k);
    case Mistake::kNoBarrierBeforeRefill:
      return launch_gemm<Mistake::kNoBarrierBeforeRefill>(a, b, c, m, n, k);
    case Mistake::kWrongFragment:
      return launch_gemm<Mistake::kWrongFragment>(a, b, c, m, n, k);
    case Mistake::kUnfinishedCopy:
      return launch_gemm<Mistake::kUnfinishedCopy>(a, b, c, m, n, k);
    default:
      return launch_gemm<Mistake::kNone>(a, b, c, m, n, k);
  }
}

}  // namespace deformops::simulation::selftest

// Prefix sums of counts: every count becomes the sum of those before it.
//
// Blocks sum tiles of 2048, the sums of tiles are summed in the same way, and added: as many levels
// as it takes. No block waits for another.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "kernels/cuda/launch.cuh"

namespace deformops::cuda {

constexpr int kScanThreads = 256;
constexpr int kScanItems = 8;  // of a thread
constexpr int kScanTile = kScanThreads * kScanItems;

// The sum over the threads before this one in a block of kScanThreads, and the sum over all.
static __device__ __forceinline__ uint32_t sum_before(uint32_t value, uint32_t& total) {
  __shared__ uint32_t warps[kScanThreads / 32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t sum = value;
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t before = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += before;
  }
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  uint32_t before = 0;
  total = 0;
  for (int w = 0; w < kScanThreads / 32; ++w) {
    before += w < warp ? warps[w] : 0;
    total += warps[w];
  }
  __syncthreads();  // the memory may be used again
  return before + sum - value;
}

static __global__ void __launch_bounds__(kScanThreads)
    scan_tiles_kernel(uint32_t* counts, int64_t size, uint32_t* sums) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScanTile + threadIdx.x * kScanItems;
  uint32_t items[kScanItems];
  uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kScanItems; ++i) {
    items[i] = first + i < size ? counts[first + i] : 0;
    sum += items[i];
  }
  uint32_t total;
  uint32_t before = sum_before(sum, total);
#pragma unroll
  for (int i = 0; i < kScanItems; ++i) {
    if (first + i < size) counts[first + i] = before;
    before += items[i];
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

static __global__ void __launch_bounds__(kScanThreads)
    add_sums_kernel(uint32_t* counts, int64_t size, const uint32_t* sums) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScanTile;
  const uint32_t before = sums[blockIdx.x];
  for (int i = threadIdx.x; i < kScanTile && first + i < size; i += kScanThreads) {
    counts[first + i] += before;
  }
}

// Scans of up to `size` counts.
class PrefixSum {
 public:
  PrefixSum(const Context& context, int64_t size) : stream_(context.stream) {
    int64_t total = 0;
    do {
      size = divide_up(size, kScanTile);
      total += size;
    } while (size > 1);
    sums_ = context.scratch->allocate_array<uint32_t>(static_cast<size_t>(total));
  }

  void run(uint32_t* counts, int64_t size) const { run(counts, size, sums_); }

 private:
  void run(uint32_t* counts, int64_t size, uint32_t* sums) const {
    const int64_t tiles = divide_up(size, kScanTile);
    launch("scan_tiles", scan_tiles_kernel, tiles, kScanThreads, stream_, counts, size, sums);
    if (tiles <= 1) return;
    run(sums, tiles, sums + tiles);
    launch("add_sums", add_sums_kernel, tiles, kScanThreads, stream_, counts, size, sums);
  }

  void* stream_;
  uint32_t* sums_;
};

}  // namespace deformops::cuda

// The keywords and built-in variables of CUDA C++, as far as they can be had without a translator
// (../translate.py does the rest: __shared__, <<< >>> and __noinline__, which the C++ library's
// headers use as a name).
#pragma once

#include "simulation/device/engine.h"

// Inlined, so that the place recorded for what they do is a line of the kernel.
#define DEFORMOPS_DEVICE_FUNCTION inline __attribute__((always_inline))

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define threadIdx (::deformops::simulation::thread_index())
#define blockIdx (::deformops::simulation::block_index())
#define blockDim (::deformops::simulation::block_extent())
#define gridDim (::deformops::simulation::grid_extent())

inline constexpr int warpSize = 32;

namespace deformops::simulation {

// First in the body of a kernel with __launch_bounds__: a launch beyond them fails on a GPU.
DEFORMOPS_DEVICE_FUNCTION void check_launch_bounds(unsigned max_threads, unsigned = 0,
                                                   unsigned = 0) {
  const dim3 block = block_extent();
  if (block.x * block.y * block.z > max_threads) refuse_launch_bounds(max_threads);
}

}  // namespace deformops::simulation

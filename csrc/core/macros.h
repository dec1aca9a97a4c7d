// What lets one text be compiled by g++, clang and nvcc.
#pragma once

#if defined(__CUDACC__)
#define DEFORMOPS_HOST_DEVICE __host__ __device__
#else
#define DEFORMOPS_HOST_DEVICE
#endif

// Functions of csrc/core and csrc/geometry are compiled into translation units with different
// instruction sets (kernels/cpu/*.isa.cpp). Forced inlining leaves no out-of-line copy behind, so
// the linker can never pick the AVX-512 copy for a machine without AVX-512.
#define DEFORMOPS_INLINE DEFORMOPS_HOST_DEVICE inline __attribute__((always_inline))

// The only place that starts a kernel.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include <cuda_runtime.h>

namespace deformops::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Blocks are counted on one axis and take their coordinates from the number: the order in which the
// kernel divides it decides which blocks run side by side and share what they read.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads,
            void* stream, const Arguments&... arguments) {
  if (blocks == 0) return;
  if (blocks > INT32_MAX) throw std::length_error(std::string(name) + ": more than 2^31 blocks");
  const dim3 grid(static_cast<unsigned>(blocks));
  const dim3 block(static_cast<unsigned>(threads));
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), name);
}

inline int64_t divide_up(int64_t count, int64_t by) { return (count + by - 1) / by; }

}  // namespace deformops::cuda

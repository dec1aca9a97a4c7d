// The part of the CUDA runtime that launchers call. There is one device and one stream, and all
// work is done when a call returns. Mistakes in a kernel or in its launch are exceptions, so the
// status of everything else is success.
#pragma once

#include <algorithm>
#include <cstddef>

#include "simulation/device/engine.h"

enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
using cudaStream_t = struct CUstream_st*;

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3, cudaMemcpyDefault = 4 };
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrMaxBlocksPerMultiprocessor = 106,
};

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : "cudaErrorInvalidValue";
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  using deformops::simulation::device_limit;
  using deformops::simulation::Limit;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = device_limit(Limit::kThreadsPerBlock);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = device_limit(Limit::kSharedBytesPerBlock);
      break;
    case cudaDevAttrWarpSize:
      *value = device_limit(Limit::kWarpSize);
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = device_limit(Limit::kMultiprocessors);
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = device_limit(Limit::kThreadsPerMultiprocessor);
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = device_limit(Limit::kComputeMajor);
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = device_limit(Limit::kComputeMinor);
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = device_limit(Limit::kSharedBytesPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = device_limit(Limit::kSharedBytesPerBlockOptin);
      break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      *value = device_limit(Limit::kBlocksPerMultiprocessor);
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  const bool allowed = deformops::simulation::allow_dynamic_shared(
      reinterpret_cast<const void*>(kernel), static_cast<size_t>(value));
  return allowed ? cudaSuccess : cudaErrorInvalidValue;
}

// By threads and dynamic shared memory; registers are not known here.
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int block_size,
                                                          size_t dynamic_shared_bytes) {
  using deformops::simulation::device_limit;
  using deformops::simulation::Limit;
  *blocks = std::min(device_limit(Limit::kBlocksPerMultiprocessor),
                     device_limit(Limit::kThreadsPerMultiprocessor) / block_size);
  if (dynamic_shared_bytes > 0) {
    const auto shared = static_cast<size_t>(device_limit(Limit::kSharedBytesPerMultiprocessor));
    *blocks = std::min(*blocks, static_cast<int>(shared / (dynamic_shared_bytes + 1024)));
  }
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* data, int byte, size_t bytes, cudaStream_t = nullptr) {
  deformops::simulation::fill_memory(data, byte, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* destination, const void* source, size_t bytes,
                                   cudaMemcpyKind = cudaMemcpyDefault, cudaStream_t = nullptr) {
  deformops::simulation::copy_memory(destination, source, bytes);
  return cudaSuccess;
}

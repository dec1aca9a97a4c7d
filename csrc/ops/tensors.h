// From torch's tensors to what kernels take: types, views, memory, device.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "core/context.h"
#include "core/huge_pages.h"
#include "core/scalars.h"
#include "core/view.h"

#if defined(DEFORMOPS_SIMULATED)
#include "simulation/memory.h"
#endif

namespace deformops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Pair = std::vector<int64_t>;

template <class T>
struct Type {
  using type = T;
};

// Calls body(Type<T>{}) with the kernels' T of a dtype that checks.h has let through.
template <class Body>
void dispatch(ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Double:
      return body(Type<double>{});
    case ScalarType::Float:
      return body(Type<float>{});
    case ScalarType::Half:
      return body(Type<half>{});
    case ScalarType::BFloat16:
      return body(Type<bfloat16>{});
    default:
      throw std::logic_error("dispatch: a dtype that no check has refused");
  }
}

// A view of T is a result that the kernel overwrites, a view of const T an argument.
template <class T, int Rank>
View<T, Rank> view(const Tensor& tensor) {
  View<T, Rank> result;
  if constexpr (std::is_const_v<T>) {
    result.data = static_cast<T*>(tensor.const_data_ptr());
  } else {
    result.data = static_cast<T*>(tensor.mutable_data_ptr());
  }
  for (int d = 0; d < Rank; ++d) {
    result.sizes[d] = tensor.size(d);
    result.strides[d] = tensor.stride(d);
  }
#if defined(DEFORMOPS_SIMULATED)
  int64_t elements = 1;
  for (int d = 0; d < Rank; ++d) elements += (result.sizes[d] - 1) * result.strides[d];
  simulation::register_memory(
      result.data, static_cast<size_t>(elements) * sizeof(T),
      std::is_const_v<T> ? simulation::Memory::kReadOnly : simulation::Memory::kUninitialized,
      std::is_const_v<T> ? "argument" : "result");
#endif
  return result;
}

template <class T, int Rank>
View<T, Rank> view(const OptionalTensor& tensor) {
  return tensor ? view<T, Rank>(*tensor) : View<T, Rank>{};
}

// Dense with channels innermost, and not also dense in the default order (as a map of one pixel
// is).
inline bool is_channels_last(const Tensor& tensor) {
  if (tensor.is_contiguous()) return false;
  int64_t expected = 1;
  for (const int d : {1, 3, 2, 0}) {
    if (tensor.size(d) != 1 && tensor.stride(d) != expected) return false;
    expected *= tensor.size(d);
  }
  return true;
}

inline Tensor new_tensor(const Tensor& like, const std::vector<int64_t>& sizes,
                         bool channels_last = false,
                         std::optional<ScalarType> dtype = std::nullopt) {
  using torch::headeronly::MemoryFormat;
  const Tensor tensor = torch::stable::empty(
      sizes, dtype.value_or(like.scalar_type()), std::nullopt, like.device(), std::nullopt,
      channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  // What malloc takes fresh from the system each time; smaller blocks it has kept.
  constexpr size_t kFresh = size_t{32} << 20;
  const size_t bytes = static_cast<size_t>(tensor.numel()) * tensor.element_size();
  if (tensor.is_cpu() && bytes >= kFresh) use_huge_pages(tensor.mutable_data_ptr(), bytes);
  return tensor;
}

// Small requests share a block, because on a small input a call of the allocator costs as much as a
// kernel. On the simulated device, which watches borders, each has its own.
class TensorScratch final : public Scratch {
 public:
  explicit TensorScratch(const Tensor& like) : device_(like.device()) {}

  void* allocate(size_t bytes) override {
#if defined(DEFORMOPS_SIMULATED)
    char* const data = new_block(bytes);
    simulation::register_memory(data, bytes, simulation::Memory::kUninitialized, "scratch");
    return data;
#else
    const size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (size > kBlockBytes / 2) return new_block(bytes);
    if (size > free_bytes_) {
      free_ = new_block(kBlockBytes);
      free_bytes_ = kBlockBytes;
    }
    char* const data = free_;
    free_ += size;
    free_bytes_ -= size;
    return data;
#endif
  }

 private:
  char* new_block(size_t bytes) {
    blocks_.push_back(torch::stable::empty({static_cast<int64_t>(bytes)}, ScalarType::Byte,
                                           std::nullopt, device_));
    return static_cast<char*>(blocks_.back().mutable_data_ptr());
  }

  torch::stable::Device device_;
  std::vector<Tensor> blocks_;
#if !defined(DEFORMOPS_SIMULATED)
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kBlockBytes = size_t{112} << 10;  // what malloc keeps when it is freed
  char* free_ = nullptr;
  size_t free_bytes_ = 0;
#endif
};

// One call of an op's kernels: its scratch memory, and on a GPU its device and stream. On the
// simulated device kernels may touch the memory of views made during the call, and no other.
class Call {
 public:
  Call([[maybe_unused]] const char* op, const Tensor& like)
      :
#if defined(DEFORMOPS_SIMULATED)
        memory_(op),
#endif
        scratch_(like) {
    if (like.is_cuda()) {
      guard_.emplace(like.get_device_index());
      stream_.emplace(torch::stable::accelerator::getCurrentStream(like.get_device_index()));
    }
  }

  Context context(bool deterministic, bool allow_tf32 = false) {
    return {&scratch_, stream_ ? stream_->nativeHandle() : nullptr, deterministic, allow_tf32};
  }

 private:
#if defined(DEFORMOPS_SIMULATED)
  simulation::MemoryScope memory_;
#endif
  TensorScratch scratch_;
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  std::optional<torch::stable::accelerator::Stream> stream_;
};

// The kernels of a device: `DEFORMOPS_RUN(Device, kernel<T>(arguments))`. The branch that is not
// taken is not instantiated, so a library without CUDA has no reference to its kernels.
struct CpuKernels {
  static constexpr bool kCuda = false;
};
struct CudaKernels {
  static constexpr bool kCuda = true;
};
#define DEFORMOPS_RUN(Device, ...)           \
  [&] {                                      \
    if constexpr (Device::kCuda) {           \
      return ::deformops::cuda::__VA_ARGS__; \
    } else {                                 \
      return ::deformops::cpu::__VA_ARGS__;  \
    }                                        \
  }()

}  // namespace deformops

// From torch's tensors to what kernels take: types, views, memory, device.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "core/context.h"
#include "core/scalars.h"
#include "core/view.h"

namespace deformops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

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
  return result;
}

template <class T, int Rank>
View<T, Rank> view(const OptionalTensor& tensor) {
  return tensor ? view<T, Rank>(*tensor) : View<T, Rank>{};
}

// Dense with channels innermost, and not also dense in the default order (as a map of one pixel is).
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
                         bool channels_last = false) {
  using torch::headeronly::MemoryFormat;
  return torch::stable::empty(
      sizes, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
      channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

class TensorScratch final : public Scratch {
 public:
  explicit TensorScratch(const Tensor& like) : device_(like.device()) {}

  void* allocate(size_t bytes) override {
    blocks_.push_back(torch::stable::empty({static_cast<int64_t>(bytes)}, ScalarType::Byte,
                                           std::nullopt, device_));
    return blocks_.back().mutable_data_ptr();
  }

 private:
  torch::stable::Device device_;
  std::vector<Tensor> blocks_;
};

// One call of a kernel: its scratch memory, and on a GPU its device and stream.
class Call {
 public:
  explicit Call(const Tensor& like) : scratch_(like) {
    if (like.is_cuda()) {
      guard_.emplace(like.get_device_index());
      stream_.emplace(torch::stable::accelerator::getCurrentStream(like.get_device_index()));
    }
  }

  Context context(bool deterministic, bool allow_tf32 = false) {
    return {&scratch_, stream_ ? stream_->nativeHandle() : nullptr, deterministic, allow_tf32};
  }

 private:
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
#define DEFORMOPS_RUN(Device, ...)   \
  do {                               \
    if constexpr (Device::kCuda) {   \
      ::deformops::cuda::__VA_ARGS__; \
    } else {                         \
      ::deformops::cpu::__VA_ARGS__;  \
    }                                \
  } while (0)

}  // namespace deformops

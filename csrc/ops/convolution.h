// The ops of kernels/convolution.h as the dispatcher calls them; library.cpp has their schemas.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "ops/tensors.h"

namespace deformops {

template <class Device>
Tensor gather_columns(Tensor input, OptionalTensor offset, OptionalTensor mask, Pair kernel_size,
                      Pair stride, Pair padding, Pair dilation, Pair order, std::string border,
                      std::string kink);

template <class Device>
Tensor scatter_columns(Tensor columns, OptionalTensor offset, OptionalTensor mask, Pair input_size,
                       Pair kernel_size, Pair stride, Pair padding, Pair dilation, Pair order,
                       std::string border, std::string kink, bool deterministic);

template <class Device>
Tensor contract_columns(Tensor input, Tensor columns, OptionalTensor offset, Pair kernel_size,
                        Pair stride, Pair padding, Pair dilation, Pair order, std::string border,
                        std::string kink, int64_t offset_groups);

template <class Device>
Tensor deform_conv2d(Tensor input, OptionalTensor offset, Tensor weight, OptionalTensor bias,
                     OptionalTensor mask, Pair stride, Pair padding, Pair dilation, Pair order,
                     std::string border, std::string kink, bool allow_tf32, bool allow_winograd);

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> deform_conv2d_backward(
    Tensor grad_output, Tensor input, OptionalTensor offset, Tensor weight, OptionalTensor mask,
    Pair stride, Pair padding, Pair dilation, Pair order, std::string border, std::string kink,
    std::vector<bool> wanted, bool deterministic, bool allow_tf32);

}  // namespace deformops

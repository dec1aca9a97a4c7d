// The ops of kernels/roi_pooling.h as the dispatcher calls them; library.cpp has their schemas.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "ops/tensors.h"

namespace deformops {

template <class Device>
std::tuple<Tensor, Tensor> roi_pool(Tensor input, Tensor boxes, Pair output_size,
                                    double spatial_scale, std::string semantics, bool want_index);

template <class Device>
Tensor gather_maxima(Tensor input, Tensor boxes, Tensor index);

template <class Device>
Tensor scatter_maxima(Tensor grad_output, Tensor boxes, Tensor index,
                      std::vector<int64_t> input_size, bool deterministic);

template <class Device>
Tensor roi_average(Tensor input, Tensor boxes, OptionalTensor offset, Pair output_size,
                   double spatial_scale, std::string semantics, Pair group_size,
                   int64_t samples_per_bin, double offset_scale, Pair order);

template <class Device>
std::tuple<Tensor, Tensor> roi_average_backward(Tensor grad_output, Tensor input, Tensor boxes,
                                                OptionalTensor offset, Pair output_size,
                                                double spatial_scale, std::string semantics,
                                                Pair group_size, int64_t samples_per_bin,
                                                double offset_scale, Pair order,
                                                std::vector<bool> wanted, bool deterministic);

}  // namespace deformops

// The ops of kernels/lattice.h as the dispatcher calls them; library.cpp has their schemas.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "ops/tensors.h"

namespace deformops {

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lattice_build(Tensor features);

template <class Device>
Tensor lattice_filter(Tensor values, Tensor splat_weight, Tensor slice_weight, Tensor vertex,
                      Tensor start, Tensor entry, Tensor neighbor, bool reverse);

template <class Device>
Tensor lattice_contract(Tensor grad_output, Tensor values, Tensor splat_weight, Tensor vertex,
                        Tensor start, Tensor entry, Tensor neighbor, bool reverse);

template <class Device>
Tensor lattice_weights_forward(Tensor tangent, Tensor features);

template <class Device>
Tensor lattice_weights_backward(Tensor grad_weight, Tensor features);

template <class Device>
Tensor mean_field(Tensor unary, std::vector<Tensor> splat_weight, std::vector<Tensor> slice_weight,
                  std::vector<Tensor> vertex, std::vector<Tensor> start, std::vector<Tensor> entry,
                  std::vector<Tensor> neighbor, std::vector<Tensor> compatibility,
                  std::vector<Tensor> self_weight, OptionalTensor initial, int64_t iterations);

}  // namespace deformops

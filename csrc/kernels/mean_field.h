// Mean-field inference of a dense CRF, all iterations in one call:
//
//     Q = softmax(-unary),  then  Q <- softmax(-unary + sum_k C_k (K_k Q - s_k Q)),
//
// where K_k is a filter of kernels/lattice.h with its blur's scale, C_k the compatibility of
// labels, and s_k what each point would send to itself. No gradients: they need every iteration's Q
// and are made of lattice_filter.
//
// Shapes: unary, initial, result [N, L, M] with any strides; P = N * M points. T is double or
// float.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/view.h"
#include "kernels/lattice.h"

namespace deformops {

// Its number of dimensions.
enum class Compatibility {
  kScalar = 0,
  kVector = 1,  // a diagonal
  kMatrix = 2,
};

template <class T>
struct MessageKernel {
  Lattice lattice;
  View<const T, 2> splat_weight;  // [P, d + 1]
  View<const T, 2> slice_weight;
  Compatibility kind;
  View<const T, 2> compatibility;  // [1, 1], [1, L] or [L, L]
  View<const T, 1> self_weight;    // [P], or undefined: 0
};

// Bit-identical for any number of threads.
namespace cpu {

// `initial` replaces the first softmax where it is defined.
template <class T>
void mean_field(const Context& context, const MessageKernel<T>* kernels, int64_t count,
                View<const T, 3> unary, View<const T, 3> initial, int64_t iterations,
                View<T, 3> result);

}  // namespace cpu

// The same on the current device and context.stream, with the same bits every time.
namespace cuda {

template <class T>
void mean_field(const Context& context, const MessageKernel<T>* kernels, int64_t count,
                View<const T, 3> unary, View<const T, 3> initial, int64_t iterations,
                View<T, 3> result);

}  // namespace cuda

}  // namespace deformops

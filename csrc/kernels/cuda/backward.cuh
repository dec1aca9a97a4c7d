// The two halves of deform_conv2d_backward, each a fused kernel of its own.
#pragma once

#include "core/context.h"
#include "kernels/convolution.h"

namespace deformops::cuda {

// Gradients of input, offset and mask: those of `gradients` that are defined.
template <class T>
void backward_data(const Context& context, const SampledWindow<T>& window,
                   View<const T, 4> grad_output, View<const T, 4> input, View<const T, 4> weight,
                   const ConvolutionGradients<T>& gradients);

// The gradient of the weight.
template <class T>
void backward_weight(const Context& context, const SampledWindow<T>& window,
                     View<const T, 4> grad_output, View<const T, 4> input, View<T, 4> grad_weight);

}  // namespace deformops::cuda

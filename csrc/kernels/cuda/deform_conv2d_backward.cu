// Backward: nothing is kept from the forward pass, and only what is asked for is computed.
#include "kernels/convolution.h"
#include "kernels/cuda/backward.cuh"

namespace deformops::cuda {

template <class T>
void deform_conv2d_backward(const Context& context, const SampledWindow<T>& window,
                            View<const T, 4> grad_output, View<const T, 4> input,
                            View<const T, 4> weight, const ConvolutionGradients<T>& gradients) {
  if (gradients.input.defined() || gradients.offset.defined() || gradients.mask.defined()) {
    backward_data(context, window, grad_output, input, weight, gradients);
  }
  if (gradients.weight.defined()) {
    backward_weight(context, window, grad_output, input, gradients.weight);
  }
}

#define DEFORMOPS_INSTANTIATE(T)                                                                \
  template void deform_conv2d_backward<T>(const Context&, const SampledWindow<T>&,              \
                                          View<const T, 4>, View<const T, 4>, View<const T, 4>, \
                                          const ConvolutionGradients<T>&)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

// Backward: nothing is kept from the forward pass, and only what is asked for is computed.
#include "kernels/cuda/roi_backward.cuh"
#include "kernels/roi_pooling.h"

namespace deformops::cuda {

template <class T>
void roi_average_backward(const Context& context, const RoiBins<T>& bins,
                          View<const T, 4> grad_output, View<const T, 4> input,
                          View<T, 4> grad_input, View<T, 4> grad_offset) {
  if (grad_input.defined()) roi_grad_input(context, bins, grad_output, grad_input);
  if (grad_offset.defined()) roi_grad_offset(context, bins, grad_output, input, grad_offset);
}

#define DEFORMOPS_INSTANTIATE(T)                                                             \
  template void roi_average_backward<T>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                        View<const T, 4>, View<T, 4>, View<T, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

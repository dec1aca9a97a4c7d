// The entries of kernels/convolution.h: the kernels of the instruction set that this machine runs.
#include "kernels/convolution.h"

#include "kernels/cpu/run_chosen.h"

namespace deformops::cpu {

template <class T>
void gather_columns(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                    View<T, 5> columns) {
  DEFORMOPS_RUN_CHOSEN(gather_columns(context, window, input, columns));
}

template <class T>
void scatter_columns(const Context& context, const SampledWindow<T>& window,
                     View<const T, 5> columns, View<T, 4> grad_input) {
  DEFORMOPS_RUN_CHOSEN(scatter_columns(context, window, columns, grad_input));
}

template <class T>
void contract_columns(const Context& context, const SampledWindow<T>& window,
                      View<const T, 4> input, View<const T, 5> columns, View<T, 4> grad_mask) {
  DEFORMOPS_RUN_CHOSEN(contract_columns(context, window, input, columns, grad_mask));
}

template <class T>
void deform_conv2d(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                   View<const T, 4> weight, View<const T, 1> bias, View<T, 4> output) {
  if (!window.offset.defined() && !window.mask.defined()) {
    DEFORMOPS_RUN_CHOSEN(regular_conv2d(context, window.y, window.x, input, weight, bias, output));
  }
  DEFORMOPS_RUN_CHOSEN(deform_conv2d(context, window, input, weight, bias, output));
}

template <class T>
bool winograd_conv2d(const Context& context, const WindowAxis& y, const WindowAxis& x,
                     View<const T, 4> input, View<const T, 4> weight, View<const T, 1> bias,
                     View<T, 4> output) {
  const auto fits = [](const WindowAxis& axis) { return axis.taps == 3 && axis.stride == 1; };
  if (!fits(y) || !fits(x) || input.sizes[1] == 0) return false;
  DEFORMOPS_RUN_CHOSEN(winograd_conv2d(context, y, x, input, weight, bias, output));
}

template <class T>
void deform_conv2d_backward(const Context& context, const SampledWindow<T>& window,
                            View<const T, 4> grad_output, View<const T, 4> input,
                            View<const T, 4> weight, const ConvolutionGradients<T>& gradients) {
  DEFORMOPS_RUN_CHOSEN(
      deform_conv2d_backward(context, window, grad_output, input, weight, gradients));
}

#define DEFORMOPS_INSTANTIATE(T)                                                                \
  template void gather_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 4>,    \
                                  View<T, 5>);                                                  \
  template void scatter_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 5>,   \
                                   View<T, 4>);                                                 \
  template void contract_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 4>,  \
                                    View<const T, 5>, View<T, 4>);                              \
  template void deform_conv2d<T>(const Context&, const SampledWindow<T>&, View<const T, 4>,     \
                                 View<const T, 4>, View<const T, 1>, View<T, 4>);               \
  template bool winograd_conv2d<T>(const Context&, const WindowAxis&, const WindowAxis&,        \
                                   View<const T, 4>, View<const T, 4>, View<const T, 1>,        \
                                   View<T, 4>);                                                 \
  template void deform_conv2d_backward<T>(const Context&, const SampledWindow<T>&,              \
                                          View<const T, 4>, View<const T, 4>, View<const T, 4>, \
                                          const ConvolutionGradients<T>&);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu

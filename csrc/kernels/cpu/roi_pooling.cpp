// The entries of kernels/roi_pooling.h: the kernels of the instruction set that this machine runs.
#include "kernels/roi_pooling.h"

#include "kernels/cpu/roi_isa.h"
#include "kernels/cpu/run_chosen.h"

namespace deformops::cpu {

template <class T, class Index>
void roi_pool(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
              View<T, 4> output, View<Index, 4> index) {
  DEFORMOPS_RUN_CHOSEN(roi_pool(context, bins, input, output, index));
}

template <class T, class Index>
bool gather_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                   View<const Index, 4> index, View<T, 4> output) {
  DEFORMOPS_RUN_CHOSEN(gather_maxima(context, bins, input, index, output));
}

template <class T, class Index>
bool scatter_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                    View<const Index, 4> index, View<T, 4> grad_input) {
  DEFORMOPS_RUN_CHOSEN(scatter_maxima(context, bins, grad_output, index, grad_input));
}

template <class T>
void roi_average(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                 View<T, 4> output) {
  DEFORMOPS_RUN_CHOSEN(roi_average(context, bins, input, output));
}

template <class T>
void roi_average_backward(const Context& context, const RoiBins<T>& bins,
                          View<const T, 4> grad_output, View<const T, 4> input,
                          View<T, 4> grad_input, View<T, 4> grad_offset) {
  DEFORMOPS_RUN_CHOSEN(
      roi_average_backward(context, bins, grad_output, input, grad_input, grad_offset));
}

#define DEFORMOPS_INSTANTIATE_INDEX(T, Index)                                                 \
  template void roi_pool<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>,       \
                                   View<T, 4>, View<Index, 4>);                               \
  template bool gather_maxima<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>,  \
                                        View<const Index, 4>, View<T, 4>);                    \
  template bool scatter_maxima<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                         View<const Index, 4>, View<T, 4>);
#define DEFORMOPS_INSTANTIATE(T)                                                                 \
  DEFORMOPS_INSTANTIATE_INDEX(T, int32_t)                                                        \
  DEFORMOPS_INSTANTIATE_INDEX(T, int64_t)                                                        \
  template void roi_average<T>(const Context&, const RoiBins<T>&, View<const T, 4>, View<T, 4>); \
  template void roi_average_backward<T>(const Context&, const RoiBins<T>&, View<const T, 4>,     \
                                        View<const T, 4>, View<T, 4>, View<T, 4>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE
#undef DEFORMOPS_INSTANTIATE_INDEX

}  // namespace deformops::cpu

// The entries of kernels/lattice.h and mean_field.h: the kernels of the instruction set that this
// machine runs.
#include "kernels/lattice.h"

#include "kernels/cpu/lattice_isa.h"
#include "kernels/cpu/run_chosen.h"
#include "kernels/mean_field.h"

namespace deformops::cpu {

template <class T>
void lattice_extent(const Context& context, View<const T, 3> features, LatticeExtent& extent) {
  DEFORMOPS_RUN_CHOSEN(lattice_extent(context, features, extent));
}

template <class T>
void lattice_sort(const Context& context, const KeyLayout& layout, View<const T, 3> features,
                  View<T, 2> weight, View<int32_t, 2> vertex, View<int32_t, 1> entry,
                  SortedCorners& sorted) {
  DEFORMOPS_RUN_CHOSEN(lattice_sort(context, layout, features, weight, vertex, entry, sorted));
}

void lattice_connect(const Context& context, const SortedCorners& sorted, View<int32_t, 1> start,
                     View<int32_t, 3> neighbor) {
  DEFORMOPS_RUN_CHOSEN(lattice_connect(context, sorted, start, neighbor));
}

template <class T>
void lattice_filter(const Context& context, const Lattice& lattice, bool reverse,
                    View<const T, 2> values, View<const T, 2> splat_weight,
                    View<const T, 2> slice_weight, View<T, 2> output) {
  DEFORMOPS_RUN_CHOSEN(
      lattice_filter(context, lattice, reverse, values, splat_weight, slice_weight, output));
}

template <class T>
void lattice_contract(const Context& context, const Lattice& lattice, bool reverse,
                      View<const T, 2> grad_output, View<const T, 2> values,
                      View<const T, 2> splat_weight, View<T, 2> grad_weight) {
  DEFORMOPS_RUN_CHOSEN(
      lattice_contract(context, lattice, reverse, grad_output, values, splat_weight, grad_weight));
}

template <class T>
void lattice_weights_forward(const Context& context, View<const T, 3> tangent,
                             View<const T, 3> features, View<T, 2> change) {
  DEFORMOPS_RUN_CHOSEN(lattice_weights_forward(context, tangent, features, change));
}

template <class T>
void lattice_weights_backward(const Context& context, View<const T, 2> grad_weight,
                              View<const T, 3> features, View<T, 3> grad_features) {
  DEFORMOPS_RUN_CHOSEN(lattice_weights_backward(context, grad_weight, features, grad_features));
}

template <class T>
void mean_field(const Context& context, const MessageKernel<T>* kernels, int64_t count,
                View<const T, 3> unary, View<const T, 3> initial, int64_t iterations,
                View<T, 3> result) {
  DEFORMOPS_RUN_CHOSEN(mean_field(context, kernels, count, unary, initial, iterations, result));
}

#define DEFORMOPS_INSTANTIATE(T)                                                                  \
  template void lattice_extent<T>(const Context&, View<const T, 3>, LatticeExtent&);              \
  template void lattice_sort<T>(const Context&, const KeyLayout&, View<const T, 3>, View<T, 2>,   \
                                View<int32_t, 2>, View<int32_t, 1>, SortedCorners&);              \
  template void lattice_filter<T>(const Context&, const Lattice&, bool, View<const T, 2>,         \
                                  View<const T, 2>, View<const T, 2>, View<T, 2>);                \
  template void lattice_contract<T>(const Context&, const Lattice&, bool, View<const T, 2>,       \
                                    View<const T, 2>, View<const T, 2>, View<T, 2>);              \
  template void lattice_weights_forward<T>(const Context&, View<const T, 3>, View<const T, 3>,    \
                                           View<T, 2>);                                           \
  template void lattice_weights_backward<T>(const Context&, View<const T, 2>, View<const T, 3>,   \
                                            View<T, 3>);                                          \
  template void mean_field<T>(const Context&, const MessageKernel<T>*, int64_t, View<const T, 3>, \
                              View<const T, 3>, int64_t, View<T, 3>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
#undef DEFORMOPS_INSTANTIATE
#undef DEFORMOPS_RUN_CHOSEN

}  // namespace deformops::cpu

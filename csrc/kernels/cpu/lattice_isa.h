// What kernels/lattice.h and mean_field.h declare for the CPU, once for each instruction set.
#pragma once

#include "kernels/cpu/isa.h"
#include "kernels/lattice.h"
#include "kernels/mean_field.h"

namespace deformops::cpu {

#define DEFORMOPS_DECLARE(isa)                                                                    \
  namespace isa {                                                                                 \
  template <class T>                                                                              \
  void lattice_extent(const Context&, View<const T, 3>, LatticeExtent&);                          \
  template <class T>                                                                              \
  void lattice_sort(const Context&, const KeyLayout&, View<const T, 3>, View<T, 2>,               \
                    View<int32_t, 2>, View<int32_t, 1>, SortedCorners&);                          \
  void lattice_connect(const Context&, const SortedCorners&, View<int32_t, 1>, View<int32_t, 3>); \
  template <class T>                                                                              \
  void lattice_filter(const Context&, const Lattice&, bool, View<const T, 2>, View<const T, 2>,   \
                      View<const T, 2>, View<T, 2>);                                              \
  template <class T>                                                                              \
  void lattice_contract(const Context&, const Lattice&, bool, View<const T, 2>, View<const T, 2>, \
                        View<const T, 2>, View<T, 2>);                                            \
  template <class T>                                                                              \
  void lattice_weights_forward(const Context&, View<const T, 3>, View<const T, 3>, View<T, 2>);   \
  template <class T>                                                                              \
  void lattice_weights_backward(const Context&, View<const T, 2>, View<const T, 3>, View<T, 3>);  \
  template <class T>                                                                              \
  void mean_field(const Context&, const MessageKernel<T>*, int64_t, View<const T, 3>,             \
                  View<const T, 3>, int64_t, View<T, 3>);                                         \
  }
DEFORMOPS_FOR_EACH_ISA(DEFORMOPS_DECLARE)
#undef DEFORMOPS_DECLARE

}  // namespace deformops::cpu

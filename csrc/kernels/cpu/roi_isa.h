// What kernels/roi_pooling.h declares for the CPU, once for each instruction set.
#pragma once

#include "kernels/cpu/isa.h"
#include "kernels/roi_pooling.h"

namespace deformops::cpu {

#define DEFORMOPS_DECLARE(isa)                                                                     \
  namespace isa {                                                                                  \
  template <class T, class Index>                                                                  \
  void roi_pool(const Context&, const RoiBins<T>&, View<const T, 4>, View<T, 4>, View<Index, 4>);  \
  template <class T, class Index>                                                                  \
  bool gather_maxima(const Context&, const RoiBins<T>&, View<const T, 4>, View<const Index, 4>,    \
                     View<T, 4>);                                                                  \
  template <class T, class Index>                                                                  \
  bool scatter_maxima(const Context&, const RoiBins<T>&, View<const T, 4>, View<const Index, 4>,   \
                      View<T, 4>);                                                                 \
  template <class T>                                                                               \
  void roi_average(const Context&, const RoiBins<T>&, View<const T, 4>, View<T, 4>);               \
  template <class T>                                                                               \
  void roi_average_backward(const Context&, const RoiBins<T>&, View<const T, 4>, View<const T, 4>, \
                            View<T, 4>, View<T, 4>);                                               \
  }
DEFORMOPS_FOR_EACH_ISA(DEFORMOPS_DECLARE)
#undef DEFORMOPS_DECLARE

}  // namespace deformops::cpu

// The kernels of every instruction set that this build has, and the choice between them.
#pragma once

#include "kernels/convolution.h"

#if defined(__x86_64__)
#define DEFORMOPS_FOR_EACH_ISA(apply) apply(portable) apply(avx2) apply(avx512)
#else
#define DEFORMOPS_FOR_EACH_ISA(apply) apply(portable)
#endif

namespace deformops::cpu {

// What kernels/convolution.h declares for the CPU, once for each instruction set, and a kernel of
// its own for a window without offset and mask.
#define DEFORMOPS_DECLARE(isa)                                                                     \
  namespace isa {                                                                                  \
  template <class T>                                                                               \
  void gather_columns(const Context&, const SampledWindow<T>&, View<const T, 4>, View<T, 5>);      \
  template <class T>                                                                               \
  void scatter_columns(const Context&, const SampledWindow<T>&, View<const T, 5>, View<T, 4>);     \
  template <class T>                                                                               \
  void contract_columns(const Context&, const SampledWindow<T>&, View<const T, 4>,                 \
                        View<const T, 5>, View<T, 4>);                                             \
  template <class T>                                                                               \
  void deform_conv2d(const Context&, const SampledWindow<T>&, View<const T, 4>, View<const T, 4>,  \
                     View<const T, 1>, View<T, 4>);                                                \
  template <class T>                                                                               \
  void regular_conv2d(const Context&, const WindowAxis&, const WindowAxis&, View<const T, 4>,      \
                      View<const T, 4>, View<const T, 1>, View<T, 4>);                             \
  template <class T>                                                                               \
  bool winograd_conv2d(const Context&, const WindowAxis&, const WindowAxis&, View<const T, 4>,     \
                       View<const T, 4>, View<const T, 1>, View<T, 4>);                            \
  template <class T>                                                                               \
  void deform_conv2d_backward(const Context&, const SampledWindow<T>&, View<const T, 4>,           \
                              View<const T, 4>, View<const T, 4>, const ConvolutionGradients<T>&); \
  }
DEFORMOPS_FOR_EACH_ISA(DEFORMOPS_DECLARE)
#undef DEFORMOPS_DECLARE

enum class InstructionSet { portable, avx2, avx512 };

// Decided once per process; see cpu_features.h.
InstructionSet chosen_instruction_set();

}  // namespace deformops::cpu

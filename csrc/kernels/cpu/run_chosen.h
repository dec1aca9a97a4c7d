// The choice between the kernels of different instruction sets, in the entry of each kernel.
#pragma once

#include "kernels/cpu/isa.h"

#if defined(__x86_64__)
#define DEFORMOPS_RUN_CHOSEN(call)    \
  switch (chosen_instruction_set()) { \
    case InstructionSet::avx512:      \
      return avx512::call;            \
    case InstructionSet::avx2:        \
      return avx2::call;              \
    case InstructionSet::portable:    \
      break;                          \
  }                                   \
  return portable::call
#else
#define DEFORMOPS_RUN_CHOSEN(call) return portable::call
#endif

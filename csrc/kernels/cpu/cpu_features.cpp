#include "kernels/cpu_features.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels/cpu/isa.h"

namespace deformops::cpu {
namespace {

InstructionSet widest_of_this_machine() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return InstructionSet::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::avx2;
#endif
  return InstructionSet::portable;
}

const char* name_of(InstructionSet set) {
  switch (set) {
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::portable:
      break;
  }
  return "portable";
}

InstructionSet choose() {
  const InstructionSet widest = widest_of_this_machine();
  const char* asked = std::getenv("DEFORMOPS_CPU_ISA");
  if (asked == nullptr) return widest;
  for (const InstructionSet set : {InstructionSet::portable, InstructionSet::avx2}) {
    if (set < widest && std::strcmp(asked, name_of(set)) == 0) return set;
  }
  return widest;
}

}  // namespace

InstructionSet chosen_instruction_set() {
  static const InstructionSet chosen = choose();
  return chosen;
}

const char* instruction_set() { return name_of(chosen_instruction_set()); }

}  // namespace deformops::cpu

// Which instructions the CPU kernels use on this machine.
#pragma once

namespace deformops::cpu {

// "avx512", "avx2" or "portable": the widest set that this build has and this machine can run.
// The environment variable DEFORMOPS_CPU_ISA asks for a narrower one. Decided once per process.
const char* instruction_set();

}  // namespace deformops::cpu

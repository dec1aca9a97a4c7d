// Which of the compiled instruction sets the CPU kernels use on this machine.
#pragma once

namespace deformops {
namespace cpu {

// "avx512", "avx2" or "portable"; the environment variable DEFORMOPS_CPU_ISA names a lesser one.
const char* instruction_set();

}  // namespace cpu
}  // namespace deformops

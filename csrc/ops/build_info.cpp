#include "ops/build_info.h"

#include "kernels/cpu_features.h"

#if !defined(DEFORMOPS_CUDA_VERSION)
#define DEFORMOPS_CUDA_VERSION ""
#define DEFORMOPS_CUDA_ARCHITECTURES ""
#endif

namespace deformops {

std::string build_info() {
  const auto field = [](const char* name, const std::string& value) {
    return std::string("\"") + name + "\": \"" + value + "\"";
  };
  return "{" + field("version", DEFORMOPS_VERSION) + ", " + field("torch_target", "2.13") + ", " +
         field("cuda", DEFORMOPS_CUDA_VERSION) + ", " +
         field("architectures", DEFORMOPS_CUDA_ARCHITECTURES) + ", " +
         field("compiler", __VERSION__) + ", " + field("cpu_isa", cpu::instruction_set()) + "}";
}

}  // namespace deformops

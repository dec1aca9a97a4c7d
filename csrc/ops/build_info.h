// What this library is: shown by `deformops info` and in import errors.
#pragma once

#include <string>

namespace deformops {

// A JSON object with the keys version, torch_target, cuda, architectures, compiler, cpu_isa.
std::string build_info();

}  // namespace deformops

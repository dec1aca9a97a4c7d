// Kernels that crash: the fault becomes an error of the launch instead of the end of the process.
#pragma once

#include <csignal>

namespace deformops::simulation {

// While it lives, faults of simulated threads (a wild address, a stack that is full, an integer
// division by zero) end their launch; any other fault goes where it went before.
class FaultGuard {
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

 private:
  stack_t outer_stack_;
};

}  // namespace deformops::simulation

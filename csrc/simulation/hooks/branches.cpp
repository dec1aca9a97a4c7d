// The compiler's -fsanitize-coverage=trace-pc puts a call at every branch: here a place where
// another thread may go on.
#include "simulation/hooks/module.h"

namespace deformops::simulation {
namespace {

[[gnu::constructor]] void register_module() { register_this_module(false); }

}  // namespace
}  // namespace deformops::simulation

extern "C" __attribute__((visibility("hidden"))) void __sanitizer_cov_trace_pc() {
  using deformops::simulation::running;
  if (--running.until_preemption == 0 && running.thread != nullptr) {
    deformops::simulation::preempt();
  }
}

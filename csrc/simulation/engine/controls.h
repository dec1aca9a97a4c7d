// What a test asks of the device, and asks to know of it: the part of the engine that is shown to
// Python (../bindings/device.cpp).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "simulation/device/engine.h"
#include "simulation/engine/failure.h"
#include "simulation/engine/profile.h"

namespace deformops::simulation {

struct Options {
  uint64_t seed = 0;              // 0: a fixed order, blocks and threads by number
  double preemption = 0;          // chance of a switch at every place where one is possible
  bool allow_early_exit = false;  // exited threads count as arrived at __syncthreads (sm_70 and up)
  bool profile = false;           // count memory transactions (race build)
};

// Takes effect from the next launch, which is number 0 again.
DEFORMOPS_SIMULATION_API void configure(const Options& options);
DEFORMOPS_SIMULATION_API Options current_options();

// Launches that ended well since they were last cleared, oldest first; the latest 4096.
DEFORMOPS_SIMULATION_API std::vector<LaunchRecord> launches();
DEFORMOPS_SIMULATION_API void clear_launches();
DEFORMOPS_SIMULATION_API std::optional<Failure> last_failure();

DEFORMOPS_SIMULATION_API std::string name_of_kernel(const void* kernel);
DEFORMOPS_SIMULATION_API std::vector<std::vector<Place>> places_of(
    const std::vector<const void*>& program_counters);

}  // namespace deformops::simulation

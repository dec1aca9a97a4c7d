#include "simulation/engine/controls.h"

#include "simulation/engine/device.h"

namespace deformops::simulation {

void configure(const Options& options) { Device::get().configure(options); }

Options current_options() {
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  return device.options;
}

std::vector<LaunchRecord> launches() {
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  return {device.records.begin(), device.records.end()};
}

void clear_launches() {
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  device.records.clear();
}

std::optional<Failure> last_failure() {
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  return device.last_failure;
}

std::string name_of_kernel(const void* kernel) {
  const std::lock_guard<std::recursive_mutex> lock(Device::get().mutex);
  return kernel_name(kernel);
}

std::vector<std::vector<Place>> places_of(const std::vector<const void*>& program_counters) {
  const std::lock_guard<std::recursive_mutex> lock(Device::get().mutex);
  resolve_places(program_counters);
  std::vector<std::vector<Place>> places;
  places.reserve(program_counters.size());
  for (const void* pc : program_counters) places.push_back(places_at(pc));
  return places;
}

}  // namespace deformops::simulation

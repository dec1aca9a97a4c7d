#include "simulation/engine/async_unit.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "simulation/engine/device.h"
#include "simulation/engine/sanitizer.h"

namespace deformops::simulation {

void AsyncUnit::begin_block(Random& random, bool always_late) {
  random_ = &random;
  static constexpr double kLate[] = {1, 0.5, 0.5, 0};
  late_ = always_late ? 1 : kLate[random.below(4)];
}

void AsyncUnit::issue(Thread& thread, const AsyncCopy& copy) {
  Device& device = Device::get();
  if (device.race.enabled()) device.race.begin_copy(thread, copy);
  thread.copies.push_back(copy);
  if (random_->chance(late_)) return;
  land(thread, copy);
  thread.copies.pop_back();
}

void AsyncUnit::wait(Thread& thread, unsigned pending) {
  const auto is_due = [&](const AsyncCopy& copy) { return copy.group + pending < thread.groups; };
  for (const AsyncCopy& copy : thread.copies) {
    if (is_due(copy)) land(thread, copy);
  }
  thread.copies.erase(std::remove_if(thread.copies.begin(), thread.copies.end(), is_due),
                      thread.copies.end());
}

void AsyncUnit::land(Thread& thread, const AsyncCopy& copy) {
  Device& device = Device::get();
  if (device.race.enabled()) device.race.end_copy(thread, copy);
  auto* target = static_cast<char*>(copy.shared);
  const auto source_bytes = static_cast<size_t>(copy.source_bytes);
  std::memcpy(target, copy.global, source_bytes);
  std::memset(target + source_bytes, 0, static_cast<size_t>(copy.bytes) - source_bytes);
}

void async_copy(void* shared, const void* global, int bytes, int source_bytes, Site site) {
  Device& device = Device::get();
  device.stop_if_failed();
  const auto size = static_cast<size_t>(bytes);
  const auto source_size = static_cast<size_t>(source_bytes);
  if (source_bytes < 0 || source_bytes > bytes) {
    device.fail("async copy",
                "cp.async of " + std::to_string(source_bytes) + " out of " + std::to_string(bytes) +
                    " bytes",
                site);
  }
  if (reinterpret_cast<uintptr_t>(shared) % size != 0 ||
      reinterpret_cast<uintptr_t>(global) % size != 0) {
    device.fail("misaligned",
                "cp.async needs both addresses aligned to its " + std::to_string(bytes) + " bytes",
                site);
  }
  // These two are seen in all builds, since the engine makes the access itself.
  if (device.shared.find(shared, size) == nullptr) {
    device.fail("out of bounds", "cp.async to " + device.shared.describe(shared), site);
  }
  if (source_bytes > 0 &&
      ((device.regions.fenced() && device.regions.find(global, source_size) == nullptr) ||
       sanitizer::first_poisoned(global, source_size) != nullptr)) {
    device.fail("out of bounds",
                "cp.async of " + std::to_string(source_bytes) + " bytes, " +
                    device.regions.describe(global),
                site);
  }
  Thread& thread = device.block.running_thread();
  const void* pc = static_cast<const char*>(__builtin_return_address(0)) - 1;
  ++device.record.async_copies;
  if (device.race.enabled()) {
    device.record.bytes_read += source_size;
    if (device.profiler.enabled()) {
      const uint32_t lanes = device.block.lanes_of(thread.warp());
      if (source_bytes > 0) {
        device.profiler.access(thread, lanes, Space::kGlobal, Motion::kLoad, global, source_size,
                               pc);
      }
      // The same instruction moves the data on: a second entry, told apart by one byte.
      device.profiler.access(thread, lanes, Space::kShared, Motion::kStore, shared, size,
                             static_cast<const char*>(pc) - 1);
    }
  }
  device.async.issue(thread, {shared, global, bytes, source_bytes, thread.groups, pc});
}

void async_commit() {
  Device& device = Device::get();
  device.stop_if_failed();
  device.async.commit(device.block.running_thread());
}

void async_wait(int pending_groups) {
  Device& device = Device::get();
  device.stop_if_failed();
  device.async.wait(device.block.running_thread(), static_cast<unsigned>(pending_groups));
}

}  // namespace deformops::simulation

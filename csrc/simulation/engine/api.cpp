// The rest of device/engine.h: what needs no more than a line or two.
#include "simulation/device/engine.h"

#include <cstring>

#include "simulation/engine/device.h"
#include "simulation/engine/model.h"

namespace deformops::simulation {
namespace {

const void* call_before(const void* return_address) {
  return static_cast<const char*>(return_address) - 1;
}

}  // namespace

uint3 thread_index() noexcept { return Device::get().block.running_thread().index; }
uint3 block_index() noexcept { return Device::get().block_index; }
dim3 block_extent() noexcept { return Device::get().current->block; }
dim3 grid_extent() noexcept { return Device::get().current->grid; }

void refuse_launch_bounds(unsigned max_threads) {
  Device& device = Device::get();
  const dim3 block = device.current->block;
  device.fail("launch", "a block of " + std::to_string(block.x * block.y * block.z) +
                            " threads; the kernel's __launch_bounds__ allow " +
                            std::to_string(max_threads));
}

void refuse_arguments(const char* message, Site site) {
  Device::get().fail("assertion", message, site);
}

int block_barrier(BarrierResult result, int predicate, Site site) {
  return Device::get().block.wait_at_barrier(result, predicate, site);
}

void memory_fence(Fence) {
  Device& device = Device::get();
  if (device.race.enabled()) device.race.fence(device.block.running_thread());
}

void* static_shared(const void* identity, const char* name, size_t bytes, size_t alignment) {
  return Device::get().shared.static_array(identity, name, bytes, alignment);
}

void* dynamic_shared(const char* name, size_t alignment) {
  return Device::get().shared.dynamic_array(name, alignment);
}

void announce_atomic(void* address, size_t bytes) {
  Device& device = Device::get();
  device.stop_if_failed();
  if (--running.until_preemption == 0) preempt();
  ++device.record.atomics;
  const void* pc = call_before(__builtin_return_address(0));
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    device.fail("misaligned", "atomic operation on " + std::to_string(bytes) +
                                  " bytes at an address that is not a multiple of that");
  }
  if (!device.race.enabled()) return;
  Thread& thread = device.block.running_thread();
  device.race.update(thread, address, bytes, pc);
  device.count_access(thread, Motion::kAtomic, address, bytes, pc);
}

void check_access(Access access, const void* address, size_t bytes, bool aligned,
                  const void* program_counter) {
  Device& device = Device::get();
  device.stop_if_failed();
  const void* pc = call_before(program_counter);
  const bool is_volatile = access == Access::kVolatileRead || access == Access::kVolatileWrite;
  const bool writes = access == Access::kWrite || access == Access::kVolatileWrite;
  if (aligned && reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    device.fail("misaligned", std::string(writes ? "write" : "read") + " of " +
                                  std::to_string(bytes) +
                                  " bytes at an address that is not a multiple of that");
  }
  // PTX defines volatile accesses as relaxed ones of the strongest scope.
  const auto kind = is_volatile ? RaceChecker::Kind::kAtomic : RaceChecker::Kind::kPlain;
  Thread& thread = device.block.running_thread();
  if (writes) {
    device.race.write(thread, address, bytes, kind, pc);
  } else {
    device.race.read(thread, address, bytes, kind, pc);
  }
  device.count_access(thread, writes ? Motion::kStore : Motion::kLoad, address, bytes, pc);
}

void preempt() {
  Device& device = Device::get();
  running.until_preemption = device.random.geometric(device.options.preemption);
  device.block.yield();
}

void register_instrumented_module(const void* begin, const void* end, bool sees_every_access) {
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  device.modules.push_back(
      {static_cast<const char*>(begin), static_cast<const char*>(end), sees_every_access});
}

void refuse_undefined_behaviour(const char* message, Site site) {
  Device::get().fail("undefined behaviour", message, site);
}

void launch(const Launch& launch) { Device::get().launch(launch); }

int device_limit(Limit limit) {
  switch (limit) {
    case Limit::kMultiprocessors:
      return kModel.multiprocessors;
    case Limit::kComputeMajor:
      return DEFORMOPS_SIMULATED_ARCH / 100;
    case Limit::kComputeMinor:
      return DEFORMOPS_SIMULATED_ARCH % 100 / 10;
    case Limit::kThreadsPerBlock:
      return kMaxThreads;
    case Limit::kThreadsPerMultiprocessor:
      return kModel.threads_per_multiprocessor;
    case Limit::kBlocksPerMultiprocessor:
      return kModel.blocks_per_multiprocessor;
    case Limit::kSharedBytesPerBlock:
      return SharedMemory::kDefaultLimit;
    case Limit::kSharedBytesPerBlockOptin:
      return kModel.shared_bytes_per_block;
    case Limit::kSharedBytesPerMultiprocessor:
      return kModel.shared_bytes_per_multiprocessor;
    case Limit::kWarpSize:
      return kWarpSize;
  }
  return 0;
}

bool allow_dynamic_shared(const void* kernel, size_t bytes) {
  if (bytes > static_cast<size_t>(kModel.shared_bytes_per_block)) return false;
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  device.dynamic_shared_limits[kernel] = bytes;
  return true;
}

void fill_memory(void* data, int byte, size_t bytes) {
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  std::memset(data, byte, bytes);
  device.race.host_wrote(data, bytes);
}

void copy_memory(void* destination, const void* source, size_t bytes) {
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  std::memmove(destination, source, bytes);
  device.race.host_wrote(destination, bytes);
}

MemoryScope::MemoryScope(const char* op) {
  Device& device = Device::get();
  device.mutex.lock();
  outer_regions_ = device.regions.count();
  outer_op_ = device.op;
  device.op = op;
  device.regions.enter_scope();
}

MemoryScope::~MemoryScope() {
  Device& device = Device::get();
  device.regions.leave_scope(outer_regions_);
  device.op = outer_op_;
  // What one op did to memory is no concern of the next; and records take 16 times as much as it.
  if (!device.regions.fenced()) device.race.forget_everything();
  device.mutex.unlock();
}

void register_memory(const void* data, size_t bytes, Memory memory, const char* name) {
  Device& device = Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  // What an earlier owner of these bytes wrote is no value of theirs.
  if (memory == Memory::kUninitialized) device.race.forget(data, bytes);
  device.regions.add(data, bytes, memory, name);
}

}  // namespace deformops::simulation

#include "simulation/engine/device.h"

#include <algorithm>
#include <numeric>

#include "simulation/engine/faults.h"
#include "simulation/engine/model.h"
#include "simulation/engine/sanitizer.h"

namespace deformops::simulation {
namespace {

// Of an AddressSanitizer report, the line that says what it is about.
std::string first_line_of_report(const std::string& report) {
  const std::string marker = "AddressSanitizer: ";
  const size_t begin = report.find(marker);
  if (begin == std::string::npos) return report;
  const size_t end = report.find('\n', begin);
  std::string line = report.substr(begin + marker.size(), end - begin - marker.size());
  line = line.substr(0, line.find(" at pc "));
  for (const char* direction : {"READ of size ", "WRITE of size "}) {
    const size_t at = report.find(direction, begin);
    if (at != std::string::npos && at < begin + 400) {
      line += ", " + report.substr(at, report.find(" at 0x", at) - at);
      break;
    }
  }
  return line;
}

}  // namespace

Running running;

Device& Device::get() {
  static Device* const device = new Device;  // outlives everything that may still launch
  return *device;
}

Device::Device() {
  sanitizer::on_report([](const char* report) {
    if (running.thread == nullptr) return;
    get().note_failure("address sanitizer", first_line_of_report(report));
  });
}

void Device::configure(const Options& new_options) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  options = new_options;
  launch_number_ = 0;
}

void Device::note_failure(std::string kind, std::string message, Site site) {
  if (failure_.has_value()) return;  // what came first is the cause
  Failure failure;
  failure.kind = std::move(kind);
  failure.message = std::move(message);
  failure.op = op;
  if (current != nullptr) {
    failure.kernel = kernel_name(current->kernel);
    failure.block = block_index;
    failure.seed = options.seed;
    failure.launch = record.number;
  }
  if (running.thread != nullptr) {
    failure.in_thread = true;
    failure.thread = block.running_thread().index;
    failure.stack = call_stack(module->begin, module->end, failure.kernel);
  }
  // A site is where the kernel called the engine. Without debug information it is all that is
  // known.
  const auto found = std::find_if(failure.stack.begin(), failure.stack.end(), [&](const Place& p) {
    return site.line == 0 || (p.line == site.line && p.file == site.file);
  });
  failure.stack.erase(failure.stack.begin(), found);
  if (failure.stack.empty() && site.line != 0) failure.stack.push_back({"", site.file, site.line});
  failure_ = std::move(failure);
}

void Device::fail(std::string kind, std::string message, Site site) {
  note_failure(std::move(kind), std::move(message), site);
  if (running.thread != nullptr) block.abandon();
  last_failure = std::move(failure_);
  failure_.reset();
  throw KernelError(*last_failure);
}

void Device::count_access(const Thread& thread, Motion motion, const void* address, size_t bytes,
                          const void* program_counter) {
  if (is_constant(address)) return;
  const Space space = shared.contains(address) ? Space::kShared : Space::kGlobal;
  if (space == Space::kGlobal) {
    if (motion != Motion::kStore) record.bytes_read += bytes;
    if (motion != Motion::kLoad) record.bytes_written += bytes;
  }
  if (profiler.enabled()) {
    profiler.access(thread, block.lanes_of(thread.warp()), space, motion, address, bytes,
                    program_counter);
  }
}

void Device::validate(const Launch& launch) {
  const auto found = std::find_if(modules.begin(), modules.end(), [&](const Module& candidate) {
    return candidate.contains(launch.kernel);
  });
  if (found == modules.end()) fail("launch", "the kernel's library was built without its hooks");
  module = &*found;

  const dim3 grid = launch.grid, threads = launch.block;
  const uint64_t count = uint64_t{threads.x} * threads.y * threads.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535) {
    fail("launch", "a grid of " + to_string(uint3(grid)) + " blocks is not possible");
  }
  if (count == 0 || count > kMaxThreads || threads.z > 64) {
    fail("launch", "a block of " + to_string(uint3(threads)) + " threads is not possible");
  }
  const auto allowed = dynamic_shared_limits.find(launch.kernel);
  const size_t limit =
      allowed == dynamic_shared_limits.end() ? SharedMemory::kDefaultLimit : allowed->second;
  if (launch.dynamic_shared_bytes > limit) {
    fail("launch", std::to_string(launch.dynamic_shared_bytes) +
                       " bytes of dynamic shared memory; the kernel is allowed " +
                       std::to_string(limit) + " (cudaFuncSetAttribute raises that to " +
                       std::to_string(kModel.shared_bytes_per_block) + ")");
  }
}

bool Device::is_constant(const void* address) const {
  const auto* arguments = static_cast<const char*>(current->arguments);
  const auto* at = static_cast<const char*>(address);
  return (at >= arguments && at < arguments + current->argument_bytes) || module->contains(at);
}

void Device::launch(const Launch& launch) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  record = {};
  record.kernel = launch.kernel;
  record.grid = launch.grid;
  record.block = launch.block;
  record.dynamic_shared_bytes = launch.dynamic_shared_bytes;
  record.seed = options.seed;
  record.number = launch_number_++;
  current = &launch;
  block_index = {0, 0, 0};
  struct Forget {
    ~Forget() { Device::get().current = nullptr; }
  } forget_launch;

  validate(launch);
  random = Random(options.seed, record.number);
  const bool opted_in = dynamic_shared_limits.count(launch.kernel) != 0;
  shared.begin_launch(
      launch.dynamic_shared_bytes,
      opted_in ? static_cast<size_t>(kModel.shared_bytes_per_block) : SharedMemory::kDefaultLimit);
  if (!regions.fenced()) race.forget_everything();
  race.begin_launch(module->sees_every_access);
  profiler.begin_launch(options.profile && race.enabled());
  running.until_preemption = random.geometric(options.preemption);
  run_blocks();
  if (failed()) fail("", "");

  if (const Regions::Region* region = regions.changed()) {
    fail("read only", "the kernel has written to " + describe(*region));
  }
  record.static_shared_bytes = shared.static_bytes();
  profiler.end_launch(record);
  if (records.size() == kMaxRecords) records.pop_front();
  records.push_back(std::move(record));
}

void Device::run_blocks() {
  const FaultGuard guard;
  const dim3 grid = current->grid;
  std::vector<uint64_t> order(uint64_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), uint64_t{0});
  const bool fixed_order = options.seed == 0;
  if (!fixed_order) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  }
  for (const uint64_t number : order) {
    block_index = {static_cast<unsigned>(number % grid.x),
                   static_cast<unsigned>(number / grid.x % grid.y),
                   static_cast<unsigned>(number / grid.x / grid.y)};
    shared.begin_block();
    race.begin_block();
    profiler.begin_block();
    async.begin_block(random, fixed_order || race.enabled());
    block.run(current->block, random, fixed_order);
    if (failed()) return;
    profiler.end_block();
    if (const SharedMemory::Array* array = shared.overrun()) {
      note_failure("overrun", "somebody wrote beyond shared `" + array->name +
                                  "`; found at the end of the block");
      return;
    }
  }
}

}  // namespace deformops::simulation

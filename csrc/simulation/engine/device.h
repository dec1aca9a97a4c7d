// The one simulated GPU of the process: its settings, its memory, the launch it is executing.
#pragma once

#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "simulation/engine/async_unit.h"
#include "simulation/engine/block.h"
#include "simulation/engine/controls.h"
#include "simulation/engine/race.h"
#include "simulation/engine/regions.h"
#include "simulation/engine/shared_memory.h"

namespace deformops::simulation {

class Device {
 public:
  static Device& get();

  void configure(const Options& options);
  void launch(const Launch& launch);

  // Ends the launch with an error at the running thread's present place; on the host's side,
  // throws.
  [[noreturn]] void fail(std::string kind, std::string message, Site site = {});
  // The same from places that have to return: the thread goes on until it next calls the engine.
  void note_failure(std::string kind, std::string message, Site site = {});
  bool failed() const { return failure_.has_value(); }
  // Of a sanitizer's report about the running thread.
  void stop_if_failed() {
    if (failed()) block.abandon();
  }

  // For the profile: an access to memory that was found to be in order.
  void count_access(const Thread& thread, Motion motion, const void* address, size_t bytes,
                    const void* program_counter);

  // Ops of several host threads take turns; one op may launch many kernels.
  std::recursive_mutex mutex;

  Options options;
  Random random;
  Block block;
  AsyncUnit async;
  SharedMemory shared;
  Regions regions;
  RaceChecker race;
  Profiler profiler;

  // What is being executed.
  const char* op = "";
  const Launch* current = nullptr;
  uint3 block_index = {0, 0, 0};
  LaunchRecord record;

  std::deque<LaunchRecord> records;  // of finished launches, oldest first
  static constexpr size_t kMaxRecords = 4096;
  std::optional<Failure> last_failure;
  std::unordered_map<const void*, size_t> dynamic_shared_limits;

  // Libraries that hold kernels; `module` is that of the kernel being executed.
  struct Module {
    const char* begin;
    const char* end;
    bool sees_every_access;
    bool contains(const void* address) const { return address >= begin && address < end; }
  };
  std::deque<Module> modules;
  const Module* module = nullptr;

 private:
  Device();
  void validate(const Launch& launch);
  // Kernel parameters and tables, which a GPU keeps apart from tensors.
  bool is_constant(const void* address) const;
  void run_blocks();

  std::optional<Failure> failure_;
  uint64_t launch_number_ = 0;  // since the seed was set
};

}  // namespace deformops::simulation

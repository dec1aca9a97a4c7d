// What a launch did, as far as a simulation can know it: counts, no times.
//
// Memory is not moved thread by thread. The 32 threads of a warp issue one request together, and
// the hardware splits it by where it goes: global memory into sectors of 32 bytes, shared memory by
// banks: 32 of them, word w in bank w % 32, of which each gives one word at a time; threads that
// want the same word share it. Accesses of 8 or 16 bytes are served for half or a quarter of the
// warp at a time. Here the threads of a warp do not run in step, so the request is put together
// again: the n-th time that each lane comes by an instruction since the warp was last together
// makes one request.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "simulation/engine/thread.h"

namespace deformops::simulation {

enum class Space : uint8_t { kGlobal, kShared };
enum class Motion : uint8_t { kLoad, kStore, kAtomic };

struct Traffic {
  uint64_t requests = 0;      // of whole warps
  uint64_t partial = 0;       // requests in which not all lanes took part
  uint64_t threads = 0;       // lanes that took part
  uint64_t bytes = 0;         // that they asked for
  uint64_t transactions = 0;  // global: sectors; shared: passes over the banks
  uint64_t ideal = 0;         // the same if the same bytes lay densely

  void operator+=(const Traffic& other);
};

struct InstructionTraffic {
  const void* program_counter;
  Space space;
  Motion motion;
  Traffic traffic;
};

struct LaunchRecord {
  const void* kernel = nullptr;
  dim3 grid, block;
  uint64_t static_shared_bytes = 0;
  uint64_t dynamic_shared_bytes = 0;
  uint64_t seed = 0;
  uint64_t number = 0;  // since the seed was set

  uint64_t threads = 0;           // that ran to their end
  uint64_t switches = 0;          // between threads
  uint64_t block_barriers = 0;    // times that a block met
  uint64_t warp_collectives = 0;  // times that lanes of a warp met
  uint64_t atomics = 0;           // single operations
  uint64_t async_copies = 0;      // single copies
  uint64_t multiplications = 0;   // mma.sync instructions of a warp

  // Seen by the race build only.
  uint64_t bytes_read = 0;  // of global memory, as asked for by threads
  uint64_t bytes_written = 0;

  // The race build, while profiling.
  bool profiled = false;
  std::vector<InstructionTraffic> instructions;
  // Distinct sectors: of the whole launch (what DRAM moves at least), and summed over the blocks
  // (what a perfect L1 cache would ask for).
  uint64_t sectors_read = 0, sectors_written = 0;
  uint64_t block_sectors_read = 0, block_sectors_written = 0;

  Traffic total(Space space, Motion motion) const;
};

class Profiler {
 public:
  static constexpr uint64_t kSectorBytes = 32;
  static constexpr int kBanks = 32;
  static constexpr uint64_t kBankBytes = 4;

  void begin_launch(bool enabled);
  void begin_block();
  void access(const Thread& thread, uint32_t lanes_of_warp, Space space, Motion motion,
              const void* address, size_t bytes, const void* program_counter);
  // Lanes of a warp are together again: what was not asked by all by now was asked by some.
  void warp_met(unsigned warp);
  void block_met();
  void end_block();
  void end_launch(LaunchRecord& record);

  bool enabled() const { return enabled_; }

 private:
  struct Request {
    uint32_t lanes = 0;
    std::array<uint64_t, kWarpSize> address;
  };
  struct Instruction {
    Space space;
    Motion motion;
    size_t bytes;
    uint32_t lanes_of_warp;
    std::array<uint32_t, kWarpSize> visits = {};
    uint32_t first = 0;  // number of the visit that requests.front() is for
    std::deque<Request> requests;
  };
  using Warp = std::unordered_map<const void*, Instruction>;
  using Sectors = std::unordered_set<uint64_t>;

  void account(const void* program_counter, const Instruction& instruction, const Request& request);
  void flush(Warp& warp);

  bool enabled_ = false;
  std::array<Warp, kMaxThreads / kWarpSize> warps_;
  std::unordered_map<const void*, InstructionTraffic> instructions_;
  Sectors read_, written_, block_read_, block_written_;
  uint64_t block_sectors_read_ = 0, block_sectors_written_ = 0;
};

// Passes over the banks that a request of some lanes takes, all of one size.
uint64_t bank_passes(const std::array<uint64_t, kWarpSize>& address, uint32_t lanes, size_t bytes);
// Distinct sectors that it touches, appended to `sectors`.
void sectors_of(const std::array<uint64_t, kWarpSize>& address, uint32_t lanes, size_t bytes,
                std::vector<uint64_t>& sectors);

}  // namespace deformops::simulation

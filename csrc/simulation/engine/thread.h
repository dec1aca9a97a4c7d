// One CUDA thread between two moments in which it runs.
#pragma once

#include <cstdint>
#include <vector>

#include "simulation/device/engine.h"
#include "simulation/engine/context.h"
#include "simulation/engine/stack.h"

namespace deformops::simulation {

constexpr int kWarpSize = 32;
constexpr unsigned kMaxThreads = 1024;  // of a block

// A kind of warp collective. All lanes of a mask meet; the last to arrive acts for everyone.
struct Meeting {
  const char* name;
  bool aligned;  // PTX .aligned: all lanes must be at the same place in the source
  void (*complete)(unsigned mask,
                   void* const* arguments);  // arguments[lane], for lanes of the mask
};

struct AsyncCopy {
  void* shared;
  const void* global;
  int bytes;
  int source_bytes;  // the rest is filled with zeros
  unsigned group;
  const void* program_counter;
};

struct Thread {
  enum class State : uint8_t { kFresh, kReady, kAtBarrier, kAtMeeting, kExited };

  unsigned linear = 0;  // x + y * extent.x + z * extent.x * extent.y
  uint3 index = {0, 0, 0};
  State state = State::kExited;

  Context context;
  Stack* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's

  // Where it waits, and with what.
  Site site;
  BarrierResult barrier_result = BarrierResult::kNone;
  int value = 0;  // in: the predicate, out: the result
  const Meeting* meeting = nullptr;
  void* argument = nullptr;

  std::vector<AsyncCopy> copies;  // issued, not complete
  unsigned groups = 0;            // committed so far

  uint32_t clock = 0;  // counts the barriers behind it (race.h)

  unsigned warp() const { return linear / kWarpSize; }
  unsigned lane() const { return linear % kWarpSize; }
};

}  // namespace deformops::simulation

// What the lanes of a warp do together: shuffles, votes, reductions, __syncwarp.
#include <cstring>

#include "simulation/engine/device.h"

namespace deformops::simulation {
namespace {

constexpr size_t kMaxShuffleBytes = 16;

struct ShuffleArgument {
  unsigned char value[kMaxShuffleBytes];
  unsigned char result[kMaxShuffleBytes];
  unsigned source;  // lane
};

void complete_shuffle(unsigned mask, void* const* arguments) {
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    auto& mine = *static_cast<ShuffleArgument*>(arguments[lane]);
    if ((mask >> mine.source & 1) != 0) {
      const auto& source = *static_cast<const ShuffleArgument*>(arguments[mine.source]);
      std::memcpy(mine.result, source.value, kMaxShuffleBytes);
    } else {
      // What a lane outside the mask would have given is undefined.
      std::memset(mine.result, 0xFF, kMaxShuffleBytes);
    }
  }
}

constexpr Meeting kShuffles[] = {{"__shfl_sync", false, complete_shuffle},
                                 {"__shfl_up_sync", false, complete_shuffle},
                                 {"__shfl_down_sync", false, complete_shuffle},
                                 {"__shfl_xor_sync", false, complete_shuffle}};

// The lane that `lane` reads from. Only __shfl_sync wraps round; for the others a lane whose source
// lies outside its segment of `width` lanes keeps its own value.
unsigned source_lane(Shuffle kind, int lane, int operand, int width) {
  const int segment = lane & ~(width - 1);
  int source = lane;
  switch (kind) {
    case Shuffle::kIndex:
      return static_cast<unsigned>(segment | (operand & (width - 1)));
    case Shuffle::kUp:
      source = lane - operand;
      if (source < segment) source = lane;
      break;
    case Shuffle::kDown:
      source = lane + operand;
      if (source >= segment + width) source = lane;
      break;
    case Shuffle::kXor:
      source = lane ^ operand;
      if (source >= segment + width) source = lane;  // a lower segment may be read
      break;
  }
  return static_cast<unsigned>(source);
}

struct VoteArgument {
  bool predicate;
  unsigned ballot;
};

void complete_vote(unsigned mask, void* const* arguments) {
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    if (static_cast<VoteArgument*>(arguments[lane])->predicate) ballot |= 1u << lane;
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) != 0) static_cast<VoteArgument*>(arguments[lane])->ballot = ballot;
  }
}

constexpr Meeting kVotes[] = {{"__ballot_sync", false, complete_vote},
                              {"__any_sync", false, complete_vote},
                              {"__all_sync", false, complete_vote}};

struct MatchArgument {
  uint64_t value;
  unsigned equal;
};

void complete_match(unsigned mask, void* const* arguments) {
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    auto& mine = *static_cast<MatchArgument*>(arguments[lane]);
    mine.equal = 0;
    for (unsigned other = 0; other < kWarpSize; ++other) {
      if ((mask >> other & 1) == 0) continue;
      if (static_cast<MatchArgument*>(arguments[other])->value == mine.value) {
        mine.equal |= 1u << other;
      }
    }
  }
}

constexpr Meeting kMatchAny = {"__match_any_sync", false, complete_match};

struct ReduceArgument {
  Reduction kind;
  unsigned value;
};

unsigned combine(Reduction kind, unsigned a, unsigned b) {
  const auto signed_a = static_cast<int>(a), signed_b = static_cast<int>(b);
  switch (kind) {
    case Reduction::kAdd:
      return a + b;
    case Reduction::kMin:
      return a < b ? a : b;
    case Reduction::kMax:
      return a > b ? a : b;
    case Reduction::kSignedMin:
      return signed_a < signed_b ? a : b;
    case Reduction::kSignedMax:
      return signed_a > signed_b ? a : b;
    case Reduction::kAnd:
      return a & b;
    case Reduction::kOr:
      return a | b;
    case Reduction::kXor:
      return a ^ b;
  }
  return 0;
}

void complete_reduce(unsigned mask, void* const* arguments) {
  const auto argument = [&](unsigned lane) -> ReduceArgument& {
    return *static_cast<ReduceArgument*>(arguments[lane]);
  };
  const auto first = static_cast<unsigned>(__builtin_ctz(mask));
  unsigned total = argument(first).value;
  for (unsigned lane = first + 1; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) != 0) total = combine(argument(lane).kind, total, argument(lane).value);
  }
  for (unsigned lane = first; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) != 0) argument(lane).value = total;
  }
}

constexpr Meeting kReductions[] = {
    {"__reduce_add_sync", false, complete_reduce}, {"__reduce_min_sync", false, complete_reduce},
    {"__reduce_max_sync", false, complete_reduce}, {"__reduce_min_sync", false, complete_reduce},
    {"__reduce_max_sync", false, complete_reduce}, {"__reduce_and_sync", false, complete_reduce},
    {"__reduce_or_sync", false, complete_reduce},  {"__reduce_xor_sync", false, complete_reduce}};

void complete_warp_barrier(unsigned mask, void* const*) {
  Device& device = Device::get();
  if (device.race.enabled()) device.race.warp_met(device.block.running_thread().warp(), mask);
}

constexpr Meeting kWarpBarrier = {"__syncwarp", false, complete_warp_barrier};

}  // namespace

void warp_barrier(unsigned mask, Site site) {
  Device::get().block.wait_at_meeting(kWarpBarrier, mask, nullptr, site);
}

void shuffle(Shuffle kind, unsigned mask, void* value, size_t bytes, int operand, int width,
             Site site) {
  Device& device = Device::get();
  const Meeting& meeting = kShuffles[static_cast<int>(kind)];
  if (width < 1 || width > kWarpSize || (width & (width - 1)) != 0) {
    device.fail("warp", std::string(meeting.name) + ": a width of " + std::to_string(width), site);
  }
  const auto lane = static_cast<int>(device.block.running_thread().lane());
  ShuffleArgument argument;
  std::memcpy(argument.value, value, bytes);
  argument.source = source_lane(kind, lane, operand, width);
  device.block.wait_at_meeting(meeting, mask, &argument, site);
  std::memcpy(value, argument.result, bytes);
}

unsigned vote(Vote kind, unsigned mask, bool predicate, Site site) {
  VoteArgument argument = {predicate, 0};
  Device& device = Device::get();
  device.block.wait_at_meeting(kVotes[static_cast<int>(kind)], mask, &argument, site);
  const unsigned voters = mask & device.block.lanes_of(device.block.running_thread().warp());
  switch (kind) {
    case Vote::kBallot:
      return argument.ballot;
    case Vote::kAny:
      return argument.ballot != 0 ? 1 : 0;
    case Vote::kAll:
      return argument.ballot == voters ? 1 : 0;
  }
  return 0;
}

unsigned match_any(unsigned mask, uint64_t value, Site site) {
  MatchArgument argument = {value, 0};
  Device::get().block.wait_at_meeting(kMatchAny, mask, &argument, site);
  return argument.equal;
}

unsigned reduce(Reduction kind, unsigned mask, unsigned value, Site site) {
  ReduceArgument argument = {kind, value};
  Device::get().block.wait_at_meeting(kReductions[static_cast<int>(kind)], mask, &argument, site);
  return argument.value;
}

}  // namespace deformops::simulation

#include "simulation/engine/profile.h"

#include <algorithm>

namespace deformops::simulation {
namespace {

// How many lanes the banks serve in one go.
int lanes_per_pass(size_t bytes) { return bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8; }

// If the lanes' bytes lay side by side.
uint64_t ideal_sectors(uint32_t lanes, size_t bytes) {
  const uint64_t total = static_cast<uint64_t>(__builtin_popcount(lanes)) * bytes;
  return (total + Profiler::kSectorBytes - 1) / Profiler::kSectorBytes;
}

uint64_t ideal_passes(uint32_t lanes, size_t bytes) {
  uint64_t passes = 0;
  const int step = lanes_per_pass(bytes);
  for (int lane = 0; lane < kWarpSize; lane += step) {
    const uint32_t group = step == 32 ? lanes : lanes >> lane & ((1u << step) - 1);
    passes += group != 0 ? 1 : 0;
  }
  return passes;
}

}  // namespace

void Traffic::operator+=(const Traffic& other) {
  requests += other.requests;
  partial += other.partial;
  threads += other.threads;
  bytes += other.bytes;
  transactions += other.transactions;
  ideal += other.ideal;
}

Traffic LaunchRecord::total(Space space, Motion motion) const {
  Traffic total;
  for (const InstructionTraffic& instruction : instructions) {
    if (instruction.space == space && instruction.motion == motion) total += instruction.traffic;
  }
  return total;
}

uint64_t bank_passes(const std::array<uint64_t, kWarpSize>& address, uint32_t lanes, size_t bytes) {
  uint64_t passes = 0;
  const int step = lanes_per_pass(bytes);
  for (int begin = 0; begin < kWarpSize; begin += step) {
    std::vector<uint64_t> words;
    for (int lane = begin; lane < begin + step; ++lane) {
      if ((lanes >> lane & 1) == 0) continue;
      const uint64_t at = address[static_cast<size_t>(lane)];
      for (uint64_t word = at / Profiler::kBankBytes;
           word <= (at + bytes - 1) / Profiler::kBankBytes; ++word) {
        words.push_back(word);
      }
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::array<uint64_t, Profiler::kBanks> wanted = {};
    for (uint64_t word : words) ++wanted[word % Profiler::kBanks];
    passes += *std::max_element(wanted.begin(), wanted.end());
  }
  return passes;
}

void sectors_of(const std::array<uint64_t, kWarpSize>& address, uint32_t lanes, size_t bytes,
                std::vector<uint64_t>& sectors) {
  const size_t before = sectors.size();
  for (size_t lane = 0; lane < kWarpSize; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    for (uint64_t sector = address[lane] / Profiler::kSectorBytes;
         sector <= (address[lane] + bytes - 1) / Profiler::kSectorBytes; ++sector) {
      sectors.push_back(sector);
    }
  }
  const auto begin = sectors.begin() + static_cast<std::ptrdiff_t>(before);
  std::sort(begin, sectors.end());
  sectors.erase(std::unique(begin, sectors.end()), sectors.end());
}

void Profiler::begin_launch(bool enabled) {
  enabled_ = enabled;
  instructions_.clear();
  read_.clear();
  written_.clear();
  block_sectors_read_ = block_sectors_written_ = 0;
}

void Profiler::begin_block() {
  if (!enabled_) return;
  for (Warp& warp : warps_) warp.clear();
  block_read_.clear();
  block_written_.clear();
}

void Profiler::access(const Thread& thread, uint32_t lanes_of_warp, Space space, Motion motion,
                      const void* address, size_t bytes, const void* program_counter) {
  Instruction& instruction = warps_[thread.warp()][program_counter];
  instruction.space = space;
  instruction.motion = motion;
  instruction.bytes = bytes;
  instruction.lanes_of_warp = lanes_of_warp;

  const uint32_t visit = instruction.visits[thread.lane()]++;
  const size_t at = visit - instruction.first;
  if (at >= instruction.requests.size()) instruction.requests.resize(at + 1);
  Request& request = instruction.requests[at];
  request.lanes |= 1u << thread.lane();
  request.address[thread.lane()] = reinterpret_cast<uintptr_t>(address);

  while (!instruction.requests.empty() && instruction.requests.front().lanes == lanes_of_warp) {
    account(program_counter, instruction, instruction.requests.front());
    instruction.requests.pop_front();
    ++instruction.first;
  }
}

void Profiler::account(const void* program_counter, const Instruction& instruction,
                       const Request& request) {
  if (request.lanes == 0) return;
  const auto found =
      instructions_
          .try_emplace(
              program_counter,
              InstructionTraffic{program_counter, instruction.space, instruction.motion, {}})
          .first;
  const auto lanes = static_cast<uint64_t>(__builtin_popcount(request.lanes));
  Traffic traffic;
  traffic.requests = 1;
  traffic.partial = request.lanes != instruction.lanes_of_warp ? 1 : 0;
  traffic.threads = lanes;
  traffic.bytes = lanes * instruction.bytes;
  if (instruction.space == Space::kShared) {
    traffic.transactions = bank_passes(request.address, request.lanes, instruction.bytes);
    traffic.ideal = ideal_passes(request.lanes, instruction.bytes);
  } else {
    std::vector<uint64_t> sectors;
    sectors_of(request.address, request.lanes, instruction.bytes, sectors);
    traffic.transactions = sectors.size();
    traffic.ideal = ideal_sectors(request.lanes, instruction.bytes);
    if (instruction.motion != Motion::kStore) block_read_.insert(sectors.begin(), sectors.end());
    if (instruction.motion != Motion::kLoad) block_written_.insert(sectors.begin(), sectors.end());
  }
  traffic.ideal = std::min(traffic.ideal, traffic.transactions);  // lanes may want the same bytes
  found->second.traffic += traffic;
}

void Profiler::flush(Warp& warp) {
  for (auto& [program_counter, instruction] : warp) {
    for (const Request& request : instruction.requests) {
      account(program_counter, instruction, request);
    }
  }
  warp.clear();
}

void Profiler::warp_met(unsigned warp) {
  if (enabled_) flush(warps_[warp]);
}

void Profiler::block_met() {
  if (!enabled_) return;
  for (Warp& warp : warps_) flush(warp);
}

void Profiler::end_block() {
  if (!enabled_) return;
  block_met();
  block_sectors_read_ += block_read_.size();
  block_sectors_written_ += block_written_.size();
  read_.insert(block_read_.begin(), block_read_.end());
  written_.insert(block_written_.begin(), block_written_.end());
}

void Profiler::end_launch(LaunchRecord& record) {
  record.profiled = enabled_;
  if (!enabled_) return;
  for (const auto& [program_counter, instruction] : instructions_) {
    record.instructions.push_back(instruction);
  }
  record.sectors_read = read_.size();
  record.sectors_written = written_.size();
  record.block_sectors_read = block_sectors_read_;
  record.block_sectors_written = block_sectors_written_;
  enabled_ = false;
}

}  // namespace deformops::simulation

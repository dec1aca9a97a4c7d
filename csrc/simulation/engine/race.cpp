#include "simulation/engine/race.h"

#include <algorithm>

#include "simulation/engine/device.h"

namespace deformops::simulation {
namespace {

bool of_one_warp(const Stamp& a, const Stamp& b) {
  return a.block == b.block && a.thread / kWarpSize == b.thread / kWarpSize;
}

std::string owner(const Stamp& stamp, const Block& block, uint32_t present_block) {
  if (stamp.block != present_block) return "a thread of another block";
  return "thread " + to_string(const_cast<Block&>(block).thread(stamp.thread).index);
}

std::string place_of(int32_t place) {
  const char* pc = Device::get().module->begin + place;
  std::string text;
  for (const Place& line : places_at(pc)) text += (text.empty() ? "" : " < ") + to_string(line);
  return text.empty() ? "an unknown place" : text;
}

// "byte 12 of shared `tile`", "byte 400 of `input` (read-only, 4096 bytes)".
std::string name_of(const void* address) {
  Device& device = Device::get();
  const auto at = reinterpret_cast<uintptr_t>(address);
  if (const auto* array = device.shared.find(address, 1)) {
    return "byte " + std::to_string(at - array->begin) + " of shared `" + array->name + "`";
  }
  if (const auto* region = device.regions.find(address, 1)) {
    return "byte " + std::to_string(at - region->begin) + " of " + describe(*region);
  }
  return "global memory";
}

std::string bytes_text(size_t bytes) {
  return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

}  // namespace

void RaceChecker::begin_launch(bool enabled) {
  enabled_ = enabled;
  first_block_of_launch_ = block_ + 1;
  published_.clear();
}

void RaceChecker::begin_block() {
  ++block_;
  barrier_clock_ = 0;
  for (; warps_with_seen_ != 0; warps_with_seen_ &= warps_with_seen_ - 1) {
    seen_[static_cast<size_t>(__builtin_ctz(warps_with_seen_))] = {};
  }
  fences_.clear();
  block_acquired_.clear();
}

void RaceChecker::forget(const void* data, size_t bytes) {
  shadow_.forget(data, bytes);
  const auto begin = reinterpret_cast<uintptr_t>(data), end = begin + bytes;
  std::vector<Range> left;
  for (const Range& range : written_by_host_) {
    const Range below = {range.begin, std::min(range.end, begin)};
    const Range above = {std::max(range.begin, end), range.end};
    if (below.begin < below.end) left.push_back(below);
    if (above.begin < above.end) left.push_back(above);
  }
  written_by_host_ = std::move(left);
}

void RaceChecker::forget_everything() {
  shadow_.forget_everything();
  written_by_host_.clear();
}

void RaceChecker::host_wrote(const void* data, size_t bytes) {
  forget(data, bytes);
  const auto begin = reinterpret_cast<uintptr_t>(data);
  written_by_host_.push_back({begin, begin + bytes});
}

bool RaceChecker::host_wrote_at(const void* address) const {
  const auto at = reinterpret_cast<uintptr_t>(address);
  return std::any_of(written_by_host_.begin(), written_by_host_.end(),
                     [&](const Range& range) { return at >= range.begin && at < range.end; });
}

Stamp RaceChecker::stamp_of(const Thread& thread, Kind kind, const void* pc) const {
  const auto place = static_cast<const char*>(pc) - Device::get().module->begin;
  return {block_,
          thread.clock,
          static_cast<int32_t>(place),
          static_cast<uint16_t>(thread.linear),
          kind == Kind::kAtomic,
          false};
}

bool RaceChecker::knows(const KnownBlocks& known, const Stamp& stamp) {
  const auto found = known.find(stamp.block);
  if (found == known.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(), [&](const Knowledge& knowledge) {
    return stamp.clock < knowledge.barrier_clock ||
           (stamp.thread == knowledge.thread && stamp.clock < knowledge.clock);
  });
}

void RaceChecker::merge(KnownBlocks& into, const KnownBlocks& from) {
  for (const auto& [block, knowledge] : from) {
    std::vector<Knowledge>& known = into[block];
    known.insert(known.end(), knowledge.begin(), knowledge.end());
  }
}

bool RaceChecker::happened_before(const Stamp& stamp, const Thread& thread) const {
  if (stamp.block == block_) {
    if (stamp.thread == thread.linear || stamp.clock < barrier_clock_) return true;
    if (stamp.thread / kWarpSize != thread.warp()) return false;
    return stamp.clock < seen_[thread.warp()][thread.lane()][stamp.thread % kWarpSize];
  }
  if (stamp.block < first_block_of_launch_) return true;
  if (block_acquired_.empty() && fences_.empty()) return false;
  if (knows(block_acquired_, stamp)) return true;
  const auto fence = fences_.find(thread.linear);
  return fence != fences_.end() && knows(fence->second.acquired, stamp);
}

RaceChecker::Space RaceChecker::classify(const void* address, size_t bytes, bool write) {
  Device& device = Device::get();
  const std::string verb = write ? "write" : "read";
  const char* at = static_cast<const char*>(address);
  if (device.shared.contains(address)) {
    if (device.shared.find(address, bytes) == nullptr) {
      device.fail("out of bounds",
                  verb + " of " + bytes_text(bytes) + ", " + device.shared.describe(address));
    }
    return Space::kShared;
  }
  const auto* arguments = static_cast<const char*>(device.current->arguments);
  if (at >= arguments && at + bytes <= arguments + device.current->argument_bytes) {
    if (write) device.fail("read only", "write to the kernel's parameters");
    return Space::kOther;
  }
  if (device.module->contains(at)) return Space::kGlobal;
  if (device.regions.fenced()) {
    const Regions::Region* region = device.regions.find(address, bytes);
    if (region == nullptr) {
      device.fail("out of bounds",
                  verb + " of " + bytes_text(bytes) + ", " + device.regions.describe(address));
    }
    if (write && region->memory == Memory::kReadOnly) {
      device.fail("read only", "write of " + bytes_text(bytes) + " to " + name_of(address));
    }
    return region->memory == Memory::kUninitialized ? Space::kFresh : Space::kGlobal;
  }
  return Space::kGlobal;
}

void RaceChecker::report_race(const Stamp& earlier, bool earlier_writes, bool write,
                              const void* address) {
  Device& device = Device::get();
  if (earlier.in_flight) {
    device.fail("async copy", std::string(write ? "write to " : "read of ") + name_of(address) +
                                  ", which the cp.async of " +
                                  owner(earlier, device.block, block_) + " at " +
                                  place_of(earlier.place) + " may still be filling");
  }
  device.fail("race", std::string(write ? "write to " : "read of ") + name_of(address) +
                          ", not ordered with the " + (earlier.atomic ? "atomic " : "") +
                          (earlier_writes ? "write" : "read") + " by " +
                          owner(earlier, device.block, block_) + " at " + place_of(earlier.place));
}

void RaceChecker::check(const Cell& cell, const Thread& thread, bool write, Kind kind,
                        const void* address) {
  const auto refuse_unordered = [&](const Stamp& earlier, bool earlier_writes) {
    if (!earlier.exists()) return;
    if (!earlier.in_flight) {
      if (earlier.atomic && kind == Kind::kAtomic) return;
      if (happened_before(earlier, thread)) return;
    }
    report_race(earlier, earlier_writes, write, address);
  };
  refuse_unordered(cell.write, true);
  refuse_unordered(cell.other_write, true);
  if (!write) return;
  refuse_unordered(cell.read, false);
  refuse_unordered(cell.other_read, false);
}

void RaceChecker::remember(Stamp& latest, Stamp& other, const Stamp& now, const Thread& thread) {
  const Stamp before = latest;
  latest = now;
  if (before.exists() && before.same_thread(now)) {
    // At one clock nothing tells the two apart later: together they are as strict as the stricter.
    if (before.clock == now.clock) latest.atomic &= before.atomic;
  } else if (before.exists() && !happened_before(before, thread)) {
    const bool other_is_better =
        other.exists() && !of_one_warp(other, now) && of_one_warp(before, now);
    if (!other_is_better) other = before;
  }
  if (other.exists() && (other.same_thread(now) || happened_before(other, thread))) other = {};
}

void RaceChecker::access(Thread& thread, const void* address, size_t bytes, Effect effect,
                         Kind kind, const void* pc) {
  const bool write = effect != Effect::kRead;
  const Space space = classify(address, bytes, write);
  if (space == Space::kOther) return;
  const Stamp now = stamp_of(thread, kind, pc);
  const bool must_be_written = effect != Effect::kWrite && space != Space::kGlobal;

  // A struct is often written field by field and read as a whole, padding included. Padding shares
  // its aligned 8 bytes with a field: so it takes 8 bytes of which none was written to complain.
  uintptr_t word = ~uintptr_t{0};
  const void* word_begin = address;
  bool word_written = true;
  const auto finish_word = [&] {
    if (word_written) return;
    Device::get().fail("unwritten read",
                       "read of " + name_of(word_begin) + ", which no thread has written");
  };

  shadow_.visit(address, bytes, [&](Cell& cell, const void* at) {
    if (space == Space::kShared && cell.write.block != block_) {
      // Shared memory does not outlive its block.
      if (cell.write.exists() || cell.read.block != block_) cell = {};
    }
    if (must_be_written) {
      if (reinterpret_cast<uintptr_t>(at) / 8 != word) {
        finish_word();
        word = reinterpret_cast<uintptr_t>(at) / 8;
        word_begin = at;
        word_written = false;
      }
      word_written |= cell.write.exists() || host_wrote_at(at);
    }
    check(cell, thread, write, kind, at);
    if (!write) {
      remember(cell.read, cell.other_read, now, thread);
    } else if (kind == Kind::kAtomic) {
      remember(cell.write, cell.other_write, now, thread);
    } else {
      cell = {now, {}, {}, {}};
    }
  });
  if (must_be_written) finish_word();
}

void RaceChecker::read(Thread& thread, const void* address, size_t bytes, Kind kind,
                       const void* pc) {
  access(thread, address, bytes, Effect::kRead, kind, pc);
  if (kind == Kind::kAtomic) acquire_later(thread, address);
}

void RaceChecker::write(Thread& thread, const void* address, size_t bytes, Kind kind,
                        const void* pc) {
  access(thread, address, bytes, Effect::kWrite, kind, pc);
  if (kind == Kind::kAtomic) publish(thread, address);
}

void RaceChecker::update(Thread& thread, const void* address, size_t bytes, const void* pc) {
  access(thread, address, bytes, Effect::kUpdate, Kind::kAtomic, pc);
  acquire_later(thread, address);
  publish(thread, address);
}

void RaceChecker::fence(Thread& thread) {
  FenceState& state = fences_[thread.linear];
  merge(state.acquired, state.pending);
  state.pending.clear();

  ++thread.clock;  // what comes after the fence is not published by it
  state.released = state.acquired;
  merge(state.released, block_acquired_);
  state.released[block_] = {{barrier_clock_, static_cast<uint16_t>(thread.linear), thread.clock}};
}

void RaceChecker::acquire_later(Thread& thread, const void* address) {
  const auto found = published_.find(reinterpret_cast<uintptr_t>(address));
  if (found != published_.end()) merge(fences_[thread.linear].pending, found->second);
}

void RaceChecker::publish(Thread& thread, const void* address) {
  const auto fence = fences_.find(thread.linear);
  if (fence == fences_.end() || fence->second.released.empty()) return;
  merge(published_[reinterpret_cast<uintptr_t>(address)], fence->second.released);
}

void RaceChecker::begin_copy(Thread& thread, const AsyncCopy& copy) {
  write(thread, copy.shared, static_cast<size_t>(copy.bytes), Kind::kPlain, copy.program_counter);
  read_source(thread, copy);
  shadow_.visit(copy.shared, static_cast<size_t>(copy.bytes),
                [](Cell& cell, const void*) { cell.write.in_flight = true; });
}

void RaceChecker::end_copy(Thread& thread, const AsyncCopy& copy) {
  read_source(thread, copy);
  const Stamp now = stamp_of(thread, Kind::kPlain, copy.program_counter);
  shadow_.visit(copy.shared, static_cast<size_t>(copy.bytes),
                [&](Cell& cell, const void*) { cell = {now, {}, {}, {}}; });
}

void RaceChecker::read_source(Thread& thread, const AsyncCopy& copy) {
  if (copy.source_bytes == 0) return;
  read(thread, copy.global, static_cast<size_t>(copy.source_bytes), Kind::kPlain,
       copy.program_counter);
}

void RaceChecker::block_met() {
  Block& block = Device::get().block;
  for (unsigned i = 0; i < block.size(); ++i) {
    barrier_clock_ = std::max(barrier_clock_, block.thread(i).clock);
  }
  ++barrier_clock_;
  for (unsigned i = 0; i < block.size(); ++i) block.thread(i).clock = barrier_clock_;
  for (const auto& [thread, state] : fences_) merge(block_acquired_, state.acquired);
}

void RaceChecker::warp_met(unsigned warp, unsigned mask) {
  Block& block = Device::get().block;
  Seen& seen = seen_[warp];
  warps_with_seen_ |= 1u << warp;

  std::array<uint32_t, kWarpSize> together = {};
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    for (unsigned other = 0; other < kWarpSize; ++other) {
      together[other] = std::max(together[other], seen[lane][other]);
    }
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) != 0) together[lane] = ++block.thread(warp * kWarpSize + lane).clock;
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) != 0) seen[lane] = together;
  }
}

}  // namespace deformops::simulation

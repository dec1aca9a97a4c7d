// Race, bounds and initialization checker: sees every access of a kernel whose library was compiled
// with the compiler's thread-sanitizer hooks (../hooks/accesses.cpp).
//
// Two accesses to one place by different threads, of which at least one writes, are a race unless
// one of them *happens before* the other or both are atomic. On a GPU the order comes from few
// things:
//
//   - a thread's own program order;
//   - __syncthreads: everything a block did before it, before everything the block does after it;
//   - __syncwarp(mask): the same among the lanes of the mask, and no others;
//   - the end of a kernel: before the next kernel of the stream;
//   - __threadfence with an atomic on each side: what a thread knew at its fence, before what
//   another
//     does after a fence that follows an atomic which came later on the same variable.
//
// Shuffles, votes, ldmatrix and mma order no memory, and blocks of one launch are in no order at
// all. That is decided here by logical clocks, so a race is found whatever the schedule happened to
// be.
//
// Clocks: each thread has one; it is stamped on its accesses and moves on at its barriers. At a
// block barrier all clocks of the block move to one common value, barrier_clock: whatever is
// stamped below that value is over for everybody in the block. Within a warp, seen[i][j] says up to
// which clock of lane j lane i has synchronized.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "simulation/engine/shadow.h"
#include "simulation/engine/thread.h"

namespace deformops::simulation {

class RaceChecker {
 public:
  enum class Kind : uint8_t { kPlain, kAtomic };

  // `enabled`: whether the kernel's library tells of its accesses.
  void begin_launch(bool enabled);
  bool enabled() const { return enabled_; }
  void begin_block();
  // Forgets what happened to memory: an earlier owner's doings are not its own.
  void forget(const void* data, size_t bytes);
  void forget_everything();
  void host_wrote(const void* data, size_t bytes);

  // --- by the running thread ---
  void read(Thread& thread, const void* address, size_t bytes, Kind kind, const void* pc);
  void write(Thread& thread, const void* address, size_t bytes, Kind kind, const void* pc);
  // Read and written atomically; an acquire and release when there are fences round it.
  void update(Thread& thread, const void* address, size_t bytes, const void* pc);
  void fence(Thread& thread);
  // From its issue until it is waited for, nobody may touch the target of an asynchronous copy.
  void begin_copy(Thread& thread, const AsyncCopy& copy);
  void end_copy(Thread& thread, const AsyncCopy& copy);

  // --- when threads have met ---
  void block_met();
  void warp_met(unsigned warp, unsigned mask);

 private:
  enum class Space {
    kShared,
    kFresh,  // global memory that holds nothing before it is written
    kGlobal,
    kOther,  // nothing to race for
  };

  // Of a block's doings, those that are published: the whole block's below barrier_clock, and one
  // thread's below its clock.
  struct Knowledge {
    uint32_t barrier_clock;
    uint16_t thread;
    uint32_t clock;
  };
  using KnownBlocks = std::unordered_map<uint32_t, std::vector<Knowledge>>;
  struct FenceState {
    KnownBlocks released;  // by the last fence: to be published by the next atomic
    KnownBlocks pending;   // read by atomics: to be acquired by the next fence
    KnownBlocks acquired;
  };

  // Refuses what lies outside of everything, and says whether there is something to race for.
  Space classify(const void* address, size_t bytes, bool write);
  bool happened_before(const Stamp& stamp, const Thread& thread) const;
  static bool knows(const KnownBlocks& known, const Stamp& stamp);
  static void merge(KnownBlocks& into, const KnownBlocks& from);
  enum class Effect { kRead, kWrite, kUpdate };
  void access(Thread& thread, const void* address, size_t bytes, Effect effect, Kind kind,
              const void* pc);
  void check(const Cell& cell, const Thread& thread, bool write, Kind kind, const void* address);
  [[noreturn]] void report_race(const Stamp& earlier, bool earlier_writes, bool write,
                                const void* address);
  // Puts `now` in the place of `latest`, and keeps that as `other` if a later access may need it.
  void remember(Stamp& latest, Stamp& other, const Stamp& now, const Thread& thread);
  void acquire_later(Thread& thread, const void* address);
  void publish(Thread& thread, const void* address);
  void read_source(Thread& thread, const AsyncCopy& copy);
  Stamp stamp_of(const Thread& thread, Kind kind, const void* pc) const;

  bool enabled_ = false;
  Shadow shadow_;
  struct Range {
    uintptr_t begin;
    uintptr_t end;
  };
  std::vector<Range> written_by_host_;  // by no block, that is; disjoint
  bool host_wrote_at(const void* address) const;

  // Blocks are numbered through over all launches, so that old stamps need not be wiped.
  uint32_t block_ = 0;
  uint32_t first_block_of_launch_ = 1;

  uint32_t barrier_clock_ = 0;
  using Seen = std::array<std::array<uint32_t, kWarpSize>, kWarpSize>;
  std::array<Seen, kMaxThreads / kWarpSize> seen_ = {};
  uint32_t warps_with_seen_ = 0;  // those whose matrix is not all zero

  // The last-block pattern is rare: these stay empty in nearly every launch.
  std::unordered_map<unsigned, FenceState> fences_;       // by thread of the block
  KnownBlocks block_acquired_;                            // by all threads, through a barrier
  std::unordered_map<uintptr_t, KnownBlocks> published_;  // by the address of the atomic
};

}  // namespace deformops::simulation

// The block that is being executed: its threads, who runs next, and where they meet.
#pragma once

#include <pthread.h>

#include <array>
#include <memory>
#include <vector>

#include "simulation/engine/random.h"
#include "simulation/engine/thread.h"

namespace deformops::simulation {

class Block {
 public:
  Block();

  // Runs `threads` threads until all have exited, one has failed, or none can go on (a failure
  // too).
  void run(dim3 extent, Random& random, bool fixed_order);

  // --- called by the running thread ---
  // All threads of the block meet; the result is that of __syncthreads_count, _and or _or.
  int wait_at_barrier(BarrierResult result, int predicate, Site site);
  // The lanes of `mask` meet.
  void wait_at_meeting(const Meeting& meeting, unsigned mask, void* argument, Site site);
  // Lets somebody else run.
  void yield();
  // Never comes back; the block ends.
  [[noreturn]] void abandon();

  Thread& running_thread() { return *static_cast<Thread*>(running.thread); }
  Thread& thread(unsigned linear) { return threads_[linear]; }
  unsigned size() const { return size_; }
  unsigned exited() const { return exited_; }
  // Lanes of a warp that exist (a block need not be a multiple of 32).
  unsigned lanes_of(unsigned warp) const;

 private:
  static void thread_main();
  void exit_thread();
  void release_barrier();
  void make_ready(Thread& thread);
  Thread* pick();
  // Continues `next`, or the host where there is none, and returns when the caller is continued.
  void switch_from(Thread& thread, Thread* next);
  void enter(Thread& thread);
  [[noreturn]] void leave_for_good(Thread& thread, Thread* next);
  void check_mask(const Meeting& meeting, unsigned mask, Site site);
  void refuse_contradiction(const Meeting& meeting, unsigned mask, Site site);
  void report_deadlock();
  void find_host_stack();

  std::unique_ptr<Thread[]> threads_;
  unsigned size_ = 0;
  unsigned exited_ = 0;
  unsigned waiting_ = 0;  // at the block's barrier
  Thread* first_waiting_ = nullptr;

  // Lanes of a warp that wait for one another.
  struct Gathering {
    const Meeting* meeting;
    unsigned mask;
    unsigned arrived;
    Site site;  // of the first
  };
  std::array<std::vector<Gathering>, kMaxThreads / kWarpSize> gatherings_;
  std::array<uint32_t, kMaxThreads / kWarpSize> exited_lanes_ = {};

  // Threads that can run: one bit each, and one bit for each warp that has any.
  std::array<uint32_t, kMaxThreads / kWarpSize> ready_lanes_ = {};
  uint32_t ready_warps_ = 0;
  unsigned warp_ = 0;       // that ran last
  double change_warp_ = 1;  // chance of leaving it while it could go on
  Random* random_ = nullptr;
  bool fixed_order_ = true;

  StackPool stacks_;
  Context host_context_;
  pthread_t host_ = 0;  // whose stack is known
  void* host_fake_stack_ = nullptr;
  const void* host_stack_low_ = nullptr;
  size_t host_stack_bytes_ = 0;
};

}  // namespace deformops::simulation

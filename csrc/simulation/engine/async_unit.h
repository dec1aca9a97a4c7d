// Copies from global to shared memory that run beside the threads (cp.async).
//
// A copy may land at any moment between its issue and the wait for its group. Forgetting the wait
// shows when it lands late, overwriting a buffer that others still read shows when it lands early.
// So it is drawn: late, at once, or, copy by copy, either. The race checker needs no luck: for it
// the target is taboo all the while.
#pragma once

#include "simulation/engine/random.h"
#include "simulation/engine/thread.h"

namespace deformops::simulation {

class AsyncUnit {
 public:
  void begin_block(Random& random, bool always_late);
  void issue(Thread& thread, const AsyncCopy& copy);
  void commit(Thread& thread) { ++thread.groups; }
  // All but the newest `pending` groups of the thread are complete when it returns.
  void wait(Thread& thread, unsigned pending);

 private:
  void land(Thread& thread, const AsyncCopy& copy);

  Random* random_ = nullptr;
  double late_ = 1;
};

}  // namespace deformops::simulation

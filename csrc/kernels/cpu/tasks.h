// Work that threads take one piece after the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/context.h"
#include "core/parallel.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// The threads of one call.
class Team {
 public:
  // `operations` of the whole call, in multiply-adds or memory accesses. A thread that has less
  // than some microseconds of them to do costs more than it brings.
  explicit Team(int64_t operations)
      : threads_(larger(1, smaller(num_threads(), operations / kWorthAThread))) {}

  int64_t threads() const { return threads_; }

  // Threads that share so many tasks: at most this many workspaces are in use at once.
  int64_t workers(int64_t tasks) const { return larger(1, smaller(threads_, tasks)); }

  // Calls body(task, worker) for every task, 0 <= worker < workers(tasks). Tasks are handed out as
  // workers become free, because cores are shared with others; a result must not depend on who
  // computed it.
  template <class Body>
  void for_each(int64_t tasks, const Body& body) const {
    if (workers(tasks) == 1) {
      for (int64_t task = 0; task < tasks; ++task) body(task, 0);
      return;
    }
    int64_t next = 0;
    parallel_for(0, workers(tasks), 1, [&](int64_t first, int64_t last) {
      for (int64_t worker = first; worker < last; ++worker) {
        for (;;) {
          const int64_t task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
          if (task >= tasks) break;
          body(task, worker);
        }
      }
    });
  }

 private:
  static constexpr int64_t kWorthAThread = int64_t{1} << 20;

  int64_t threads_;
};

// Uninitialised scratch memory, aligned to a cache line.
template <class C>
DEFORMOPS_INLINE C* allocate(const Context& context, int64_t count) {
  return static_cast<C*>(
      context.scratch->allocate(static_cast<size_t>(larger(count, 1)) * sizeof(C)));
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

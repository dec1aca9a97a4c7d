// Work that threads take one piece after the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/context.h"
#include "core/parallel.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Threads for `tasks` pieces; at most this many workspaces are in use at once.
DEFORMOPS_INLINE int64_t worker_count(int64_t tasks) {
  return larger(1, smaller(num_threads(), tasks));
}

// Calls body(task, worker) for every task, 0 <= worker < worker_count(tasks). Tasks are handed out
// as workers become free, because cores are shared with others; a result must not depend on who
// computed it.
template <class Body>
void for_each_task(int64_t tasks, const Body& body) {
  const int64_t workers = worker_count(tasks);
  if (workers == 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
  int64_t next = 0;
  parallel_for(0, workers, 1, [&](int64_t first, int64_t last) {
    for (int64_t worker = first; worker < last; ++worker) {
      for (;;) {
        const int64_t task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
        if (task >= tasks) break;
        body(task, worker);
      }
    }
  });
}

// Uninitialised scratch memory, aligned to a cache line.
template <class C>
DEFORMOPS_INLINE C* allocate(const Context& context, int64_t count) {
  return static_cast<C*>(
      context.scratch->allocate(static_cast<size_t>(larger(count, 1)) * sizeof(C)));
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

// The order of splat and blur: all axes sweep through the vertices together.
//
// The neighbours of vertices that come one after the other, do so too (keys grow by one number),
// and lie near: a coordinate next to the first one. So an axis may follow the one before it at a
// short distance, and finds what that has written still in the cache, instead of coming back to it
// after all vertices. Vertices are cut into chunks; a task is one chunk of one stage (stage 0 is
// the splat, the others are axes), and waits for those chunks of the stage before that it reads, or
// that were read from the memory which it overwrites: rows of two stages live in two arrays by
// turns. Tasks are listed so that whatever one waits for comes before it. Threads take them in that
// order, hence nobody waits for a task that nobody has taken.
#pragma once

#include <sched.h>

#include <cstdint>

#include "kernels/cpu/tasks.h"
#include "kernels/lattice.h"

namespace deformops::cpu::DEFORMOPS_ISA {

class Waves {
 public:
  // `row_bytes` of a vertex.
  Waves(const Context& context, const Lattice& lattice, bool reverse, int64_t row_bytes,
        int64_t threads)
      : vertices_(lattice.start.sizes[0] - 1),
        stages_(lattice.neighbor.sizes[0] + 1),
        chunk_(larger(64, smaller(kChunkBytes / row_bytes, vertices_ / (16 * threads)))),
        chunks_(divide_up(vertices_, chunk_)),
        tasks_(allocate<Task>(context, stages_ * chunks_)),
        done_(allocate<uint32_t>(context, stages_ * chunks_)) {
    memset(done_, 0, static_cast<size_t>(stages_ * chunks_) * sizeof(uint32_t));
    Reach* const reaches = allocate<Reach>(context, stages_ * chunks_);
    for (int64_t stage = 1; stage < stages_; ++stage) {
      const int64_t axis = reverse ? stages_ - 1 - stage : stage - 1;
      for (int64_t c = 0; c < chunks_; ++c) {
        reaches[stage * chunks_ + c] = reach_of(lattice.neighbor, axis, c);
      }
    }
    list_tasks(context, reaches, threads);
  }

  int64_t tasks() const { return stages_ * chunks_; }

  // Before tasks are run, and run again.
  void begin_sweep() { ++sweep_; }

  // Does one task, body(stage, first vertex, end), when those before it are done.
  template <class Body>
  DEFORMOPS_INLINE void run(int64_t number, const Body& body) const {
    const Task task = tasks_[number];
    for (int64_t c = task.first; c <= task.last; ++c) wait_for(task.stage - 1, c);
    body(task.stage, task.chunk * chunk_, smaller(vertices_, (task.chunk + 1) * chunk_));
    __atomic_store_n(done_ + task.stage * chunks_ + task.chunk, sweep_, __ATOMIC_RELEASE);
  }

 private:
  // What a thread's share of a second-level cache holds besides neighbours and points.
  static constexpr int64_t kChunkBytes = int64_t{384} << 10;

  struct Reach {
    int64_t first, last;  // chunks with neighbours
  };
  struct Task {
    int64_t stage, chunk;
    int64_t first, last;  // chunks of the stage before; none if first > last
  };

  // Neighbours on one side rise with the vertices, so the outermost say where all are.
  Reach reach_of(const View<const int32_t, 3>& neighbor, int64_t axis, int64_t c) const {
    int64_t first = c * chunk_, last = smaller(vertices_, first + chunk_) - 1;
    Reach reach = {c, c};
    const int32_t* const near = neighbor.data + axis * neighbor.strides[0];
    for (int side = 0; side < 2; ++side) {
      int64_t low = first, high = last;
      while (low <= high && near[2 * low + side] < 0) ++low;
      while (high > low && near[2 * high + side] < 0) --high;
      if (low > high) continue;
      reach.first = smaller(reach.first, near[2 * low + side] / chunk_);
      reach.last = larger(reach.last, near[2 * high + side] / chunk_);
    }
    return reach;
  }

  // In rounds: the splat of some chunks, then as many chunks of each axis as the rounds before
  // allow, the last axis first. Several chunks a round leave threads room to be late.
  void list_tasks(const Context& context, const Reach* reaches, int64_t threads) {
    const int64_t share = threads == 1 ? 1 : 2 * threads;
    int64_t* const next = allocate<int64_t>(context, stages_);
    for (int64_t stage = 0; stage < stages_; ++stage) next[stage] = 0;
    for (int64_t listed = 0; listed < tasks();) {
      for (int64_t stage = stages_ - 1; stage >= 0; --stage) {
        for (int64_t taken = 0; taken < share && next[stage] < chunks_; ++taken) {
          const int64_t c = next[stage];
          Reach needed = {0, -1};
          if (stage > 0) needed = reaches[stage * chunks_ + c];
          if (stage > 1) {
            const Reach& before = reaches[(stage - 1) * chunks_ + c];
            needed = {smaller(needed.first, before.first), larger(needed.last, before.last)};
          }
          if (stage > 0 && needed.last >= next[stage - 1]) break;
          tasks_[listed++] = {stage, c, needed.first, needed.last};
          ++next[stage];
        }
      }
    }
  }

  void wait_for(int64_t stage, int64_t c) const {
    const uint32_t* const flag = done_ + stage * chunks_ + c;
    for (int turns = 0; __atomic_load_n(flag, __ATOMIC_ACQUIRE) != sweep_; ++turns) {
      if (turns > 20000) sched_yield();
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }

  int64_t vertices_, stages_, chunk_, chunks_;
  Task* tasks_;
  uint32_t* done_;
  uint32_t sweep_ = 0;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

// The order of splat and blur: all axes sweep through the vertices together, in place.
//
// The neighbours of vertices that come one after the other, do so too (keys grow by one number),
// and lie near: a coordinate next to the first one. So an axis may follow the one before it at a
// short distance: it finds what that has written still in the cache, instead of coming back to it
// after all vertices, and may write over what has been read for the last time. One array serves all
// stages (stage 0 is the splat, the others are axes), each of which leaves its rows a little
// further to the front of it than the one before.
//
// Vertices are cut into chunks; a task is one chunk of one stage. It waits for those chunks of the
// stage before that it reads, and for the chunks of its own stage, all but the last few: the shift
// spares what these may still read. Tasks are listed so that whatever one waits for comes before
// it. Threads take them in that order, hence nobody waits for a task that nobody has taken.
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
        lag_(threads == 1 ? 0 : 2 * threads),
        chunk_(
            larger(64, smaller(kChunkBytes / row_bytes, vertices_ / (4 * stages_ * (lag_ + 1))))),
        chunks_(divide_up(vertices_, chunk_)),
        tasks_(allocate<Task>(context, stages_ * chunks_)),
        done_(allocate<uint32_t>(context, stages_ * chunks_)),
        shift_(allocate<int64_t>(context, stages_)) {
    memset(done_, 0, static_cast<size_t>(stages_ * chunks_) * sizeof(uint32_t));
    Reach* const reaches = allocate<Reach>(context, stages_ * chunks_);
    shift_[stages_ - 1] = 0;
    for (int64_t stage = stages_ - 1; stage > 0; --stage) {
      const int64_t axis = reverse ? stages_ - 1 - stage : stage - 1;
      int64_t farthest = 0;
      for (int64_t c = 0; c < chunks_; ++c) {
        const Reach reach = reach_of(lattice.neighbor, axis, c);
        reaches[stage * chunks_ + c] = reach;
        farthest = larger(farthest, c - reach.first);
      }
      shift_[stage - 1] = shift_[stage] + (farthest + lag_ + 1) * chunk_;
    }
    list_tasks(context, reaches);
  }

  // How far behind their last place in the array the rows of a stage begin, in rows.
  int64_t shift(int64_t stage) const { return shift_[stage]; }

  int64_t tasks() const { return stages_ * chunks_; }

  // Before tasks are run, and run again.
  void begin_sweep() { ++sweep_; }

  // Does one task, body(stage, first vertex, end), when those before it are done.
  template <class Body>
  DEFORMOPS_INLINE void run(int64_t number, const Body& body) const {
    const Task task = tasks_[number];
    for (int64_t c = task.first; c <= task.last; ++c) wait_for(task.stage - 1, c);
    // The last lag_ chunks may still be at work. Those before are done: these have waited for them.
    for (int64_t c = larger(0, task.chunk - 2 * lag_ - 1); c < task.chunk - lag_; ++c) {
      wait_for(task.stage, c);
    }
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
    int64_t first, last;  // chunks of the stage before that are read; none if first > last
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
  void list_tasks(const Context& context, const Reach* reaches) {
    int64_t* const next = allocate<int64_t>(context, stages_);
    for (int64_t stage = 0; stage < stages_; ++stage) next[stage] = 0;
    for (int64_t listed = 0; listed < tasks();) {
      for (int64_t stage = stages_ - 1; stage >= 0; --stage) {
        for (int64_t taken = 0; taken < larger(1, lag_) && next[stage] < chunks_; ++taken) {
          const int64_t c = next[stage];
          const Reach read = stage > 0 ? reaches[stage * chunks_ + c] : Reach{0, -1};
          if (stage > 0 && read.last >= next[stage - 1]) break;
          tasks_[listed++] = {stage, c, read.first, read.last};
          ++next[stage];
        }
      }
    }
  }

  void wait_for(int64_t stage, int64_t c) const {
    const uint32_t* const flag = done_ + stage * chunks_ + c;
    for (int turns = 0; __atomic_load_n(flag, __ATOMIC_ACQUIRE) != sweep_; ++turns) {
      if (turns > 1000) sched_yield();
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }

  int64_t vertices_, stages_;
  int64_t lag_;  // chunks of a stage that threads may be at work on
  int64_t chunk_, chunks_;
  Task* tasks_;
  uint32_t* done_;
  int64_t* shift_;
  uint32_t sweep_ = 0;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

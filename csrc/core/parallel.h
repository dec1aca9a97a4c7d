// Threads. Kernels know this declaration; csrc/ops defines it with torch's own pool, so that
// torch.set_num_threads holds and no second pool competes for the cores.
#pragma once

#include <cstdint>

namespace deformops {

int num_threads();

using ParallelBody = void (*)(const void* context, int64_t begin, int64_t end);
void parallel_for(int64_t begin, int64_t end, int64_t grain, ParallelBody body,
                  const void* context);

// Calls body(begin, end) on disjoint ranges that cover [begin, end), each of at least grain (the
// last may be shorter). How the range is cut depends on the number of threads, so a result must not
// depend on it.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  parallel_for(
      begin, end, grain,
      [](const void* context, int64_t first, int64_t last) {
        (*static_cast<const Body*>(context))(first, last);
      },
      &body);
}

}  // namespace deformops

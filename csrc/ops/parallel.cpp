// core/parallel.h with torch's thread pool behind it.
#include "core/parallel.h"

#include <torch/csrc/stable/ops.h>

namespace deformops {

int num_threads() { return static_cast<int>(torch::stable::get_num_threads()); }

void parallel_for(int64_t begin, int64_t end, int64_t grain, ParallelBody body,
                  const void* context) {
  torch::stable::parallel_for(begin, end, grain,
                              [&](int64_t first, int64_t last) { body(context, first, last); });
}

}  // namespace deformops

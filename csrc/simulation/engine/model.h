// Which GPU is simulated, where that shows in limits.
#pragma once

namespace deformops::simulation {

struct Model {
  int multiprocessors;
  int threads_per_multiprocessor;
  int blocks_per_multiprocessor;
  int shared_bytes_per_block;
  int shared_bytes_per_multiprocessor;
};

#if DEFORMOPS_SIMULATED_ARCH >= 800
inline constexpr Model kModel = {108, 2048, 32, 163 << 10, 164 << 10};  // A100
#else
inline constexpr Model kModel = {40, 1024, 16, 64 << 10, 64 << 10};  // T4
#endif

}  // namespace deformops::simulation

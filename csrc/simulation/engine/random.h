// The generator that draws schedules (splitmix64): one word of state, so that a seed and the number
// of a launch name a schedule.
#pragma once

#include <cmath>
#include <cstdint>

namespace deformops::simulation {

class Random {
 public:
  explicit Random(uint64_t seed = 0, uint64_t stream = 0) : state_(seed) {
    state_ = next() + stream * 0x9e3779b97f4a7c15u;
  }

  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // In [0, count).
  uint64_t below(uint64_t count) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * count) >> 64);
  }

  // In (0, 1].
  double uniform() { return static_cast<double>((next() >> 11) + 1) * 0x1p-53; }

  bool chance(double probability) { return uniform() <= probability; }

  // The number of trials up to and including the first success.
  uint64_t geometric(double probability) {
    if (probability <= 0) return ~uint64_t{0};
    if (probability >= 1) return 1;
    return 1 + static_cast<uint64_t>(std::log(uniform()) / std::log1p(-probability));
  }

  // One of the set bits of a nonzero mask, as its index.
  int set_bit(uint32_t mask) {
    for (uint64_t skip = below(static_cast<uint64_t>(__builtin_popcount(mask))); skip > 0; --skip) {
      mask &= mask - 1;
    }
    return __builtin_ctz(mask);
  }

 private:
  uint64_t state_;
};

}  // namespace deformops::simulation

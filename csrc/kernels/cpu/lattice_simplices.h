// The simplices of kLanes points at a time, for a number of features known when compiling, or not.
#pragma once

#include <cstdint>

#include "core/view.h"
#include "geometry/lattice.h"
#include "kernels/cpu/lattice_rows.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Points [first, first + count), count <= kLanes<T>; the lanes behind repeat the last of them.
// kFeatures is 0 where the number is known at run time only.
template <class T, int kFeatures>
class SimplexBlock {
 public:
  static constexpr int kPoints = kLanes<T>;

  explicit SimplexBlock(const View<const T, 3>& features)
      : features_(features), d_(static_cast<int>(features.sizes[2])) {
    lattice_scales(d(), scales_);
    share_ = T(1) / static_cast<T>(d() + 1);
  }

  DEFORMOPS_INLINE int d() const { return kFeatures > 0 ? kFeatures : d_; }
  DEFORMOPS_INLINE const T* scales() const { return scales_; }
  DEFORMOPS_INLINE T share() const { return share_; }

  DEFORMOPS_INLINE void lift_points(int64_t first, int64_t count) {
    const T* rows[kPoints];
    for (int lane = 0; lane < kPoints; ++lane) {
      const int64_t p = first + smaller(lane, count - 1);
      rows[lane] = features_.data + p / features_.sizes[1] * features_.strides[0] +
                   p % features_.sizes[1] * features_.strides[1];
    }
    lift(
        d(), scales_, [&](int i, int lane) { return rows[lane][i * features_.strides[2]]; },
        simplices());
  }

  DEFORMOPS_INLINE void find(int64_t first, int64_t count) {
    lift_points(first, count);
    find_simplex(d(), share_, simplices());
  }

  DEFORMOPS_INLINE Simplices<T, kPoints> simplices() { return {lifted_, base_, rank_}; }

 private:
  static constexpr int kCapacity = kFeatures > 0 ? kFeatures : kMaxFeatures;

  View<const T, 3> features_;
  int d_;
  T share_;
  T scales_[kCapacity];
  T lifted_[kCapacity + 1][kPoints];
  int32_t base_[kCapacity + 1][kPoints];
  int32_t rank_[kCapacity + 1][kPoints];
};

// Calls body(Constant<d>{}) for common numbers of features: space, space and time or depth, with
// grey or colour; else body(Constant<0>{}).
template <class Body>
DEFORMOPS_INLINE void with_features(int64_t d, const Body& body) {
  switch (d) {
    case 2:
      return body(Constant<2>{});
    case 3:
      return body(Constant<3>{});
    case 5:
      return body(Constant<5>{});
    case 6:
      return body(Constant<6>{});
    default:
      return body(Constant<0>{});
  }
}

// Calls body(block, first, count, worker) for blocks that cover all points, on all threads.
template <class T, int kFeatures, class Body>
DEFORMOPS_INLINE void for_each_block(const Team& team, const View<const T, 3>& features,
                                     const Body& body) {
  const int64_t points = features.sizes[0] * features.sizes[1];
  team.for_each(divide_up(points, kPointsOfTask), [&](int64_t task, int64_t worker) {
    SimplexBlock<T, kFeatures> block(features);
    const int64_t end = smaller(points, (task + 1) * kPointsOfTask);
    for (int64_t first = task * kPointsOfTask; first < end; first += kLanes<T>) {
      body(block, first, smaller(kLanes<T>, end - first), worker);
    }
  });
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

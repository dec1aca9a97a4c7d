// Boxes, and how much two of them overlap: the one relation of this family.
//
// The bits of an overlap, and so every decision about it, are the same on all devices and for all
// instruction sets: each operation is rounded once, in the order written here (core/rounding.h).
#pragma once

#include <limits>

#include "core/macros.h"
#include "core/rounding.h"

namespace deformops {

// C is float or double; on the CPU also a vector of them, whose lanes are boxes of their own.
template <class C>
struct Box {
  C x1, y1, x2, y2;
};

template <class C>
inline constexpr C kInfinity = std::numeric_limits<C>::infinity();

// A box without a pixel: it overlaps nothing.
template <class C>
inline constexpr Box<C> kEmptyBox = {kInfinity<C>, kInfinity<C>, -kInfinity<C>, -kInfinity<C>};

// Not std::max and std::min: a comparison that NaN fails, lane by lane for vectors.
template <class C>
DEFORMOPS_INLINE C larger_of(C a, C b) {
  return a > b ? a : b;
}
template <class C>
DEFORMOPS_INLINE C smaller_of(C a, C b) {
  return a < b ? a : b;
}

// How long, large and alike boxes are.
template <class C>
struct BoxMeasure {
  // What `high - low` has too much: 0, or -1 in the convention of R-CNN, where a box from pixel 3
  // to pixel 3 is one pixel wide.
  C excess;

  explicit DEFORMOPS_INLINE BoxMeasure(bool plus_one) : excess(C{} - (plus_one ? 1.0f : 0.0f)) {}

  DEFORMOPS_INLINE C extent(C low, C high) const { return (high - low) - excess; }

  DEFORMOPS_INLINE C area(const Box<C>& box) const {
    return product(extent(box.x1, box.x2), extent(box.y1, box.y2));
  }

  // What two boxes have in common on each axis; negative where they are apart.
  DEFORMOPS_INLINE C common_width(const Box<C>& a, const Box<C>& b) const {
    return extent(larger_of(a.x1, b.x1), smaller_of(a.x2, b.x2));
  }
  DEFORMOPS_INLINE C common_height(const Box<C>& a, const Box<C>& b) const {
    return extent(larger_of(a.y1, b.y1), smaller_of(a.y2, b.y2));
  }

  DEFORMOPS_INLINE C intersection(const Box<C>& a, const Box<C>& b) const {
    return product(larger_of(common_width(a, b), C{}), larger_of(common_height(a, b), C{}));
  }

  // A box without a positive extent on both axes, one with a NaN, and one too large for its area to
  // be a finite number have an overlap of 0 or NaN with every box. C is no vector.
  DEFORMOPS_INLINE bool can_overlap(const Box<C>& box) const {
    return extent(box.x1, box.x2) > 0 && extent(box.y1, box.y2) > 0 && area(box) < kInfinity<C>;
  }

  // Intersection over union.
  DEFORMOPS_INLINE C overlap(const Box<C>& a, C area_a, const Box<C>& b, C area_b) const {
    const C common = intersection(a, b);
    return common / ((area_a + area_b) - common);
  }

  DEFORMOPS_INLINE C overlap(const Box<C>& a, const Box<C>& b) const {
    return overlap(a, area(a), b, area(b));
  }
};

// Whether boxes overlap by more than a threshold. An overlap costs a division, and most pairs are
// far from the threshold t. In exact arithmetic the question is
//     intersection > t / (1 + t) * area_a + t / (1 + t) * area_b.
// So each box has a share of the right side, made a little too small: pairs that fail this test
// fail the real one as well, and only the others need be divided.
template <class C>
struct OverlapThreshold {
  C threshold;  // of float64, rounded down: no overlap of type C is between the two
  C factor;

  explicit OverlapThreshold(double number)
      : threshold(rounded_down<C>(number)),
        factor(static_cast<C>(number / (1 + number) * (1 - kMargin))) {}

  // A share that has lost digits for being tiny would not be reliably too small; 0 is.
  DEFORMOPS_INLINE C share(C area) const {
    const C share = factor * area;
    return share < C(0x1p-100) ? C(0) : share;
  }

 private:
  // Far above all rounding errors.
  static constexpr double kMargin = sizeof(C) == sizeof(float) ? 0x1p-16 : 0x1p-40;
};

}  // namespace deformops

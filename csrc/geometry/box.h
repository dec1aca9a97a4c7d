// Boxes, and how much two of them overlap: the one relation of this family.
//
// The bits of an overlap, and so every decision about it, are the same on all devices and for all
// instruction sets: each operation is rounded once, in the order written here (core/rounding.h).
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/rounding.h"

namespace deformops {

// C is float or double; on the CPU also a vector of them, whose lanes are boxes of their own.
template <class C>
struct Box {
  C x1, y1, x2, y2;
};

// Not std::max and std::min: a comparison that NaN fails, lane by lane for vectors.
template <class C>
DEFORMOPS_INLINE C larger_of(C a, C b) {
  return a > b ? a : b;
}
template <class C>
DEFORMOPS_INLINE C smaller_of(C a, C b) {
  return a < b ? a : b;
}

// From where to where a box reaches. A box without a positive extent on both axes, one with a NaN,
// and one too large for its area to be a finite number have an overlap of 0 or NaN with every box.
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

  // Intersection over union.
  DEFORMOPS_INLINE C overlap(const Box<C>& a, C area_a, const Box<C>& b, C area_b) const {
    const C common = intersection(a, b);
    return common / ((area_a + area_b) - common);
  }

  DEFORMOPS_INLINE C overlap(const Box<C>& a, const Box<C>& b) const {
    return overlap(a, area(a), b, area(b));
  }
};

}  // namespace deformops

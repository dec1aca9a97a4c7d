// Boxes side by side in the lanes of vectors.
#pragma once

#include <cstdint>

#include "core/view.h"
#include "geometry/box.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

template <class C>
DEFORMOPS_INLINE Box<Vector<C>> broadcast(const Box<C>& box) {
  const Vector<C> zero = {};
  return {zero + box.x1, zero + box.y1, zero + box.x2, zero + box.y2};
}

template <class C>
DEFORMOPS_INLINE void set_lane(Box<Vector<C>>& boxes, int lane, const Box<C>& box) {
  boxes.x1[lane] = box.x1;
  boxes.y1[lane] = box.y1;
  boxes.x2[lane] = box.x2;
  boxes.y2[lane] = box.y2;
}

template <class C>
DEFORMOPS_INLINE Box<C> lane_of(const Box<Vector<C>>& boxes, int lane) {
  return {boxes.x1[lane], boxes.y1[lane], boxes.x2[lane], boxes.y2[lane]};
}

// From [..., 4].
template <class C, class T, int Rank, class... Index>
DEFORMOPS_INLINE Box<C> load_box(const View<const T, Rank>& boxes, Index... index) {
  const T* const numbers = boxes.pointer(index...);
  const int64_t stride = boxes.strides[Rank - 1];
  return {static_cast<C>(numbers[0]), static_cast<C>(numbers[stride]),
          static_cast<C>(numbers[2 * stride]), static_cast<C>(numbers[3 * stride])};
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

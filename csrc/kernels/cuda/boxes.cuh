// Boxes as kernels load them.
#pragma once

#include <cstdint>

#include "core/scalars.h"
#include "core/view.h"
#include "geometry/box.h"

namespace deformops::cuda {

constexpr int kBoxThreads = 128;
constexpr int kBoxWarps = kBoxThreads / 32;

// Aligned, so that it is moved in pieces of 16 bytes.
template <class C>
struct __align__(4 * sizeof(C)) AlignedBox : Box<C> {};

// From [..., 4].
template <class C, class T, int Rank, class... Index>
__device__ __forceinline__ AlignedBox<C> load_box(const View<const T, Rank>& boxes,
                                                  Index... index) {
  const T* const numbers = boxes.pointer(index...);
  const int64_t stride = boxes.strides[Rank - 1];
  AlignedBox<C> box;
  box.x1 = static_cast<C>(numbers[0]);
  box.y1 = static_cast<C>(numbers[stride]);
  box.x2 = static_cast<C>(numbers[2 * stride]);
  box.y2 = static_cast<C>(numbers[3 * stride]);
  return box;
}

}  // namespace deformops::cuda

// Bilinear sampling on one axis: a coordinate becomes two neighbours and their weights.
//
// The bilinear weight of a pixel is a product of a hat function in y and one in x,
//     hat(t) = max(0, 1 - |t|),   value(p) = sum_i hat(p - i) * pixel[i],
// so a two-dimensional stencil is a pair of these. Order 0 weighs by the hat, order 1 by its
// derivative (how the value changes as the point moves), order 2 is zero almost everywhere. These
// orders close the algebra: every derivative of an op that samples is the same op at another order.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/macros.h"

namespace deformops {

enum class Border : int32_t {
  kFade,  // "v2" (DCNv2, torchvision): values fade to zero over one pixel outside, -1 < p < size
  kClip,  // "v1" (2017, MXNet): 0 <= p < size, points beyond the last pixel are moved onto it
};

// The subgradient of a fading sample exactly on -1, where zero offsets with padding 1 put it.
enum class Kink : int32_t {
  kInner,  // the derivative from inside (torchvision)
  kZero,   // 0 (mmcv)
};

template <class C>
struct AxisStencil {
  int64_t index[2];  // -1: outside the map, nothing to read; its weight still counts (0 or NaN)
  C weight[2];
};

// A point that no offset moved is a pixel: only that one is read, whatever its neighbours hold.
template <class C>
DEFORMOPS_INLINE AxisStencil<C> pixel_stencil(int64_t position, int64_t size) {
  const bool inside = position >= 0 && position < size;
  return {{inside ? position : -1, -1}, {inside ? C(1) : C(0), C(0)}};
}

// Where NaN looks nobody knows: no pixel is read and the weights are NaN, so that it shows.
// All other points are compared with the borders before they become an int, hence cannot overflow.
template <class C>
DEFORMOPS_INLINE AxisStencil<C> axis_stencil(C position, int64_t size, int order, Border border,
                                             Kink kink) {
  if (position != position) return {{-1, -1}, {position, position}};
  const AxisStencil<C> outside = {{-1, -1}, {C(0), C(0)}};
  const C last = static_cast<C>(size - 1);
  if (order > 1 || !(position < static_cast<C>(size))) return outside;

  if (border == Border::kClip) {
    if (!(position >= C(0))) return outside;
    if (position >= last) return {{size - 1, -1}, {order == 0 ? C(1) : C(0), C(0)}};
  } else {
    const bool inside = position > C(-1);
    const bool on_kink = position == C(-1) && order == 1 && kink == Kink::kInner;
    if (!inside && !on_kink) return outside;
  }

  const C floor = std::floor(position);
  const int64_t low = static_cast<int64_t>(floor);
  const C fraction = position - floor;
  AxisStencil<C> stencil = {{low, low + 1},
                            {order == 0 ? C(1) - fraction : C(-1), order == 0 ? fraction : C(1)}};
  if (low < 0) stencil.index[0] = -1, stencil.weight[0] = C(0);
  if (low + 1 >= size) stencil.index[1] = -1, stencil.weight[1] = C(0);
  return stencil;
}

// The same on a map that goes on for ever as its outermost pixels are; how far it is read is for
// the caller to say. Beyond them nothing changes: order 1 is 0.
template <class C>
DEFORMOPS_INLINE AxisStencil<C> clamped_stencil(C position, int64_t size, int order) {
  if (position != position) return {{-1, -1}, {position, position}};
  const C on_edge = order == 0 ? C(1) : C(0);
  if (order > 1) return {{-1, -1}, {C(0), C(0)}};
  if (position < C(0)) return {{0, -1}, {on_edge, C(0)}};
  if (position >= static_cast<C>(size - 1)) return {{size - 1, -1}, {on_edge, C(0)}};
  const C floor = std::floor(position);
  const int64_t low = static_cast<int64_t>(floor);
  const C fraction = position - floor;
  return {{low, low + 1}, {order == 0 ? C(1) - fraction : C(-1), order == 0 ? fraction : C(1)}};
}

}  // namespace deformops

// Gather, scatter and slope for one sample of many channels: the stencil's four corners are rows of
// neighbouring channels, so each verb is a few fused multiply-adds on whole vectors.
#pragma once

#include <cstdint>

#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// One tap at one output pixel. `row` is the distance, in elements, from the start of a map to the
// rows of the corners, in the order (y0, x0), (y0, x1), (y1, x0), (y1, x1). Corners outside the map
// have the distance of a row of zeros (to read) or of a row that nobody reads (to add to).
template <class C>
struct Sample {
  int64_t row[4];
  C weight[4];
  C mask;
};

// The row of zeros need not be part of the map, hence a number and not a pointer is added.
template <class C>
DEFORMOPS_INLINE C* row_at(C* map, int64_t distance) {
  return reinterpret_cast<C*>(reinterpret_cast<uintptr_t>(map) +
                              static_cast<uintptr_t>(distance) * sizeof(C));
}

template <class C>
DEFORMOPS_INLINE int64_t distance_between(const C* from, const C* to) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) - reinterpret_cast<uintptr_t>(from)) /
         static_cast<int64_t>(sizeof(C));
}

// out[c] = mask * sum of weight * corner[c].
template <class C>
DEFORMOPS_INLINE void gather_row(const C* map, const Sample<C>& sample, int64_t channels, C* out) {
  const C* corner[4];
  for (int i = 0; i < 4; ++i) corner[i] = row_at(map, sample.row[i]);
  const auto vector_at = [&](int64_t c) __attribute__((always_inline)) {
    const Vector<C> sum =
        (sample.weight[0] * load(corner[0] + c) + sample.weight[1] * load(corner[1] + c)) +
        (sample.weight[2] * load(corner[2] + c) + sample.weight[3] * load(corner[3] + c));
    store(out + c, sample.mask * sum);
  };
  int64_t c = 0;
  for (; c + kLanes<C> <= channels; c += kLanes<C>) vector_at(c);
  if (c == channels) return;
  if (channels >= kLanes<C>) {
    vector_at(channels - kLanes<C>);  // some channels twice, with the same result
    return;
  }
  for (; c < channels; ++c) {
    const C sum = (sample.weight[0] * corner[0][c] + sample.weight[1] * corner[1][c]) +
                  (sample.weight[2] * corner[2][c] + sample.weight[3] * corner[3][c]);
    out[c] = sample.mask * sum;
  }
}

// corner[c] += weight * mask * grad[c] for one block of channels.
template <class C>
DEFORMOPS_INLINE void scatter_row(C* map, const Sample<C>& sample, const C* grad) {
  const Vector<C> low = sample.mask * load(grad);
  const Vector<C> high = sample.mask * load(grad + kLanes<C>);
  for (int i = 0; i < 4; ++i) {
    C* corner = row_at(map, sample.row[i]);
    store(corner, load(corner) + sample.weight[i] * low);
    store(corner + kLanes<C>, load(corner + kLanes<C>) + sample.weight[i] * high);
  }
}

// dots[i] = <grad, corner i> over one block of channels. All that the gradients of the mask and of
// the offset need of the data: they are these four numbers under different weights.
template <class C>
DEFORMOPS_INLINE void dot_rows(const C* map, const int64_t (&row)[4], const C* grad, C* dots) {
  const Vector<C> low = load(grad), high = load(grad + kLanes<C>);
  Vector<C> products[4];
  for (int i = 0; i < 4; ++i) {
    const C* corner = row_at(map, row[i]);
    products[i] = low * load(corner) + high * load(corner + kLanes<C>);
  }
  sum_each<C>(products[0], products[1], products[2], products[3], dots);
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

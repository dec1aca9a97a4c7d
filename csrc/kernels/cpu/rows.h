// Gather, scatter and slope for one sample of many channels: the stencil's four corners are rows of
// neighbouring channels, so each verb is a few fused multiply-adds on whole vectors.
#pragma once

#include <cstdint>

#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Where rows of channels lie: distances between neighbours, in elements.
struct RowStrides {
  int64_t image, y, x;
};

// Rows of channels, and the row that stands for all pixels outside: zeros to read, or sums that
// nobody reads.
template <class C>
struct RowMap {
  C* rows;
  C* outside;
  RowStrides stride;
};

// One tap of one offset group at the pixels of a tile.
template <class C>
struct Samples {
  // A batch of pixels writes whole vectors, so some numbers beyond the last.
  static constexpr int64_t kCapacity = kTilePixels<C> + kLanes<C>;

  int64_t row[kCapacity];  // distance from the start of the map to the upper left corner
  C weight[4][kCapacity];  // of the corners (y0, x0), (y0, x1), (y1, x0), (y1, x1)
  C mask[kCapacity];
  // Which corners are pixels of the map: bits 0 to 3 for gather and scatter; bits 4 to 7 for the
  // dot products, which the slopes need too. These differ for a point exactly on -1.
  int32_t inside[kCapacity];
};

constexpr int32_t kAllInside = 0xff;

// So few channels are taken one by one. Padded to vectors they would need many times the memory.
constexpr int64_t kNarrow = 4;
constexpr int kDotBits = 4;

template <class C, class Element>
DEFORMOPS_INLINE void find_corners(const RowMap<Element>& map, const Samples<C>& samples, int64_t i,
                                   int first_bit, Element* (&corner)[4]) {
  Element* const upper = at_distance(map.rows, samples.row[i]);
  Element* const lower = at_distance(upper, map.stride.y);
  const int32_t inside = samples.inside[i] >> first_bit;
  corner[0] = inside & 1 ? upper : map.outside;
  corner[1] = inside & 2 ? at_distance(upper, map.stride.x) : map.outside;
  corner[2] = inside & 4 ? lower : map.outside;
  corner[3] = inside & 8 ? at_distance(lower, map.stride.x) : map.outside;
}

// out[c] = mask * sum of weight * corner[c], for sample i.
template <class C>
DEFORMOPS_INLINE void gather_row(const RowMap<const C>& map, const Samples<C>& samples, int64_t i,
                                 int64_t channels, C* out) {
  const C* corner[4];
  find_corners(map, samples, i, 0, corner);
  const C weight[4] = {samples.weight[0][i], samples.weight[1][i], samples.weight[2][i],
                       samples.weight[3][i]};
  const C mask = samples.mask[i];
  const auto vector_at = [&](int64_t c) __attribute__((always_inline)) {
    const Vector<C> sum = (weight[0] * load(corner[0] + c) + weight[1] * load(corner[1] + c)) +
                          (weight[2] * load(corner[2] + c) + weight[3] * load(corner[3] + c));
    store(out + c, mask * sum);
  };
  int64_t c = 0;
  for (; c + kLanes<C> <= channels; c += kLanes<C>) vector_at(c);
  if (c == channels) return;
  if (channels >= kLanes<C>) {
    vector_at(channels - kLanes<C>);  // some channels twice, with the same result
    return;
  }
  for (; c < channels; ++c) {
    const C sum = (weight[0] * corner[0][c] + weight[1] * corner[1][c]) +
                  (weight[2] * corner[2][c] + weight[3] * corner[3][c]);
    out[c] = mask * sum;
  }
}

// corner[c] += weight * mask * grad[c] for one block of channels, padded if there are more than
// kNarrow.
template <class C>
DEFORMOPS_INLINE void scatter_row(const RowMap<C>& map, const Samples<C>& samples, int64_t i,
                                  int64_t channels, const C* grad) {
  C* corner[4];
  find_corners(map, samples, i, 0, corner);
  if (channels <= kNarrow) {
    for (int k = 0; k < 4; ++k) {
      const C weight = samples.weight[k][i];
      for (int64_t c = 0; c < channels; ++c) corner[k][c] += weight * (samples.mask[i] * grad[c]);
    }
    return;
  }
  const Vector<C> low = samples.mask[i] * load(grad);
  const Vector<C> high = samples.mask[i] * load(grad + kLanes<C>);
  for (int k = 0; k < 4; ++k) {
    const C weight = samples.weight[k][i];
    store(corner[k], load(corner[k]) + weight * low);
    store(corner[k] + kLanes<C>, load(corner[k] + kLanes<C>) + weight * high);
  }
}

// dots[k] = <grad, corner k> over one block of channels. All that the gradients of the mask and of
// the offset need of the data: they are these four numbers under different weights. The block is
// padded if it has more than kNarrow channels.
template <class C>
DEFORMOPS_INLINE void dot_rows(const RowMap<const C>& map, const Samples<C>& samples, int64_t i,
                               int64_t channels, const C* grad, C* dots) {
  const C* corner[4];
  find_corners(map, samples, i, kDotBits, corner);
  if (channels <= kNarrow) {
    for (int k = 0; k < 4; ++k) {
      C sum = grad[0] * corner[k][0];
      for (int64_t c = 1; c < channels; ++c) sum += grad[c] * corner[k][c];
      dots[k] = sum;
    }
    return;
  }
  const Vector<C> low = load(grad), high = load(grad + kLanes<C>);
  Vector<C> products[4];
  for (int k = 0; k < 4; ++k) {
    products[k] = low * load(corner[k]) + high * load(corner[k] + kLanes<C>);
  }
  sum_each<C>(products[0], products[1], products[2], products[3], dots);
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

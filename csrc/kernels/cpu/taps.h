// The stencil table: where a tap looks from every pixel of a tile. Made once and used for all
// channels of an offset group.
#pragma once

#include <cstdint>

#include "geometry/window.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/tiles.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Where the rows of channels of some images lie: distances from the start of the map, in elements.
struct RowMap {
  int64_t image, y, x;
  int64_t outside;  // what stands for a pixel outside

  DEFORMOPS_INLINE int64_t row(int64_t image_row, int64_t y_index, int64_t x_index) const {
    return y_index >= 0 && x_index >= 0 ? image_row + y_index * y + x_index * x : outside;
  }
};

// Calls body(row, n, oy, ox) for every pixel of a tile.
template <class T, class Body>
DEFORMOPS_INLINE void for_each_pixel(const SampledWindow<T>& window, const Tiles& tiles,
                                     int64_t tile, const Body& body) {
  tiles.for_each_image(tile, [&](int64_t n, int64_t begin, int64_t end, int64_t first_row) {
    int64_t oy = begin / window.x.output, ox = begin % window.x.output;
    for (int64_t p = begin; p < end; ++p) {
      body(first_row + p - begin, n, oy, ox);
      if (++ox == window.x.output) ox = 0, ++oy;
    }
  });
}

// samples[row] of one tap and offset group.
template <class T>
void fill_samples(const SampledWindow<T>& window, const Tiles& tiles, int64_t tile, int64_t group,
                  int64_t tap, const RowMap& map, Sample<compute_t<T>>* samples) {
  using C = compute_t<T>;
  for_each_pixel(window, tiles, tile, [&](int64_t row, int64_t n, int64_t oy, int64_t ox) {
    const TapStencil<C> stencil = window.stencil(n, group, tap, oy, ox);
    const int64_t image_row = (n - tiles.first_image) * map.image;
    Sample<C>& sample = samples[row];
    for (int i = 0; i < 4; ++i) {
      sample.row[i] = map.row(image_row, stencil.y.index[i / 2], stencil.x.index[i % 2]);
      sample.weight[i] = stencil.y.weight[i / 2] * stencil.x.weight[i % 2];
    }
    sample.mask = stencil.mask;
  });
}

// The rows that the gradients of the mask and the offset look at. They are the sample's, but for a
// point exactly on -1, where only the slope has a pixel to read.
struct SlopeRows {
  int64_t row[4];
};

template <class C>
DEFORMOPS_INLINE int64_t index_of_either(const AxisStencil<C>& value, const AxisStencil<C>& slope,
                                         int side) {
  return value.index[side] >= 0 ? value.index[side] : slope.index[side];
}

template <class T>
void fill_slope_rows(const SampledWindow<T>& window, const Tiles& tiles, int64_t tile,
                     int64_t group, int64_t tap, const RowMap& map, SlopeRows* rows) {
  for_each_pixel(window, tiles, tile, [&](int64_t row, int64_t n, int64_t oy, int64_t ox) {
    const auto value = window.stencil(n, group, tap, oy, ox);
    const auto slope = window.stencil(n, group, tap, oy, ox, 1, 1);
    const int64_t image_row = (n - tiles.first_image) * map.image;
    for (int i = 0; i < 4; ++i) {
      rows[row].row[i] = map.row(image_row, index_of_either(value.y, slope.y, i / 2),
                                 index_of_either(value.x, slope.x, i % 2));
    }
  });
}

// <grad, gather> from the four dot products of grad with the corners (dot_rows over SlopeRows).
// Where the stencil has no pixel its weight is 0, or NaN for a NaN point, which has to show.
template <class C>
DEFORMOPS_INLINE C weigh_dots(const AxisStencil<C>& y, const AxisStencil<C>& x, const C* dots) {
  C sum = C(0);
  for (int i = 0; i < 4; ++i) {
    const bool inside = y.index[i / 2] >= 0 && x.index[i % 2] >= 0;
    sum += y.weight[i / 2] * x.weight[i % 2] * (inside ? dots[i] : C(0));
  }
  return sum;
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

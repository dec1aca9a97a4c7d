// The stencil table: where a tap looks from every pixel of a tile. Made once and used for all
// channels of an offset group.
//
// What a stencil is, core/stencil.h says. But nearly all points lie between four pixels of the map,
// where neither borders nor NaN nor the kink play a part and a stencil is floor and fraction; these
// are found and done a vector at a time, and only the others one by one.
#pragma once

#include <cstdint>

#include "geometry/window.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/tiles.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// One tap of one offset group at up to kLanes pixels of an image that follow each other. Loops over
// all lanes, used or not, have a fixed length, so that compilers make vectors of them.
template <class T>
class PointBatch {
 public:
  using C = compute_t<T>;
  using Index = typename VectorOf<C>::index;
  static constexpr int64_t kSize = kLanes<C>;

  DEFORMOPS_INLINE PointBatch(const SampledWindow<T>& window, int64_t n, int64_t group, int64_t tap)
      : window_(window),
        n_(n),
        group_(group),
        tap_(tap),
        tap_y_(tap / window.x.taps),
        tap_x_(tap % window.x.taps) {
    // Maps so large that a float cannot count their pixels are left to core/stencil.h.
    constexpr int64_t kLargest = int64_t{1} << 24;
    last_y_ = static_cast<C>(smaller(window.y.input, kLargest) - 1);
    last_x_ = static_cast<C>(smaller(window.x.input, kLargest) - 1);
    offset_dense_ = is_dense(window.offset) && is_dense(window.mask);
  }

  // Goes to pixels [pixel, end), or as many of them as fit; returns how many.
  DEFORMOPS_INLINE int64_t open(int64_t pixel, int64_t end) {
    const int64_t width = window_.x.output;
    const int64_t oy = pixel / width, ox = pixel % width;
    const int64_t rest_of_row = width - ox;
    count_ = smaller(kSize, smaller(end - pixel, rest_of_row + (offset_dense_ ? width : 0)));
    read(window_.mask, group_ * window_.taps() + tap_, oy, ox, C(1), mask);
    if (window_.offset.defined()) {
      const int64_t channel = (group_ * window_.taps() + tap_) * 2;
      read(window_.offset, channel, oy, ox, C(0), point_y_);
      read(window_.offset, channel + 1, oy, ox, C(0), point_x_);
    }
    for (int64_t i = 0; i < kSize; ++i) {
      const bool next_row = i >= rest_of_row;
      oy_[i] = oy + (next_row ? 1 : 0);
      ox_[i] = ox + i - (next_row ? width : 0);
      regular_y_[i] = static_cast<C>(window_.y.position(oy_[i], tap_y_));
      regular_x_[i] = static_cast<C>(window_.x.position(ox_[i], tap_x_));
    }
    if (window_.offset.defined()) {
      split();
    } else {
      for (int64_t i = 0; i < kSize; ++i) {
        plain[i] = y[i] = x[i] = 0;
        fraction_y[i] = fraction_x[i] = C(0);
      }
    }
    return count_;
  }

  // The stencil of lane i; `raise` as in geometry/window.h.
  DEFORMOPS_INLINE TapStencil<C> stencil(int64_t i, int raise_y = 0, int raise_x = 0) const {
    if (!plain[i]) return window_.stencil(n_, group_, tap_, oy_[i], ox_[i], raise_y, raise_x);
    return {between_pixels(y[i], fraction_y[i], window_.order_y + raise_y),
            between_pixels(x[i], fraction_x[i], window_.order_x + raise_x), mask[i]};
  }

  DEFORMOPS_INLINE int64_t n() const { return n_; }
  DEFORMOPS_INLINE int64_t oy(int64_t i) const { return oy_[i]; }
  DEFORMOPS_INLINE int64_t ox(int64_t i) const { return ox_[i]; }

  // Lane by lane: whether the point lies between four pixels; if so, the upper left one and how far
  // the point is from it.
  Index plain[kSize], y[kSize], x[kSize];
  C fraction_y[kSize], fraction_x[kSize];
  C mask[kSize];

 private:
  static DEFORMOPS_INLINE bool is_dense(const View<const T, 4>& view) {
    return !view.defined() || view.strides[2] == view.sizes[3] * view.strides[3];
  }

  DEFORMOPS_INLINE void read(const View<const T, 4>& view, int64_t channel, int64_t oy, int64_t ox,
                             C otherwise, C* lanes) const {
    if (!view.defined()) {
      for (int64_t i = 0; i < kSize; ++i) lanes[i] = otherwise;
      return;
    }
    const T* const source = view.pointer(n_, channel, oy, ox);
    const int64_t stride = view.strides[3];
    if (stride == 1 && count_ == kSize) {
      store(lanes, load_as<C>(source));
    } else {
      for (int64_t i = 0; i < count_; ++i) lanes[i] = convert<C>(source[i * stride]);
      for (int64_t i = count_; i < kSize; ++i) lanes[i] = C(0);
    }
  }

  // Vectors by name: compilers do not make them of comparisons that could raise a signal.
  DEFORMOPS_INLINE void split() {
    const Vector<C> point_y = load(regular_y_) + load(point_y_);
    const Vector<C> point_x = load(regular_x_) + load(point_x_);
    const Vector<C> zero = {};
    const Integers<C> is_plain = (point_y >= zero) & (point_y < zero + last_y_) &
                                 (point_x >= zero) & (point_x < zero + last_x_);
    const Vector<C> inside_y = is_plain ? point_y : zero, inside_x = is_plain ? point_x : zero;
    const Integers<C> low_y = __builtin_convertvector(inside_y, Integers<C>);
    const Integers<C> low_x = __builtin_convertvector(inside_x, Integers<C>);
    store(fraction_y, inside_y - __builtin_convertvector(low_y, Vector<C>));
    store(fraction_x, inside_x - __builtin_convertvector(low_x, Vector<C>));
    memcpy(plain, &is_plain, sizeof(plain));
    memcpy(y, &low_y, sizeof(y));
    memcpy(x, &low_x, sizeof(x));
  }

  static DEFORMOPS_INLINE AxisStencil<C> between_pixels(Index low, C fraction, int order) {
    if (order == 0) return {{low, low + 1}, {C(1) - fraction, fraction}};
    if (order == 1) return {{low, low + 1}, {C(-1), C(1)}};
    return {{-1, -1}, {C(0), C(0)}};
  }

  const SampledWindow<T>& window_;
  const int64_t n_, group_, tap_, tap_y_, tap_x_;
  C last_y_, last_x_;
  bool offset_dense_;  // so that a batch may go on in the next row of pixels, but only in one
  int64_t count_ = 0;
  int64_t oy_[kSize], ox_[kSize];
  C regular_y_[kSize], regular_x_[kSize];
  C point_y_[kSize], point_x_[kSize];  // offsets
};

// Calls body(batch, row, count) for all pixels of a tile, batch by batch; the batch's lanes are the
// tile's rows from `row`.
template <class T, class Body>
DEFORMOPS_INLINE void for_each_batch(const SampledWindow<T>& window, const Tiles& tiles,
                                     int64_t tile, int64_t group, int64_t tap, const Body& body) {
  tiles.for_each_image(tile, [&](int64_t n, int64_t begin, int64_t end, int64_t row) {
    PointBatch<T> batch(window, n, group, tap);
    for (int64_t p = begin; p < end;) {
      const int64_t count = batch.open(p, end);
      body(batch, row + p - begin, count);
      p += count;
    }
  });
}

// The pixel to the upper left of a point, from an axis of its stencil.
template <class C>
DEFORMOPS_INLINE int64_t lower_index(const AxisStencil<C>& axis) {
  return axis.index[0] >= 0 ? axis.index[0] : axis.index[1] - 1;
}

template <class C>
DEFORMOPS_INLINE int32_t inside_bits(const AxisStencil<C>& y, const AxisStencil<C>& x) {
  int32_t bits = 0;
  for (int i = 0; i < 4; ++i) {
    if (y.index[i / 2] >= 0 && x.index[i % 2] >= 0) bits |= 1 << i;
  }
  return bits;
}

// What a value or a slope looks at.
template <class C>
DEFORMOPS_INLINE AxisStencil<C> either(const AxisStencil<C>& value, const AxisStencil<C>& slope) {
  AxisStencil<C> both = value;
  for (int side = 0; side < 2; ++side) {
    if (both.index[side] < 0) both.index[side] = slope.index[side];
  }
  return both;
}

template <class T>
void fill_samples(const SampledWindow<T>& window, const Tiles& tiles, int64_t tile, int64_t group,
                  int64_t tap, const RowStrides& stride, Samples<compute_t<T>>& samples) {
  using C = compute_t<T>;
  using Batch = PointBatch<T>;
  for_each_batch(
      window, tiles, tile, group, tap, [&](const Batch& batch, int64_t row, int64_t count) {
        const int64_t image_row = (batch.n() - tiles.first_image) * stride.image;
        C weight_y[2][Batch::kSize], weight_x[2][Batch::kSize];
        for (int64_t i = 0; i < Batch::kSize; ++i) {
          weight_y[0][i] = window.order_y == 0 ? C(1) - batch.fraction_y[i] : C(-1);
          weight_y[1][i] = window.order_y == 0 ? batch.fraction_y[i] : C(1);
          weight_x[0][i] = window.order_x == 0 ? C(1) - batch.fraction_x[i] : C(-1);
          weight_x[1][i] = window.order_x == 0 ? batch.fraction_x[i] : C(1);
        }
        for (int64_t i = 0; i < Batch::kSize; ++i) {
          samples.row[row + i] = image_row + batch.y[i] * stride.y + batch.x[i] * stride.x;
        }
        for (int k = 0; k < 4; ++k) {
          for (int64_t i = 0; i < Batch::kSize; ++i) {
            samples.weight[k][row + i] = weight_y[k / 2][i] * weight_x[k % 2][i];
          }
        }
        for (int64_t i = 0; i < Batch::kSize; ++i) {
          samples.mask[row + i] = batch.mask[i];
          samples.inside[row + i] = kAllInside;
        }
        for (int64_t i = 0; i < count; ++i) {
          if (batch.plain[i]) continue;
          const TapStencil<C> value = batch.stencil(i), slope = batch.stencil(i, 1, 1);
          const AxisStencil<C> y = either(value.y, slope.y), x = either(value.x, slope.x);
          samples.row[row + i] = image_row + lower_index(y) * stride.y + lower_index(x) * stride.x;
          samples.inside[row + i] = inside_bits(value.y, value.x) | inside_bits(y, x) << kDotBits;
          for (int k = 0; k < 4; ++k) {
            samples.weight[k][row + i] = value.y.weight[k / 2] * value.x.weight[k % 2];
          }
        }
      });
}

// <grad, gather> from the four dot products of grad with the corners. Where the stencil has no
// pixel its weight is 0, or NaN for a NaN point, which has to show.
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

// Where a convolution looks: the taps of a sliding window, each moved by an offset of its own.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/scalars.h"
#include "core/stencil.h"
#include "core/view.h"

namespace deformops {

// One axis of a window of regular taps: input = output * stride - padding + tap * dilation.
struct WindowAxis {
  int64_t input;   // pixels of the input
  int64_t output;  // pixels of the output
  int64_t taps;
  int64_t stride;
  int64_t padding;
  int64_t dilation;

  DEFORMOPS_INLINE int64_t position(int64_t out, int64_t tap) const {
    return out * stride - padding + tap * dilation;
  }
};

// The two axes of the bilinear stencil of one tap at one output pixel, and its mask.
template <class C>
struct TapStencil {
  AxisStencil<C> y, x;
  C mask;
};

// The window, the offsets that move its taps and the mask that weighs them. `offset` is
// [N, offset_groups * taps * 2, oH, oW], channel (group * taps + tap) * 2 + {0: y, 1: x}; `mask` is
// [N, offset_groups * taps, oH, oW]. Either may be absent: taps stay in place, the mask is 1.
template <class T>
struct SampledWindow {
  using C = compute_t<T>;

  WindowAxis y, x;
  int64_t offset_groups;
  int order_y, order_x;  // 0: hat, 1: its derivative
  Border border;
  Kink kink;
  View<const T, 4> offset;
  View<const T, 4> mask;

  DEFORMOPS_INLINE int64_t taps() const { return y.taps * x.taps; }
  DEFORMOPS_INLINE int64_t pixels() const { return y.output * x.output; }

  DEFORMOPS_INLINE C mask_at(int64_t n, int64_t group, int64_t tap, int64_t oy, int64_t ox) const {
    if (!mask.defined()) return C(1);
    return static_cast<C>(mask(n, group * taps() + tap, oy, ox));
  }

  // The one relation of this family. `raise_y`, `raise_x` add to the order: the slopes that the
  // gradient of the offset needs.
  DEFORMOPS_INLINE TapStencil<C> stencil(int64_t n, int64_t group, int64_t tap, int64_t oy,
                                         int64_t ox, int raise_y = 0, int raise_x = 0) const {
    const int64_t regular_y = y.position(oy, tap / x.taps);
    const int64_t regular_x = x.position(ox, tap % x.taps);
    const C weight = mask_at(n, group, tap, oy, ox);
    if (!offset.defined()) {
      return {pixel_stencil<C>(regular_y, y.input), pixel_stencil<C>(regular_x, x.input), weight};
    }
    const int64_t channel = (group * taps() + tap) * 2;
    const C point_y = static_cast<C>(regular_y) + static_cast<C>(offset(n, channel, oy, ox));
    const C point_x = static_cast<C>(regular_x) + static_cast<C>(offset(n, channel + 1, oy, ox));
    return {axis_stencil<C>(point_y, y.input, order_y + raise_y, border, kink),
            axis_stencil<C>(point_x, x.input, order_x + raise_x, border, kink), weight};
  }
};

}  // namespace deformops

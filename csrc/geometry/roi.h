// Where a pooled output looks: the bins of a box, each moved by an offset of its own.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/macros.h"
#include "core/scalars.h"
#include "core/stencil.h"
#include "core/view.h"

namespace deformops {

// Which corners are rounded on the way from the image to the map, half away from zero.
enum class RoiRounding : int32_t {
  kNone,
  kImage,  // before they are scaled
  kMap,    // after
};

// What of a bin is read.
enum class RoiPoints : int32_t {
  kPixels,   // all pixels that it touches
  kCentred,  // samples at (i + 1/2) / n of it
  kCorner,   // samples at i / n of it
};

// What implementations differ in.
struct RoiConvention {
  RoiRounding rounding;
  int far_end;   // added to x2 and y2, in the units in which they are rounded
  double shift;  // half a pixel, where pixel i is at i + 1/2
  double least;  // the least extent on the map; 0: none
  RoiPoints points;
  double margin;        // samples farther than this outside the map are not inside
  bool mean_of_inside;  // samples outside do not count, instead of counting as 0
};

namespace roi {

// max: Fast R-CNN's Caffe layer, torchvision; mmcv.
constexpr RoiConvention kCaffe = {RoiRounding::kMap, 1, 0, 1, RoiPoints::kPixels, 0, false};
constexpr RoiConvention kMmcv = {RoiRounding::kNone, 1, 0, 0, RoiPoints::kPixels, 0, false};
// Mean of pixels: R-FCN; torchvision's ps_roi_pool.
constexpr RoiConvention kRfcn = {RoiRounding::kImage, 1, 0, .1, RoiPoints::kPixels, 0, true};
constexpr RoiConvention kTorchvision = {RoiRounding::kMap, 0, 0, 1, RoiPoints::kPixels, 0, true};
// Mean of samples: RoIAlign (aligned or not; mmcv's deform_roi_pool is aligned); deformable
// pooling.
constexpr RoiConvention kAligned = {RoiRounding::kNone, 0, .5, 0, RoiPoints::kCentred, 1, false};
constexpr RoiConvention kUnaligned = {RoiRounding::kNone, 0, 0, 1, RoiPoints::kCentred, 1, false};
constexpr RoiConvention kDcn = {RoiRounding::kImage, 1, .5, .1, RoiPoints::kCorner, .5, true};

}  // namespace roi

// From first to before end.
struct Range {
  int64_t first, end;
};

// One axis of a box on the map.
template <class C>
struct RoiAxis {
  C whole;  // the corner is at whole + start; whole is what rounding made a whole number
  C start;
  C extent;
  C bin;            // extent / number of bins
  int64_t samples;  // of a bin
};

enum class RoiState : int32_t {
  kUsable,
  kNothing,  // infinite, or empty where the convention reads nothing of it: the result is 0
  kNan,      // the result is NaN, and no pixel has a gradient from it
};

template <class C>
struct RoiBox {
  int64_t image;
  RoiState state;
  RoiAxis<C> y, x;
};

// The two axes of the bilinear stencil of a sample. One that is not inside reads nothing.
template <class C>
struct SampleStencil {
  AxisStencil<C> y, x;
  bool inside;  // NaN is
};

// Boxes [K, 5] (image, x1, y1, x2, y2), their pooled_y x pooled_x bins and the offsets that move
// these: `offset` is [K, 2 * classes, part_y, part_x], channel 2 * class + {0: x, 1: y}, in parts
// 1 / offset_scale of the box's extent; absent: bins stay in place. An output channel belongs to a
// class, a bin to a part. With groups, a bin reads a channel of its own: output channel c of a bin
// in group (i, j) is input channel (c * groups_y + i) * groups_x + j.
template <class T>
struct RoiBins {
  using C = compute_t<T>;

  RoiConvention convention;
  View<const C, 2> boxes;
  View<const T, 4> offset;
  int64_t height, width;  // of the map
  int64_t pooled_y, pooled_x;
  int64_t groups_y, groups_x;
  int64_t samples;   // on each axis of a bin; not positive: one for each pixel, as RoIAlign has it
  int64_t channels;  // of the output
  double spatial_scale;
  double offset_scale;
  int order_y, order_x;  // 0: values; 1: their derivatives with respect to the offset

  DEFORMOPS_INLINE int64_t classes() const { return offset.defined() ? offset.sizes[1] / 2 : 1; }
  DEFORMOPS_INLINE int64_t channels_per_class() const { return channels / classes(); }
  DEFORMOPS_INLINE int64_t input_channel(int64_t channel, int64_t bin_y, int64_t bin_x) const {
    return (channel * groups_y + bin_y * groups_y / pooled_y) * groups_x +
           bin_x * groups_x / pooled_x;
  }

  DEFORMOPS_INLINE int64_t image(int64_t k) const { return static_cast<int64_t>(boxes(k, 0)); }
  DEFORMOPS_INLINE bool has_image(int64_t k, int64_t batch) const {
    const C number = boxes(k, 0);
    return number >= C(0) && number < static_cast<C>(batch) && number == std::floor(number);
  }

  DEFORMOPS_INLINE RoiBox<C> box(int64_t k) const {
    const C corners[4] = {boxes(k, 1), boxes(k, 2), boxes(k, 3), boxes(k, 4)};
    RoiBox<C> result = {image(k), RoiState::kUsable, axis(corners[1], corners[3], pooled_y),
                        axis(corners[0], corners[2], pooled_x)};
    const C all = (corners[0] + corners[1] + corners[2] + corners[3]) * C(0);
    const bool is_nan = corners[0] != corners[0] || corners[1] != corners[1] ||
                        corners[2] != corners[2] || corners[3] != corners[3];
    if (is_nan) {
      result.state = RoiState::kNan;
    } else if (all != C(0) || !is_finite(result.y) || !is_finite(result.x) ||
               (is_pixels() && (!(result.y.extent > C(0)) || !(result.x.extent > C(0))))) {
      result.state = RoiState::kNothing;
    }
    return result;
  }

  // The pixels of a bin, where bins are made of pixels.
  DEFORMOPS_INLINE Range pixels_y(const RoiBox<C>& box, int64_t bin) const {
    return pixels(box.y, bin, height);
  }
  DEFORMOPS_INLINE Range pixels_x(const RoiBox<C>& box, int64_t bin) const {
    return pixels(box.x, bin, width);
  }

  // How far offsets move the bins of a class, in pixels of the map.
  DEFORMOPS_INLINE C move_y(const RoiBox<C>& box, int64_t k, int64_t cls, int64_t bin_y,
                            int64_t bin_x) const {
    return move(box.y, k, 2 * cls + 1, bin_y, bin_x);
  }
  DEFORMOPS_INLINE C move_x(const RoiBox<C>& box, int64_t k, int64_t cls, int64_t bin_y,
                            int64_t bin_x) const {
    return move(box.x, k, 2 * cls, bin_y, bin_x);
  }

  // The samples of a bin that may be inside the map; all others are not. Few even if the box is
  // huge. Of a bin that NaN has moved, one sample is enough to show it.
  DEFORMOPS_INLINE Range samples_y(const RoiBox<C>& box, int64_t bin, C move) const {
    return inside(box.y, bin, move, height);
  }
  DEFORMOPS_INLINE Range samples_x(const RoiBox<C>& box, int64_t bin, C move) const {
    return inside(box.x, bin, move, width);
  }

  DEFORMOPS_INLINE C position_y(const RoiBox<C>& box, int64_t bin, int64_t sample, C move) const {
    return position(box.y, bin, sample, move);
  }
  DEFORMOPS_INLINE C position_x(const RoiBox<C>& box, int64_t bin, int64_t sample, C move) const {
    return position(box.x, bin, sample, move);
  }

  // Where a sample looks. `raise_y`, `raise_x` add to the order: the slopes that the gradient of
  // the offset needs. The weights carry the slope's factor, how fast the offset moves the sample.
  DEFORMOPS_INLINE SampleStencil<C> stencil(const RoiBox<C>& box, C y, C x, int raise_y = 0,
                                            int raise_x = 0) const {
    return {weigh(box.y, y, height, order_y + raise_y), weigh(box.x, x, width, order_x + raise_x),
            is_inside(y, height) && is_inside(x, width)};
  }

  // The number that a sum over the samples is divided by; `inside` of them are.
  DEFORMOPS_INLINE C divisor(const RoiBox<C>& box, int64_t inside) const {
    const C count = convention.mean_of_inside
                        ? static_cast<C>(inside)
                        : static_cast<C>(box.y.samples) * static_cast<C>(box.x.samples);
    return count > C(1) ? count : C(1);
  }

  // The above for one axis of a box and the size of the map along it: bins of pixels and grids of
  // samples are products of what either axis has.
  static DEFORMOPS_INLINE Range pixels(const RoiAxis<C>& axis, int64_t bin, int64_t size) {
    // Rounded once, not as each compiler likes: where an edge is a whole number, the last bit
    // decides on a pixel.
    const C first = std::fma(static_cast<C>(bin), axis.bin, axis.start);
    const C end = std::fma(static_cast<C>(bin + 1), axis.bin, axis.start);
    return {clamp(std::floor(first) + axis.whole, size), clamp(std::ceil(end) + axis.whole, size)};
  }

  DEFORMOPS_INLINE C move(const RoiAxis<C>& axis, int64_t k, int64_t channel, int64_t bin_y,
                          int64_t bin_x) const {
    if (!offset.defined()) return C(0);
    const int64_t part_y = bin_y * offset.sizes[2] / pooled_y;
    const int64_t part_x = bin_x * offset.sizes[3] / pooled_x;
    return static_cast<C>(offset(k, channel, part_y, part_x)) * speed(axis);
  }

  DEFORMOPS_INLINE C position(const RoiAxis<C>& axis, int64_t bin, int64_t sample, C move) const {
    const C corner = std::fma(static_cast<C>(bin), axis.bin, axis.start) + move;
    const C centre = convention.points == RoiPoints::kCentred ? C(.5) : C(0);
    return corner + (static_cast<C>(sample) + centre) * axis.bin / static_cast<C>(axis.samples);
  }

  DEFORMOPS_INLINE bool is_inside(C position, int64_t size) const {
    const C margin = static_cast<C>(convention.margin);
    return !(position < -margin) && !(position > static_cast<C>(size - 1) + margin);
  }

  // Solves position() for the sample, with a sample to spare at either end for the rounding.
  DEFORMOPS_INLINE Range inside(const RoiAxis<C>& axis, int64_t bin, C move, int64_t size) const {
    if (axis.samples == 0) return {0, 0};
    const C step = axis.bin / static_cast<C>(axis.samples);
    const C corner = position(axis, bin, 0, move);
    const C margin = static_cast<C>(convention.margin);
    if (corner != corner) return {0, 1};
    const C to_low = (-margin - corner) / step;
    const C to_high = (static_cast<C>(size - 1) + margin - corner) / step;
    if (to_low != to_low || to_high != to_high) return {0, axis.samples};
    const C first = step < C(0) ? to_high : to_low, last = step < C(0) ? to_low : to_high;
    const int64_t begin = clamp(std::floor(first) - C(1), axis.samples);
    const int64_t end = clamp(std::ceil(last) + C(2), axis.samples);
    return {begin, end > begin ? end : begin};
  }

  // Inside the margin the map goes on as its outermost pixels are.
  DEFORMOPS_INLINE AxisStencil<C> weigh(const RoiAxis<C>& axis, C position, int64_t size,
                                        int order) const {
    AxisStencil<C> stencil = clamped_stencil(position, size, order);
    if (order == 1) {
      stencil.weight[0] *= speed(axis);
      stencil.weight[1] *= speed(axis);
    }
    return stencil;
  }

 private:
  DEFORMOPS_INLINE bool is_pixels() const { return convention.points == RoiPoints::kPixels; }

  static DEFORMOPS_INLINE bool is_finite(const RoiAxis<C>& axis) {
    return (axis.whole + axis.start + axis.extent) * C(0) == C(0);
  }

  DEFORMOPS_INLINE RoiAxis<C> axis(C low, C high, int64_t bins) const {
    const C scale = static_cast<C>(spatial_scale), far = static_cast<C>(convention.far_end);
    const C shift = static_cast<C>(convention.shift), least = static_cast<C>(convention.least);
    RoiAxis<C> axis = {};
    C end;
    switch (convention.rounding) {
      case RoiRounding::kMap:
        axis.whole = std::round(low * scale);
        end = std::round(high * scale) + far - axis.whole;
        break;
      case RoiRounding::kImage:
        axis.start = std::fma(std::round(low), scale, -shift);
        end = std::fma(std::round(high) + far, scale, -shift);
        break;
      default:
        axis.start = std::fma(low, scale, -shift);
        end = std::fma(high + far, scale, -shift);
    }
    axis.extent = end - axis.start;
    if (least > C(0) && !(axis.extent > least)) axis.extent = least;
    axis.bin = axis.extent / static_cast<C>(bins);
    axis.samples = samples > 0 ? samples : clamp(std::ceil(axis.bin), int64_t{1} << 40);
    return axis;
  }

  // A number that may be anything but NaN, as an integer from 0 to most.
  static DEFORMOPS_INLINE int64_t clamp(C number, int64_t most) {
    if (!(number > C(0))) return 0;
    return number < static_cast<C>(most) ? static_cast<int64_t>(number) : most;
  }

  // How many pixels of the map an offset of 1 is.
  DEFORMOPS_INLINE C speed(const RoiAxis<C>& axis) const {
    return static_cast<C>(offset_scale) * axis.extent;
  }
};

}  // namespace deformops

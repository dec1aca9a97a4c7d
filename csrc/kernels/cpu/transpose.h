// Between the public layouts and rows of channels, converting between storage and compute type.
#pragma once

#include <cstdint>

#include "core/view.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Transposes kLanes vectors: exchanging halves, then quarters of them, and so on.
template <class C, int kWidth>
DEFORMOPS_INLINE void transpose_square(Vector<C>* square) {
  if constexpr (kWidth > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<C>; ++i) {
      if ((i & kWidth) == 0) exchange<C, kWidth>(square[i], square[i + kWidth]);
    }
    transpose_square<C, kWidth / 2>(square);
  }
}

// target[j * target_stride + i] = source[i * source_stride + j] for i < height, j < width. Where
// squares do not fit evenly the last ones overlap, and some elements are written twice.
template <class C, class From, class To>
DEFORMOPS_INLINE void transpose(const From* source, int64_t source_stride, int64_t height,
                                int64_t width, To* target, int64_t target_stride) {
  constexpr int64_t kSide = kLanes<C>;
  const int64_t rows = smaller(kSide, height), columns = smaller(kSide, width);
  for (int64_t row = 0; row < height; row += kSide) {
    const int64_t i0 = smaller(row, height - rows);
    for (int64_t column = 0; column < width; column += kSide) {
      const int64_t j0 = smaller(column, width - columns);
      const From* const from = source + i0 * source_stride + j0;
      To* const to = target + j0 * target_stride + i0;
      if (rows == kSide && columns == kSide) {
        Vector<C> square[kSide];
#pragma GCC unroll 16
        for (int64_t i = 0; i < kSide; ++i) square[i] = load_as<C>(from + i * source_stride);
        transpose_square<C, kSide / 2>(square);
#pragma GCC unroll 16
        for (int64_t j = 0; j < kSide; ++j) store_as<C>(to + j * target_stride, square[j]);
      } else {
        for (int64_t j = 0; j < columns; ++j) {
          for (int64_t i = 0; i < rows; ++i) {
            to[j * target_stride + i] = convert<To>(convert<C>(from[i * source_stride + j]));
          }
        }
      }
    }
  }
}

// How channels and pixels lie in memory, in elements.
struct Strides {
  int64_t channel, pixel;
};

// target(c, p) = source(c, p), converted once.
template <class C, class From, class To>
void rearrange(const From* source, Strides from, int64_t channels, int64_t pixels, To* target,
               Strides to) {
  if (from.pixel == 1 && to.channel == 1) {
    transpose<C>(source, from.channel, channels, pixels, target, to.pixel);
  } else if (from.channel == 1 && to.pixel == 1) {
    transpose<C>(source, from.pixel, pixels, channels, target, to.channel);
  } else if (from.channel == 1 && to.channel == 1) {
    for (int64_t p = 0; p < pixels; ++p) {
      const From* const row = source + p * from.pixel;
      To* const out = target + p * to.pixel;
      int64_t c = 0;
      for (; c + kLanes<C> <= channels; c += kLanes<C>) store_as<C>(out + c, load_as<C>(row + c));
      for (; c < channels; ++c) out[c] = convert<To>(convert<C>(row[c]));
    }
  } else {
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        target[p * to.pixel + c * to.channel] =
            convert<To>(convert<C>(source[p * from.pixel + c * from.channel]));
      }
    }
  }
}

// Pixels in a row whose addresses differ by one stride: all of a map, or only one of its rows.
template <class T>
struct PixelRun {
  T* data;  // channel 0
  int64_t pixels;
  int64_t first;  // counted from the first pixel asked for
};

// Calls body(run) for the pixels [begin, end) of image n, in order.
template <class T, class Body>
DEFORMOPS_INLINE void for_each_run(const View<T, 4>& view, int64_t n, int64_t begin, int64_t end,
                                   const Body& body) {
  const int64_t width = view.sizes[3];
  const bool dense = view.strides[2] == width * view.strides[3] || view.sizes[2] == 1;
  for (int64_t p = begin; p < end;) {
    const int64_t stop = dense ? end : smaller(end, (p / width + 1) * width);
    body(PixelRun<T>{view.pointer(n, 0, p / width, p % width), stop - p, p - begin});
    p = stop;
  }
}

// Channels [channel, channel + channels) of pixels [begin, end) of image n, as rows.
template <class T, class C>
DEFORMOPS_INLINE void pixels_to_rows(const View<const T, 4>& view, int64_t n, int64_t begin,
                                     int64_t end, int64_t channel, int64_t channels, C* rows,
                                     int64_t row_stride) {
  for_each_run(view, n, begin, end, [&](const PixelRun<const T>& run) {
    rearrange<C>(run.data + channel * view.strides[1], {view.strides[1], view.strides[3]}, channels,
                 run.pixels, rows + run.first * row_stride, {1, row_stride});
  });
}

template <class T, class C>
DEFORMOPS_INLINE void rows_to_pixels(const C* rows, int64_t row_stride, const View<T, 4>& view,
                                     int64_t n, int64_t begin, int64_t end, int64_t channel,
                                     int64_t channels) {
  for_each_run(view, n, begin, end, [&](const PixelRun<T>& run) {
    rearrange<C>(rows + run.first * row_stride, {1, row_stride}, channels, run.pixels,
                 run.data + channel * view.strides[1], {view.strides[1], view.strides[3]});
  });
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

// Between the public layouts and rows of channels, converting between storage and compute type.
#pragma once

#include <cstdint>

#include "core/view.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Both buffers of a transposition of this many channels and pixels stay in the first-level cache.
constexpr int64_t kTransposed = 32;

// rows[p * row_stride + c] = source[c * channel_stride + p * pixel_stride].
template <class T, class C>
void to_rows(const T* source, int64_t channel_stride, int64_t pixel_stride, int64_t channels,
             int64_t pixels, C* rows, int64_t row_stride) {
  if (channel_stride == 1) {
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        rows[p * row_stride + c] = convert<C>(source[p * pixel_stride + c]);
      }
    }
    return;
  }
  C square[kTransposed][kTransposed];
  for (int64_t p0 = 0; p0 < pixels; p0 += kTransposed) {
    const int64_t height = smaller(kTransposed, pixels - p0);
    for (int64_t c0 = 0; c0 < channels; c0 += kTransposed) {
      const int64_t width = smaller(kTransposed, channels - c0);
      for (int64_t c = 0; c < width; ++c) {
        const T* line = source + (c0 + c) * channel_stride + p0 * pixel_stride;
        if (pixel_stride == 1) {
          for (int64_t p = 0; p < height; ++p) square[p][c] = convert<C>(line[p]);
        } else {
          for (int64_t p = 0; p < height; ++p) square[p][c] = convert<C>(line[p * pixel_stride]);
        }
      }
      for (int64_t p = 0; p < height; ++p) {
        C* row = rows + (p0 + p) * row_stride + c0;
        for (int64_t c = 0; c < width; ++c) row[c] = square[p][c];
      }
    }
  }
}

// target[c * channel_stride + p * pixel_stride] = rows[p * row_stride + c], rounded.
template <class T, class C>
void from_rows(const C* rows, int64_t row_stride, int64_t channels, int64_t pixels, T* target,
               int64_t channel_stride, int64_t pixel_stride) {
  if (channel_stride == 1) {
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        target[p * pixel_stride + c] = convert<T>(rows[p * row_stride + c]);
      }
    }
    return;
  }
  C square[kTransposed][kTransposed];
  for (int64_t p0 = 0; p0 < pixels; p0 += kTransposed) {
    const int64_t height = smaller(kTransposed, pixels - p0);
    for (int64_t c0 = 0; c0 < channels; c0 += kTransposed) {
      const int64_t width = smaller(kTransposed, channels - c0);
      for (int64_t p = 0; p < height; ++p) {
        const C* row = rows + (p0 + p) * row_stride + c0;
        for (int64_t c = 0; c < width; ++c) square[c][p] = row[c];
      }
      for (int64_t c = 0; c < width; ++c) {
        T* line = target + (c0 + c) * channel_stride + p0 * pixel_stride;
        if (pixel_stride == 1) {
          for (int64_t p = 0; p < height; ++p) line[p] = convert<T>(square[c][p]);
        } else {
          for (int64_t p = 0; p < height; ++p) line[p * pixel_stride] = convert<T>(square[c][p]);
        }
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
    to_rows(run.data + channel * view.strides[1], view.strides[1], view.strides[3], channels,
            run.pixels, rows + run.first * row_stride, row_stride);
  });
}

template <class T, class C>
DEFORMOPS_INLINE void rows_to_pixels(const C* rows, int64_t row_stride, const View<T, 4>& view,
                                     int64_t n, int64_t begin, int64_t end, int64_t channel,
                                     int64_t channels) {
  for_each_run(view, n, begin, end, [&](const PixelRun<T>& run) {
    from_rows(rows + run.first * row_stride, row_stride, channels, run.pixels,
              run.data + channel * view.strides[1], view.strides[1], view.strides[3]);
  });
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

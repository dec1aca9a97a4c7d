// A bin of many channels at once: its pixels are rows of neighbouring channels, so reading a bin,
// its transpose and its slope are a few fused multiply-adds on whole vectors for each pixel.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/view.h"
#include "kernels/cpu/roi_table.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// A row of channels: kCount vectors, or, if that is 0, the number of a single channel.
template <class C, int kCount>
struct Row {
  using Part = std::conditional_t<kCount == 0, C, Vector<C>>;
  static constexpr int kParts = kCount == 0 ? 1 : kCount;
  static constexpr int kStep = kCount == 0 ? 1 : kLanes<C>;
  static constexpr int64_t kPitch = kParts * kStep;

  static DEFORMOPS_INLINE Part read(const C* row, int part) {
    Part result;
    memcpy(&result, row + part * kStep, sizeof(result));
    return result;
  }
  static DEFORMOPS_INLINE void write(C* row, int part, Part value) {
    memcpy(row + part * kStep, &value, sizeof(value));
  }
};

// Calls body(Row<C, 1>{}) or body(Row<C, 2>{}), whichever holds so many channels.
template <class C, class Body>
DEFORMOPS_INLINE void with_row(int64_t channels, const Body& body) {
  if (channels <= kLanes<C>) {
    body(Row<C, 1>{});
  } else {
    body(Row<C, 2>{});
  }
}

// Elements between rows of so many channels.
template <class C>
DEFORMOPS_INLINE int64_t row_pitch(int64_t channels) {
  return channels <= kLanes<C> ? kLanes<C> : kBlock<C>;
}

// Rows of channels of some pixels of a map; `origin` is where that of pixel (0, 0) would be.
template <class C>
struct RoiMap {
  C* origin;
  int64_t stride_y;
};

template <class C>
DEFORMOPS_INLINE RoiMap<C> map_of(C* rows, const Rectangle& rectangle, int64_t pitch) {
  const int64_t first = rectangle.y.first * rectangle.width() + rectangle.x.first;
  return {at_distance(rows, -first * pitch), rectangle.width() * pitch};
}

// out = scale * sum over the pixels of a bin.
template <class Row, class C>
DEFORMOPS_INLINE void gather_bin(const RoiMap<const C>& map, const RoiTaps<C>& rows,
                                 const RoiTaps<C>& columns, C scale, C* out) {
  typename Row::Part sums[Row::kParts] = {};
  for (int64_t i = 0; i < rows.count; ++i) {
    const C* const row = at_distance(map.origin, rows.taps[i].index * map.stride_y);
    typename Row::Part row_sums[Row::kParts] = {};
    for (int64_t j = 0; j < columns.count; ++j) {
      const C* const pixel = at_distance(row, columns.taps[j].index * Row::kPitch);
      for (int part = 0; part < Row::kParts; ++part) {
        row_sums[part] += columns.taps[j].weight * Row::read(pixel, part);
      }
    }
    for (int part = 0; part < Row::kParts; ++part) {
      sums[part] += rows.taps[i].weight * row_sums[part];
    }
  }
  for (int part = 0; part < Row::kParts; ++part) Row::write(out, part, scale * sums[part]);
}

// Its transpose: pixels += weight * scale * grad.
template <class Row, class C>
DEFORMOPS_INLINE void scatter_bin(const RoiMap<C>& map, const RoiTaps<C>& rows,
                                  const RoiTaps<C>& columns, C scale, const C* grad) {
  typename Row::Part scaled[Row::kParts];
  for (int part = 0; part < Row::kParts; ++part) scaled[part] = scale * Row::read(grad, part);
  for (int64_t i = 0; i < rows.count; ++i) {
    C* const row = at_distance(map.origin, rows.taps[i].index * map.stride_y);
    typename Row::Part of_row[Row::kParts];
    for (int part = 0; part < Row::kParts; ++part) {
      of_row[part] = rows.taps[i].weight * scaled[part];
    }
    for (int64_t j = 0; j < columns.count; ++j) {
      C* const pixel = at_distance(row, columns.taps[j].index * Row::kPitch);
      for (int part = 0; part < Row::kParts; ++part) {
        Row::write(pixel, part, Row::read(pixel, part) + columns.taps[j].weight * of_row[part]);
      }
    }
  }
}

// Adds <grad, how a bin changes as it moves> to the sums, lane by lane.
template <class Row, class C>
DEFORMOPS_INLINE void slope_bin(const RoiMap<const C>& map, const RoiTaps<C>& rows,
                                const RoiTaps<C>& columns, const C* grad, typename Row::Part& sum_y,
                                typename Row::Part& sum_x) {
  typename Row::Part slopes_y[Row::kParts] = {}, slopes_x[Row::kParts] = {};
  for (int64_t i = 0; i < rows.count; ++i) {
    const C* const row = at_distance(map.origin, rows.taps[i].index * map.stride_y);
    typename Row::Part values[Row::kParts] = {}, slopes[Row::kParts] = {};
    for (int64_t j = 0; j < columns.count; ++j) {
      const C* const pixel = at_distance(row, columns.taps[j].index * Row::kPitch);
      for (int part = 0; part < Row::kParts; ++part) {
        const typename Row::Part channels = Row::read(pixel, part);
        values[part] += columns.taps[j].weight * channels;
        slopes[part] += columns.taps[j].slope * channels;
      }
    }
    for (int part = 0; part < Row::kParts; ++part) {
      slopes_y[part] += rows.taps[i].slope * values[part];
      slopes_x[part] += rows.taps[i].weight * slopes[part];
    }
  }
  for (int part = 0; part < Row::kParts; ++part) {
    sum_y += Row::read(grad, part) * slopes_y[part];
    sum_x += Row::read(grad, part) * slopes_x[part];
  }
}

// Some channels of one image of a tensor whose channels are `step` apart, and of these a rectangle
// of pixels.
template <class T>
DEFORMOPS_INLINE View<T, 4> part_of(const View<T, 4>& view, int64_t n, int64_t channel,
                                    int64_t step, const Rectangle& rectangle) {
  return {view.pointer(n, channel, rectangle.y.first, rectangle.x.first),
          {1, 1, rectangle.height(), rectangle.width()},
          {view.strides[0], step * view.strides[1], view.strides[2], view.strides[3]}};
}

// Rows of channels, zeros beyond them.
template <class T, class C>
DEFORMOPS_INLINE void to_padded_rows(const View<const T, 4>& view, int64_t n, int64_t begin,
                                     int64_t end, int64_t channel, int64_t channels, C* rows) {
  const int64_t pitch = row_pitch<C>(channels);
  if (channels < pitch) memset(rows, 0, static_cast<size_t>((end - begin) * pitch) * sizeof(C));
  pixels_to_rows(view, n, begin, end, channel, channels, rows, pitch);
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

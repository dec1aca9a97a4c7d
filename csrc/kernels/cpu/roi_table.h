// The table of bins: what the bins of a box read, made once and used for all channels.
//
// The samples of a bin are a grid, and bilinear weights are a product of a hat in y and one in x.
// So a bin is a list of weighted rows and one of weighted columns, the sums of its samples'
// weights:
//     sum over samples = sum over rows of weight * (sum over columns of weight * pixel),
// where bins of n x n samples a pixel apart read (n + 1)^2 pixels instead of 4 * n^2.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "geometry/roi.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Boxes are worked on a band at a time: as many as have tables (and what else is kept of them) of
// this size together, at least one.
constexpr int64_t kBandBytes = int64_t{16} << 20;

// A row or a column of pixels. `slope` is the weight one order higher, for the gradient of the
// offset.
template <class C>
struct RoiTap {
  int64_t index;
  C weight, slope;
};

// One axis of a bin; the taps are in rising order.
template <class C>
struct RoiTaps {
  const RoiTap<C>* taps;
  int64_t count;
  int64_t inside;  // samples that count, or pixels
  bool is_nan;     // the result is, if there is something inside on the other axis

  DEFORMOPS_INLINE int64_t first() const { return taps[0].index; }
  DEFORMOPS_INLINE int64_t end() const { return taps[count - 1].index + 1; }
};

struct Rectangle {
  Range y = {0, 0}, x = {0, 0};

  DEFORMOPS_INLINE int64_t height() const { return y.end - y.first; }
  DEFORMOPS_INLINE int64_t width() const { return x.end - x.first; }
  DEFORMOPS_INLINE int64_t area() const { return height() * width(); }

  DEFORMOPS_INLINE void include(const Rectangle& other) {
    if (other.area() == 0) return;
    if (area() == 0) {
      *this = other;
    } else {
      y = {smaller(y.first, other.y.first), larger(y.end, other.y.end)};
      x = {smaller(x.first, other.x.first), larger(x.end, other.x.end)};
    }
  }
};

// Bins of one group on one axis.
DEFORMOPS_INLINE Range bins_of_group(int64_t group, int64_t groups, int64_t bins) {
  return {divide_up(group * bins, groups), divide_up((group + 1) * bins, groups)};
}

// Boxes in the order of their images, those of one image in their own.
template <class T>
class BoxesByImage {
 public:
  BoxesByImage(const Context& context, const RoiBins<T>& bins, int64_t images)
      : boxes_(bins.boxes.sizes[0]),
        images_(images),
        start_(allocate<int64_t>(context, images + 1)),
        order_(allocate<int64_t>(context, boxes_)) {
    for (int64_t n = 0; n <= images; ++n) start_[n] = 0;
    for (int64_t k = 0; k < boxes_; ++k) ++start_[bins.image(k) + 1];
    for (int64_t n = 0; n < images; ++n) start_[n + 1] += start_[n];
    for (int64_t k = 0; k < boxes_; ++k) order_[start_[bins.image(k)]++] = k;
    for (int64_t n = images; n > 0; --n) start_[n] = start_[n - 1];
    start_[0] = 0;
  }

  int64_t boxes() const { return boxes_; }
  int64_t images() const { return images_; }

  // The boxes of image n are number start(n) to start(n + 1) in this order.
  DEFORMOPS_INLINE int64_t start(int64_t n) const { return start_[n]; }
  DEFORMOPS_INLINE int64_t box(int64_t number) const { return order_[number]; }

 private:
  int64_t boxes_, images_;
  int64_t* start_;
  int64_t* order_;
};

// The tables of a band of boxes.
template <class T>
class RoiTable : public BoxesByImage<T> {
 public:
  using C = compute_t<T>;

  // `box_bytes`: what the caller keeps of each box of a band.
  RoiTable(const Context& context, const RoiBins<T>& bins, int64_t images, int64_t box_bytes)
      : BoxesByImage<T>(context, bins, images),
        bins_(bins),
        per_bin_(bins.offset.defined()),
        lists_(per_bin_ ? 2 * bins.classes() * bins.pooled_y * bins.pooled_x
                        : bins.pooled_y + bins.pooled_x),
        box_bytes_(box_bytes + static_cast<int64_t>(sizeof(Box)) +
                   lists_ * static_cast<int64_t>(sizeof(RoiTaps<C>))) {
    capacity_ = allocate<int64_t>(context, boxes());
    for (int64_t number = 0; number < boxes(); ++number) capacity_[number] = most_taps(number);
    int64_t most = 0;
    for (int64_t first = 0, end = 0; first < boxes(); first = end) {
      end = end_of_band(first);
      int64_t taps = 0;
      for (int64_t number = first; number < end; ++number) taps += capacity_[number];
      band_boxes_ = larger(band_boxes_, end - first);
      most = larger(most, taps);
    }
    table_ = allocate<Box>(context, band_boxes_);
    all_lists_ = allocate<RoiTaps<C>>(context, band_boxes_ * lists_);
    all_taps_ = allocate<RoiTap<C>>(context, most);
    if (is_pixels()) {
      const int64_t longest = larger(bins.height, bins.width);
      pixels_ = allocate<RoiTap<C>>(context, longest);
      for (int64_t i = 0; i < longest; ++i) pixels_[i] = {i, C(1), C(0)};
    }
  }

  using BoxesByImage<T>::boxes;
  using BoxesByImage<T>::box;
  using BoxesByImage<T>::start;

  int64_t band_boxes() const { return band_boxes_; }  // at most
  DEFORMOPS_INLINE int64_t image(int64_t number) const { return bins_.image(box(number)); }
  int64_t place(int64_t number) const { return number - first_; }  // in the open band

  // Makes the tables of a band of boxes that begins with number `first`; returns where it ends.
  int64_t open(const Team& team, int64_t first) {
    const int64_t end = end_of_band(first);
    first_ = first;
    RoiTap<C>* taps = all_taps_;
    for (int64_t number = first; number < end; ++number) {
      table_[number - first].taps = taps;
      taps += capacity_[number];
    }
    constexpr int64_t kPart = 8;
    team.for_each(divide_up(end - first, kPart), [&](int64_t task, int64_t) {
      const int64_t stop = smaller(end, first + (task + 1) * kPart);
      for (int64_t number = first + task * kPart; number < stop; ++number) fill(number);
    });
    return end;
  }

  // Of a box of the open band.
  DEFORMOPS_INLINE const RoiTaps<C>& rows(int64_t number, int64_t cls, int64_t by,
                                          int64_t bx) const {
    return lists(number)[per_bin_ ? 2 * bin_of_class(cls, by, bx) : by];
  }
  DEFORMOPS_INLINE const RoiTaps<C>& columns(int64_t number, int64_t cls, int64_t by,
                                             int64_t bx) const {
    return lists(number)[per_bin_ ? 2 * bin_of_class(cls, by, bx) + 1 : bins_.pooled_y + bx];
  }
  // What sums over the taps are multiplied by.
  DEFORMOPS_INLINE C scale(int64_t number, const RoiTaps<C>& rows,
                           const RoiTaps<C>& columns) const {
    if (rows.inside == 0 || columns.inside == 0) return C(0);
    if (rows.is_nan || columns.is_nan) return static_cast<C>(__builtin_nanf(""));
    return C(1) / bins_.divisor(table_[place(number)].box, rows.inside * columns.inside);
  }
  // All that its bins read lies here.
  DEFORMOPS_INLINE const Rectangle& rectangle(int64_t number) const {
    return table_[place(number)].rectangle;
  }
  // How many pixels all bins read together, for each channel.
  DEFORMOPS_INLINE int64_t reads(int64_t number) const { return table_[place(number)].reads; }

 private:
  struct Box {
    RoiBox<C> box;
    Rectangle rectangle;
    int64_t reads;
    RoiTap<C>* taps;
  };

  bool is_pixels() const { return bins_.convention.points == RoiPoints::kPixels; }

  DEFORMOPS_INLINE int64_t bin_of_class(int64_t cls, int64_t by, int64_t bx) const {
    return (cls * bins_.pooled_y + by) * bins_.pooled_x + bx;
  }
  DEFORMOPS_INLINE RoiTaps<C>* lists(int64_t number) const {
    return all_lists_ + place(number) * lists_;
  }

  // Room for the taps of a box: they are strictly rising, and each sample has two.
  int64_t most_taps(int64_t number) const {
    if (is_pixels()) return 0;
    const RoiBox<C> box = bins_.box(this->box(number));
    return (per_bin_ ? lists_ / 2 : bins_.pooled_y) * most_taps(box.y, bins_.height) +
           (per_bin_ ? lists_ / 2 : bins_.pooled_x) * most_taps(box.x, bins_.width);
  }
  static int64_t most_taps(const RoiAxis<C>& axis, int64_t size) {
    return axis.samples < size ? smaller(2 * axis.samples, size) : size;
  }

  // A band has whole images, or a part of one.
  int64_t end_of_band(int64_t first) const {
    const bool goes_on = first > start(image(first));
    int64_t bytes = 0, end_of_image = first, number = first;
    for (; number < boxes(); ++number) {
      if (number > first && image(number) != image(number - 1)) {
        if (goes_on) return number;
        end_of_image = number;
      }
      bytes += box_bytes_ + capacity_[number] * static_cast<int64_t>(sizeof(RoiTap<C>));
      if (number > first && bytes > kBandBytes) return end_of_image > first ? end_of_image : number;
    }
    return number;
  }

  void fill(int64_t number) const {
    Box& entry = table_[number - first_];
    const int64_t k = box(number);
    entry.box = bins_.box(k);
    entry.rectangle = {};
    entry.reads = 0;
    RoiTap<C>* taps = entry.taps;
    RoiTaps<C>* const all = lists(number);
    if (!per_bin_) {
      RoiTaps<C>* const columns = all + bins_.pooled_y;
      int64_t rows_read = 0, columns_read = 0;
      for (int64_t by = 0; by < bins_.pooled_y; ++by) {
        all[by] = list(entry.box, entry.box.y, by, C(0), bins_.height, bins_.order_y, taps);
        include(all[by], entry.rectangle.y);
        rows_read += all[by].count;
      }
      for (int64_t bx = 0; bx < bins_.pooled_x; ++bx) {
        columns[bx] = list(entry.box, entry.box.x, bx, C(0), bins_.width, bins_.order_x, taps);
        include(columns[bx], entry.rectangle.x);
        columns_read += columns[bx].count;
      }
      entry.reads = rows_read * columns_read;
      return;
    }
    for (int64_t cls = 0; cls < bins_.classes(); ++cls) {
      for (int64_t by = 0; by < bins_.pooled_y; ++by) {
        for (int64_t bx = 0; bx < bins_.pooled_x; ++bx) {
          RoiTaps<C>* const bin = all + 2 * bin_of_class(cls, by, bx);
          bin[0] = list(entry.box, entry.box.y, by, bins_.move_y(entry.box, k, cls, by, bx),
                        bins_.height, bins_.order_y, taps);
          bin[1] = list(entry.box, entry.box.x, bx, bins_.move_x(entry.box, k, cls, by, bx),
                        bins_.width, bins_.order_x, taps);
          if (bin[0].count == 0 || bin[1].count == 0) continue;
          include(bin[0], entry.rectangle.y);
          include(bin[1], entry.rectangle.x);
          entry.reads += bin[0].count * bin[1].count;
        }
      }
    }
    entry.reads /= bins_.classes();
  }

  static DEFORMOPS_INLINE void include(const RoiTaps<C>& list, Range& range) {
    if (list.count == 0) return;
    if (range.end == range.first) range = {list.first(), list.end()};
    range = {smaller(range.first, list.first()), larger(range.end, list.end())};
  }

  // Writes the taps of one axis of a bin to `next` and moves it behind them.
  DEFORMOPS_INLINE RoiTaps<C> list(const RoiBox<C>& box, const RoiAxis<C>& axis, int64_t bin,
                                   C move, int64_t size, int order, RoiTap<C>*& next) const {
    if (box.state != RoiState::kUsable) {
      const bool is_nan = box.state == RoiState::kNan;
      return {nullptr, 0, is_nan ? 1 : 0, is_nan};
    }
    if (is_pixels()) {
      const Range pixels = bins_.pixels(axis, bin, size);
      const int64_t count = larger(0, pixels.end - pixels.first);
      return {pixels_ + pixels.first, count, count, false};
    }
    RoiTaps<C> result = {next, 0, 0, false};
    const Range samples = bins_.inside(axis, bin, move, size);
    const int64_t count = samples.end - samples.first;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t sample = axis.bin < C(0) ? samples.end - 1 - i : samples.first + i;
      const C position = bins_.position(axis, bin, sample, move);
      if (!bins_.is_inside(position, size)) continue;
      ++result.inside;
      if (position != position) {
        result.is_nan = true;
        break;
      }
      const AxisStencil<C> value = bins_.weigh(axis, position, size, order);
      const AxisStencil<C> slope = bins_.weigh(axis, position, size, order + 1);
      for (int side = 0; side < 2; ++side) {
        if (value.index[side] < 0) continue;
        add(value.index[side], value.weight[side], slope.weight[side], next, result.count);
      }
    }
    return result;
  }

  static DEFORMOPS_INLINE void add(int64_t index, C weight, C slope, RoiTap<C>*& next,
                                   int64_t& count) {
    for (int64_t back = 1; back <= 2 && back <= count; ++back) {
      if (next[-back].index == index) {
        next[-back].weight += weight;
        next[-back].slope += slope;
        return;
      }
    }
    *next++ = {index, weight, slope};
    ++count;
  }

  RoiBins<T> bins_;
  bool per_bin_;   // offsets move every bin for itself
  int64_t lists_;  // of a box: all rows, then all columns; or rows and columns of every bin
  int64_t box_bytes_;
  int64_t band_boxes_ = 0, first_ = 0;
  int64_t* capacity_ = nullptr;  // taps
  Box* table_ = nullptr;
  RoiTaps<C>* all_lists_ = nullptr;
  RoiTap<C>* all_taps_ = nullptr;
  RoiTap<C>* pixels_ = nullptr;  // of weight 1: all bins of pixels are parts of this list
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

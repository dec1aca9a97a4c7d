// How the boxes of a band are cut into tasks: a block of channels of some boxes of one image.
#pragma once

#include <cstdint>

#include "kernels/cpu/maps.h"
#include "kernels/cpu/roi_rows.h"
#include "kernels/cpu/roi_table.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Threads for so many reads of pixels, each by so many channels.
template <class T>
Team team_for(const RoiBins<T>& bins) {
  constexpr int64_t kReads = 16;  // of a bin, to the order of magnitude
  return Team(bins.boxes.sizes[0] * bins.pooled_y * bins.pooled_x * bins.channels * kReads);
}

// The channels of the output, cut into blocks within one class.
template <class T>
ChannelBlocks blocks_of(const RoiBins<T>& bins) {
  return {bins.channels, bins.channels, bins.channels_per_class(), kBlock<compute_t<T>>};
}

// Whether every channel has bins of its own: rows of channels would be mostly empty.
template <class T>
DEFORMOPS_INLINE bool has_single_channels(const RoiBins<T>& bins) {
  return bins.channels_per_class() == 1;
}

template <class T>
struct RoiTask {
  int64_t image;
  int64_t first, end;  // boxes, by their number in the table
  int64_t block;       // of channels
  int64_t group_y, group_x;
  Rectangle rectangle;  // of pixels that the boxes read

  // The bins of the group.
  DEFORMOPS_INLINE Range bins_y(const RoiBins<T>& bins) const {
    return bins_of_group(group_y, bins.groups_y, bins.pooled_y);
  }
  DEFORMOPS_INLINE Range bins_x(const RoiBins<T>& bins) const {
    return bins_of_group(group_x, bins.groups_x, bins.pooled_x);
  }

  // Pixels of a channel of the output.
  template <class Element>
  DEFORMOPS_INLINE View<Element, 4> part_of(const RoiBins<T>& bins, const View<Element, 4>& map,
                                            int64_t channel) const {
    const int64_t step = bins.groups_y * bins.groups_x;
    const int64_t from = channel * step + group_y * bins.groups_x + group_x;
    return {map.pointer(image, from, rectangle.y.first, rectangle.x.first),
            {1, 1, rectangle.height(), rectangle.width()},
            {map.strides[0], step * map.strides[1], map.strides[2], map.strides[3]}};
  }
};

// The tasks of a band. What a task reads is copied once, as rows of channels: the pixels of all
// boxes of an image together, or of each for itself where these are fewer. Where the boxes read
// even less than that, as few boxes do that have a channel for every bin, channels are read one by
// one, where they lie.
template <class T>
class RoiTasks {
 public:
  using C = compute_t<T>;

  RoiTasks(const Context& context, const RoiBins<T>& bins, const RoiTable<T>& table,
           const Team& team, bool only_by_channel = false)
      : context_(context),
        bins_(bins),
        table_(table),
        team_(team),
        blocks_(blocks_of(bins)),
        groups_(bins.groups_y * bins.groups_x),
        only_by_channel_(only_by_channel || has_single_channels(bins)),
        cliques_(allocate<Clique>(context, table.band_boxes())) {
    for (int64_t b = 0; b < blocks_.count(); ++b) row_ += row_pitch<C>(blocks_.width(b));
  }

  // For boxes first to end of the table, which are open.
  void open(int64_t first, int64_t end) {
    int64_t images = 0, by_row = 0, by_channel = 0;
    for_each_image(first, end, [&](int64_t, const Reads& reads) {
      ++images;
      by_row += reads.pixels * row_ / kLanes<C> +
                smaller(reads.together, reads.apart) * groups_ * row_ / kCopied;
      by_channel += reads.pixels * bins_.channels;
    });
    by_channel_ = only_by_channel_ || by_channel < by_row;
    count_ = 0;
    for_each_image(first, end, [&](int64_t n, const Reads& reads) {
      if (!by_channel_ && reads.apart < reads.together) {
        for (int64_t number = reads.first; number < reads.end; ++number) {
          cliques_[count_++] = {n, number, number + 1, widen(table_.rectangle(number))};
        }
        return;
      }
      // Enough tasks for all threads, though each copies for itself.
      constexpr int64_t kFewest = 16;
      const int64_t boxes = reads.end - reads.first, tasks = images * groups_ * blocks_.count();
      const int64_t wanted = team_.threads() == 1 ? 1 : divide_up(4 * team_.threads(), tasks);
      const int64_t parts = larger(1, smaller(wanted, boxes / kFewest));
      for (int64_t part = 0; part < parts; ++part) {
        cliques_[count_++] = {n, reads.first + boxes * part / parts,
                              reads.first + boxes * (part + 1) / parts, reads.rectangle};
      }
    });
    int64_t pixels = 1;
    for (int64_t i = 0; i < count_; ++i) pixels = larger(pixels, cliques_[i].rectangle.area());
    if (pixels > pixels_) {
      pixels_ = pixels;
      rows_ = allocate<C>(context_, team_.threads() * pixels_ * kBlock<C>);
    }
  }

  bool by_channel() const { return by_channel_; }

  int64_t count() const { return count_ * groups_ * blocks_.count(); }

  RoiTask<T> task(int64_t i) const {
    const Clique& clique = cliques_[i / (groups_ * blocks_.count())];
    const int64_t group = i / blocks_.count() % groups_;
    return {clique.image,           clique.first,           clique.end,      i % blocks_.count(),
            group / bins_.groups_x, group % bins_.groups_x, clique.rectangle};
  }

  // Copies what a task reads. `worker` may open one map at a time.
  RoiMap<const C> map(const RoiTask<T>& task, const View<const T, 4>& input, int64_t worker) const {
    const int64_t channels = blocks_.width(task.block);
    C* const rows = rows_ + worker * pixels_ * kBlock<C>;
    to_padded_rows(task.part_of(bins_, input, blocks_.channel(task.block)), 0, 0,
                   task.rectangle.area(), 0, channels, rows);
    return map_of<const C>(rows, task.rectangle, row_pitch<C>(channels));
  }

  // One channel of the task.
  RoiMap<const C> plane(const RoiTask<T>& task, const View<const T, 4>& input, int64_t channel,
                        int64_t worker) const {
    const View<const T, 4> part = task.part_of(bins_, input, channel);
    if (sizeof(T) == sizeof(C) && part.strides[3] == 1) {
      const int64_t origin =
          task.rectangle.y.first * part.strides[2] + task.rectangle.x.first * part.strides[3];
      return {at_distance(reinterpret_cast<const C*>(part.data), -origin), part.strides[2]};
    }
    C* const rows = rows_ + worker * pixels_ * kBlock<C>;
    pixels_to_rows(part, 0, 0, task.rectangle.area(), 0, 1, rows, 1);
    return map_of<const C>(rows, task.rectangle, 1);
  }

 private:
  // Elements that are copied in the time that it takes to read a vector.
  static constexpr int64_t kCopied = 4;

  struct Clique {
    int64_t image, first, end;
    Rectangle rectangle;
  };

  // What the boxes of one image in a band read: how often pixels, and which.
  struct Reads {
    int64_t first, end;
    int64_t pixels;
    int64_t apart, together;
    Rectangle rectangle;
  };

  template <class Body>
  void for_each_image(int64_t first, int64_t end, const Body& body) const {
    while (first < end) {
      const int64_t n = table_.image(first);
      Reads reads = {first, smaller(end, table_.start(n + 1)), 0, 0, 0, {}};
      for (int64_t number = first; number < reads.end; ++number) {
        reads.pixels += table_.reads(number);
        reads.apart += table_.rectangle(number).area();
        reads.rectangle.include(table_.rectangle(number));
      }
      reads.together = reads.rectangle.area();
      body(n, reads);
      first = reads.end;
    }
  }

  // Transposing works on squares of vectors.
  Rectangle widen(Rectangle rectangle) const {
    if (rectangle.area() == 0) return rectangle;
    const int64_t width = larger(rectangle.width(), smaller(kLanes<C>, bins_.width));
    rectangle.x.first = smaller(rectangle.x.first, bins_.width - width);
    rectangle.x.end = rectangle.x.first + width;
    return rectangle;
  }

  const Context& context_;
  const RoiBins<T>& bins_;
  const RoiTable<T>& table_;
  const Team& team_;
  ChannelBlocks blocks_;
  int64_t groups_;
  bool only_by_channel_;
  int64_t row_ = 0;  // elements of a row of all channels
  Clique* cliques_;
  int64_t count_ = 0;
  bool by_channel_ = false;
  int64_t pixels_ = 0;  // that a thread has room for
  C* rows_ = nullptr;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

// Results and gradients of bins, as rows of channels.
#pragma once

#include <cstdint>

#include "kernels/cpu/roi_tasks.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// A task without groups has all bins of its channels, and makes the rows of some bins at a time.
// With groups many tasks work on the bins of a box, and the rows of a band of boxes are kept.
template <class T>
class RoiTiles {
 public:
  using C = compute_t<T>;

  RoiTiles(const Context& context, const RoiBins<T>& bins, const RoiTable<T>& table,
           const Team& team)
      : bins_(bins),
        table_(table),
        team_(team),
        blocks_(blocks_of(bins)),
        grouped_(bins.groups_y * bins.groups_x > 1),
        step_(grouped_ ? bins.pooled_y : larger(1, smaller(bins.pooled_y, kBins / bins.pooled_x))),
        tile_(step_ * bins.pooled_x * kBlock<C>),
        rows_(allocate<C>(
            context, tile_ * (grouped_ ? table.band_boxes() * blocks_.count() : team.threads()))) {}

  // What a box of a band needs.
  static int64_t box_bytes(const RoiBins<T>& bins) {
    if (bins.groups_y * bins.groups_x == 1) return 0;
    return blocks_of(bins).count() * bins.pooled_y * bins.pooled_x * kBlock<C> *
           static_cast<int64_t>(sizeof(C));
  }

  // Calls fill(bins_y, rows) to make the rows of some bins of a box; bin (by, bx) has row number
  // by * pooled_x + bx.
  template <class Fill>
  DEFORMOPS_INLINE void make(const RoiTask<T>& task, int64_t number, int64_t worker,
                             const View<T, 4>& output, const Fill& fill) const {
    if (grouped_) {
      fill(task.bins_y(bins_), tile_of(number, task.block));
      return;
    }
    for_each_step([&](Range ys) {
      C* const rows = rows_of(task, worker, ys);
      fill(ys, rows);
      write(task, number, ys, rows, output);
    });
  }

  // After all rows of boxes first to end have been made.
  void finish(int64_t first, int64_t end, const View<T, 4>& output) const {
    if (!grouped_) return;
    team_.for_each((end - first) * blocks_.count(), [&](int64_t task, int64_t) {
      const int64_t number = first + task / blocks_.count(), b = task % blocks_.count();
      rows_to_pixels(tile_of(number, b), pitch(b), output, table_.box(number), 0,
                     bins_.pooled_y * bins_.pooled_x, blocks_.channel(b), blocks_.width(b));
    });
  }

  // Before rows of boxes first to end are used.
  void prepare(int64_t first, int64_t end, const View<const T, 4>& grad_output) const {
    if (!grouped_) return;
    team_.for_each((end - first) * blocks_.count(), [&](int64_t task, int64_t) {
      const int64_t number = first + task / blocks_.count(), b = task % blocks_.count();
      to_padded_rows(grad_output, table_.box(number), 0, bins_.pooled_y * bins_.pooled_x,
                     blocks_.channel(b), blocks_.width(b), tile_of(number, b));
    });
  }

  // Calls use(bins_y, rows) with the rows of some bins of a box.
  template <class Use>
  DEFORMOPS_INLINE void use(const RoiTask<T>& task, int64_t number, int64_t worker,
                            const View<const T, 4>& grad_output, const Use& use) const {
    if (grouped_) {
      use(task.bins_y(bins_), tile_of(number, task.block));
      return;
    }
    for_each_step([&](Range ys) {
      C* const rows = rows_of(task, worker, ys);
      to_padded_rows(grad_output, table_.box(number), ys.first * bins_.pooled_x,
                     ys.end * bins_.pooled_x, blocks_.channel(task.block),
                     blocks_.width(task.block), first_of(task, ys, rows));
      use(ys, rows);
    });
  }

  // Calls body(bins_y) for some bins at a time of a task that has all of them.
  template <class Body>
  DEFORMOPS_INLINE void for_each_step(const Body& body) const {
    for (int64_t by = 0; by < bins_.pooled_y; by += step_) {
      body(Range{by, smaller(bins_.pooled_y, by + step_)});
    }
  }

  // Where the rows of these bins are, counted from bin (0, 0).
  DEFORMOPS_INLINE C* rows_of(const RoiTask<T>& task, int64_t worker, Range ys) const {
    return at_distance(rows_ + worker * tile_, -ys.first * bins_.pooled_x * pitch(task.block));
  }

  // Transposes the rows of some bins of a box.
  template <class To>
  DEFORMOPS_INLINE void write(const RoiTask<T>& task, int64_t number, Range ys, const C* rows,
                              const View<To, 4>& output) const {
    rows_to_pixels(first_of(task, ys, rows), pitch(task.block), output, table_.box(number),
                   ys.first * bins_.pooled_x, ys.end * bins_.pooled_x, blocks_.channel(task.block),
                   blocks_.width(task.block));
  }

 private:
  static constexpr int64_t kBins = 256;  // at a time; at least one row of them

  template <class Element>
  DEFORMOPS_INLINE Element* first_of(const RoiTask<T>& task, Range ys, Element* rows) const {
    return at_distance(rows, ys.first * bins_.pooled_x * pitch(task.block));
  }

  DEFORMOPS_INLINE C* tile_of(int64_t number, int64_t b) const {
    return rows_ + (table_.place(number) * blocks_.count() + b) * tile_;
  }
  DEFORMOPS_INLINE int64_t pitch(int64_t b) const { return row_pitch<C>(blocks_.width(b)); }

  const RoiBins<T>& bins_;
  const RoiTable<T>& table_;
  const Team& team_;
  ChannelBlocks blocks_;
  bool grouped_;
  int64_t step_;  // rows of bins
  int64_t tile_;  // elements
  C* rows_;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

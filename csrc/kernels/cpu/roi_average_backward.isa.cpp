// The gradients of the mean of what bins look at.
//
// grad_input is the exact transpose: a task owns a block of channels of one image and adds the bins
// of all boxes of this image to its rows, in their order. grad_offset is the derivative of a bin's
// mean as it moves, times its gradient, summed over channels in vectors, then over blocks and bins
// in their order. So neither depends on the number of threads.
//
// Memory besides the result: the tables of a band of boxes (kBandBytes or one box; with groups also
// their gradients as rows; for grad_offset two sums for each bin and block of channels), and for
// each thread the rows of a block of channels of one image (in all, one image, if a band cannot
// hold all boxes of an image).
#include <optional>

#include "kernels/cpu/roi_isa.h"
#include "kernels/cpu/roi_rows.h"
#include "kernels/cpu/roi_table.h"
#include "kernels/cpu/roi_tasks.h"
#include "kernels/cpu/roi_tiles.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

template <class T>
void fill_with_zeros(const View<T, 4>& view, int64_t begin, int64_t end, int64_t channels) {
  for_each_run(view, 0, begin, end, [&](const PixelRun<T>& run) {
    if (view.strides[3] == 1) {
      for (int64_t c = 0; c < channels; ++c) {
        memset(static_cast<void*>(run.data + c * view.strides[1]), 0,
               static_cast<size_t>(run.pixels) * sizeof(T));
      }
      return;
    }
    for (int64_t p = 0; p < run.pixels; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        run.data[p * view.strides[3] + c * view.strides[1]] = convert<T>(compute_t<T>(0));
      }
    }
  });
}

// What a call of roi_average_backward has in common for both gradients.
template <class T>
struct Call {
  using C = compute_t<T>;

  const Context& context;
  const RoiBins<T>& bins;
  const View<const T, 4>& grad_output;
  const Team& team;
  const RoiTable<T>& table;
  const RoiTiles<T>& tiles;
  ChannelBlocks blocks;

  // Calls body(bin's rows, columns, scale, by, bx) for some bins of a box.
  template <class Body>
  DEFORMOPS_INLINE void for_each_bin(int64_t number, int64_t block, Range ys, Range xs,
                                     const Body& body) const {
    const int64_t cls = blocks.offset_group(block);
    for (int64_t by = ys.first; by < ys.end; ++by) {
      for (int64_t bx = xs.first; bx < xs.end; ++bx) {
        const RoiTaps<C>& rows = table.rows(number, cls, by, bx);
        const RoiTaps<C>& columns = table.columns(number, cls, by, bx);
        body(rows, columns, table.scale(number, rows, columns), by, bx);
      }
    }
  }

  DEFORMOPS_INLINE C grad(int64_t number, int64_t channel, int64_t by, int64_t bx) const {
    return convert<C>(grad_output(table.box(number), channel, by, bx));
  }
};

// grad_input, for one band of boxes after the other.
template <class T>
class InputGradient {
 public:
  using C = compute_t<T>;

  InputGradient(const Call<T>& call, const View<T, 4>& grad_input)
      : call_(call),
        grad_input_(grad_input),
        tasks_(call.bins.groups_y * call.bins.groups_x * call.blocks.count()) {
    const Rectangle all = {{0, call.bins.height}, {0, call.bins.width}};
    call.team.for_each(call.table.images() * tasks_, [&](int64_t i, int64_t) {
      const RoiTask<T> task = task_of(i / tasks_, i % tasks_, all);
      if (task.first < task.end) return;
      fill_with_zeros(task.part_of(call.bins, grad_input, call.blocks.channel(task.block)), 0,
                      all.area(), call.blocks.width(task.block));
    });
  }

  // Adds boxes first to end of the table, which are open, and writes the images they complete.
  void add(int64_t first, int64_t end) {
    const int64_t images = call_.table.image(end - 1) + 1 - call_.table.image(first);
    const bool is_part = call_.table.start(call_.table.image(first)) < first ||
                         call_.table.start(call_.table.image(first) + images) > end;
    reserve(first, end, is_part);
    call_.team.for_each(images * tasks_, [&](int64_t i, int64_t worker) {
      const int64_t n = call_.table.image(first) + i / tasks_;
      const RoiTask<T> task = task_of(n, i % tasks_, rectangle(n, is_part));
      if (task.first == task.end) return;
      C* const rows = rows_ + (is_part ? i : worker) * pixels_ * kBlock<C>;
      const int64_t width = call_.blocks.width(task.block);
      if (has_single_channels(call_.bins)) {
        add<Row<C, 0>>(task, larger(first, task.first), smaller(end, task.end), worker, rows);
      } else {
        with_row<C>(width, [&](auto row) {
          add<decltype(row)>(task, larger(first, task.first), smaller(end, task.end), worker, rows);
        });
      }
    });
  }

 private:
  RoiTask<T> task_of(int64_t n, int64_t i, const Rectangle& rectangle) const {
    const int64_t group = i / call_.blocks.count();
    return {n,
            call_.table.start(n),
            call_.table.start(n + 1),
            i % call_.blocks.count(),
            group / call_.bins.groups_x,
            group % call_.bins.groups_x,
            rectangle};
  }

  // What the boxes of an image read, and all columns, so that rows lie densely; all rows too, if
  // there are other boxes in other bands.
  Rectangle rectangle(int64_t n, bool is_part) const {
    const Range columns = {0, call_.bins.width};
    if (is_part) return {{0, call_.bins.height}, columns};
    Rectangle all;
    for (int64_t number = call_.table.start(n); number < call_.table.start(n + 1); ++number) {
      all.include(call_.table.rectangle(number));
    }
    return {all.y, columns};
  }

  void reserve(int64_t first, int64_t end, bool is_part) {
    int64_t pixels = 1;
    for (int64_t n = call_.table.image(first); n <= call_.table.image(end - 1); ++n) {
      pixels = larger(pixels, rectangle(n, is_part).area());
    }
    const int64_t size = pixels * (is_part ? tasks_ : call_.team.threads());
    if (size > size_) {
      size_ = size;
      rows_ = allocate<C>(call_.context, size * kBlock<C>);
    }
    pixels_ = pixels;
  }

  template <class Row>
  void add(const RoiTask<T>& task, int64_t first, int64_t end, int64_t worker, C* rows) const {
    const Rectangle& rectangle = task.rectangle;
    const int64_t pixels = rectangle.area();
    const RoiMap<C> map = map_of(rows, rectangle, Row::kPitch);
    if (first == task.first) memset(rows, 0, static_cast<size_t>(pixels * Row::kPitch) * sizeof(C));

    const Range xs = task.bins_x(call_.bins);
    for (int64_t number = first; number < end; ++number) {
      const auto add_bins = [&](Range ys, const C* grads) {
        call_.for_each_bin(number, task.block, ys, xs,
                           [&](const RoiTaps<C>& rows, const RoiTaps<C>& columns, C scale,
                               int64_t by, int64_t bx) {
                             scatter_bin<Row>(
                                 map, rows, columns, scale,
                                 at_distance(grads, (by * call_.bins.pooled_x + bx) * Row::kPitch));
                           });
      };
      if (Row::kPitch > 1) {
        call_.tiles.use(task, number, worker, call_.grad_output, add_bins);
        continue;
      }
      call_.for_each_bin(
          number, task.block, task.bins_y(call_.bins), xs,
          [&](const RoiTaps<C>& rows, const RoiTaps<C>& columns, C scale, int64_t by, int64_t bx) {
            const C grad = call_.grad(number, call_.blocks.channel(task.block), by, bx);
            scatter_bin<Row>(map, rows, columns, scale, &grad);
          });
    }

    if (end < task.end) return;
    const int64_t channels = call_.blocks.width(task.block), width = call_.bins.width;
    RoiTask<T> whole = task;
    whole.rectangle = {{0, call_.bins.height}, {0, width}};
    const View<T, 4> part =
        whole.part_of(call_.bins, grad_input_, call_.blocks.channel(task.block));
    const int64_t begin = rectangle.y.first * width, stop = rectangle.y.end * width;
    fill_with_zeros(part, 0, begin, channels);
    rows_to_pixels(rows, Row::kPitch, part, 0, begin, stop, 0, channels);
    fill_with_zeros(part, stop, whole.rectangle.area(), channels);
  }

  const Call<T>& call_;
  const View<T, 4>& grad_input_;
  int64_t tasks_;  // for each image
  int64_t size_ = 0, pixels_ = 0;
  C* rows_ = nullptr;
};

// grad_offset, for one band of boxes after the other.
template <class T>
class OffsetGradient {
 public:
  using C = compute_t<T>;

  // What a box of a band needs.
  static int64_t box_bytes(const RoiBins<T>& bins) {
    return 2 * blocks_of(bins).count() * bins.pooled_y * bins.pooled_x *
           static_cast<int64_t>(sizeof(C));
  }

  OffsetGradient(const Call<T>& call, const View<const T, 4>& input, const View<T, 4>& grad_offset)
      : call_(call),
        input_(input),
        grad_offset_(grad_offset),
        tasks_(call.context, call.bins, call.table, call.team),
        sums_(allocate<C>(call.context, 2 * call.table.band_boxes() * call.blocks.count() *
                                            call.bins.pooled_y * call.bins.pooled_x)) {}

  // Writes the gradients of boxes first to end of the table, which are open.
  void write(int64_t first, int64_t end) {
    tasks_.open(first, end);
    call_.team.for_each(tasks_.count(), [&](int64_t i, int64_t worker) {
      tasks_.by_channel() ? sum_channels(tasks_.task(i), worker) : sum_rows(tasks_.task(i), worker);
    });
    call_.team.for_each(end - first, [&](int64_t i, int64_t) { reduce(first + i); });
  }

 private:
  DEFORMOPS_INLINE C* sums(int64_t number, int64_t block, int64_t by, int64_t bx) const {
    const int64_t index = call_.table.place(number) * call_.blocks.count() + block;
    return sums_ + 2 * ((index * call_.bins.pooled_y + by) * call_.bins.pooled_x + bx);
  }

  // The slope at order 1, which is order 2, is zero, or NaN of a bin that is.
  static DEFORMOPS_INLINE C slope(int order, C scale, C sum) {
    return scale * (order == 0 ? sum : C(0));
  }

  void sum_rows(const RoiTask<T>& task, int64_t worker) const {
    const RoiBins<T>& bins = call_.bins;
    const RoiMap<const C> map = tasks_.map(task, input_, worker);
    with_row<C>(call_.blocks.width(task.block), [&](auto row) {
      using Row = decltype(row);
      for (int64_t number = task.first; number < task.end; ++number) {
        call_.tiles.use(task, number, worker, call_.grad_output, [&](Range ys, const C* grads) {
          call_.for_each_bin(
              number, task.block, ys, task.bins_x(bins),
              [&](const RoiTaps<C>& rows, const RoiTaps<C>& columns, C scale, int64_t by,
                  int64_t bx) {
                typename Row::Part y = {}, x = {};
                slope_bin<Row>(map, rows, columns,
                               at_distance(grads, (by * bins.pooled_x + bx) * Row::kPitch), y, x);
                fold<C, 1>(y);
                fold<C, 1>(x);
                C* const sum = sums(number, task.block, by, bx);
                sum[0] = slope(bins.order_y, scale, y[0]);
                sum[1] = slope(bins.order_x, scale, x[0]);
              });
        });
      }
    });
  }

  void sum_channels(const RoiTask<T>& task, int64_t worker) const {
    const RoiBins<T>& bins = call_.bins;
    for (int64_t i = 0; i < call_.blocks.width(task.block); ++i) {
      const int64_t channel = call_.blocks.channel(task.block) + i;
      const RoiMap<const C> map = tasks_.plane(task, input_, channel, worker);
      for (int64_t number = task.first; number < task.end; ++number) {
        call_.for_each_bin(number, task.block, task.bins_y(bins), task.bins_x(bins),
                           [&](const RoiTaps<C>& rows, const RoiTaps<C>& columns, C scale,
                               int64_t by, int64_t bx) {
                             const C grad = call_.grad(number, channel, by, bx);
                             C y = C(0), x = C(0);
                             slope_bin<Row<C, 0>>(map, rows, columns, &grad, y, x);
                             C* const sum = sums(number, task.block, by, bx);
                             sum[0] = slope(bins.order_y, scale, y) + (i == 0 ? C(0) : sum[0]);
                             sum[1] = slope(bins.order_x, scale, x) + (i == 0 ? C(0) : sum[1]);
                           });
      }
    }
  }

  void reduce(int64_t number) const {
    const RoiBins<T>& bins = call_.bins;
    const int64_t parts_y = grad_offset_.sizes[2], parts_x = grad_offset_.sizes[3];
    const int64_t blocks = call_.blocks.per_offset_group();
    for (int64_t cls = 0; cls < bins.classes(); ++cls) {
      for (int64_t part_y = 0; part_y < parts_y; ++part_y) {
        for (int64_t part_x = 0; part_x < parts_x; ++part_x) {
          const Range ys = bins_of_group(part_y, parts_y, bins.pooled_y);
          const Range xs = bins_of_group(part_x, parts_x, bins.pooled_x);
          C y = C(0), x = C(0);
          for (int64_t block = cls * blocks; block < (cls + 1) * blocks; ++block) {
            for (int64_t by = ys.first; by < ys.end; ++by) {
              for (int64_t bx = xs.first; bx < xs.end; ++bx) {
                const C* const sum = sums(number, block, by, bx);
                y += sum[0];
                x += sum[1];
              }
            }
          }
          const int64_t k = call_.table.box(number);
          grad_offset_(k, 2 * cls + 1, part_y, part_x) = convert<T>(y);
          grad_offset_(k, 2 * cls, part_y, part_x) = convert<T>(x);
        }
      }
    }
  }

  const Call<T>& call_;
  const View<const T, 4>& input_;
  const View<T, 4>& grad_offset_;
  RoiTasks<T> tasks_;
  C* sums_;
};

}  // namespace

template <class T>
void roi_average_backward(const Context& context, const RoiBins<T>& bins,
                          View<const T, 4> grad_output, View<const T, 4> input,
                          View<T, 4> grad_input, View<T, 4> grad_offset) {
  const Team team = team_for(bins);
  const int64_t offset_bytes = grad_offset.defined() ? OffsetGradient<T>::box_bytes(bins) : 0;
  RoiTable<T> table(context, bins, input.sizes[0], RoiTiles<T>::box_bytes(bins) + offset_bytes);
  const RoiTiles<T> tiles(context, bins, table, team);
  const Call<T> call = {context, bins, grad_output, team, table, tiles, blocks_of(bins)};
  std::optional<InputGradient<T>> of_input;
  std::optional<OffsetGradient<T>> of_offset;
  if (grad_input.defined()) of_input.emplace(call, grad_input);
  if (grad_offset.defined()) of_offset.emplace(call, input, grad_offset);

  for (int64_t first = 0, end = 0; first < table.boxes(); first = end) {
    end = table.open(team, first);
    if (!has_single_channels(bins)) tiles.prepare(first, end, grad_output);
    if (of_input) of_input->add(first, end);
    if (of_offset) of_offset->write(first, end);
  }
}

#define DEFORMOPS_INSTANTIATE(T)                                                             \
  template void roi_average_backward<T>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                        View<const T, 4>, View<T, 4>, View<T, 4>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

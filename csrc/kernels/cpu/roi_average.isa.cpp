// The mean of what bins look at.
//
// A task copies the pixels that its boxes read, as rows of channels, and sums rows from there, bin
// after bin. With groups, where every bin has channels of its own, it has the bins of one group.
//
// Memory besides the result: the tables of a band of boxes (kBandBytes or one box; with groups also
// its results, until they are transposed), and for each thread the rows of a block of channels of
// one image.
#include "kernels/cpu/roi_isa.h"
#include "kernels/cpu/roi_rows.h"
#include "kernels/cpu/roi_table.h"
#include "kernels/cpu/roi_tasks.h"
#include "kernels/cpu/roi_tiles.h"

namespace deformops::cpu::DEFORMOPS_ISA {

template <class T>
void roi_average(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                 View<T, 4> output) {
  using C = compute_t<T>;
  const ChannelBlocks blocks = blocks_of(bins);
  const Team team = team_for(bins);
  RoiTable<T> table(context, bins, input.sizes[0], RoiTiles<T>::box_bytes(bins));
  RoiTasks<T> tasks(context, bins, table, team);
  const RoiTiles<T> tiles(context, bins, table, team);

  const auto sum_rows = [&](const RoiTask<T>& task, int64_t worker) {
    const RoiMap<const C> map = tasks.map(task, input, worker);
    const int64_t cls = blocks.offset_group(task.block);
    const Range xs = task.bins_x(bins);
    with_row<C>(blocks.width(task.block), [&](auto row) {
      using Row = decltype(row);
      for (int64_t number = task.first; number < task.end; ++number) {
        tiles.make(task, number, worker, output, [&](Range ys, C* results) {
          for (int64_t by = ys.first; by < ys.end; ++by) {
            for (int64_t bx = xs.first; bx < xs.end; ++bx) {
              const RoiTaps<C>& rows = table.rows(number, cls, by, bx);
              const RoiTaps<C>& columns = table.columns(number, cls, by, bx);
              gather_bin<Row>(map, rows, columns, table.scale(number, rows, columns),
                              at_distance(results, (by * bins.pooled_x + bx) * Row::kPitch));
            }
          }
        });
      }
    });
  };

  const auto sum_channels = [&](const RoiTask<T>& task, int64_t worker) {
    const int64_t cls = blocks.offset_group(task.block);
    const Range ys = task.bins_y(bins), xs = task.bins_x(bins);
    for (int64_t i = 0; i < blocks.width(task.block); ++i) {
      const int64_t channel = blocks.channel(task.block) + i;
      const RoiMap<const C> map = tasks.plane(task, input, channel, worker);
      for (int64_t number = task.first; number < task.end; ++number) {
        for (int64_t by = ys.first; by < ys.end; ++by) {
          for (int64_t bx = xs.first; bx < xs.end; ++bx) {
            const RoiTaps<C>& rows = table.rows(number, cls, by, bx);
            const RoiTaps<C>& columns = table.columns(number, cls, by, bx);
            C result;
            gather_bin<Row<C, 0>>(map, rows, columns, table.scale(number, rows, columns), &result);
            output(table.box(number), channel, by, bx) = convert<T>(result);
          }
        }
      }
    }
  };

  for (int64_t first = 0, end = 0; first < table.boxes(); first = end) {
    end = table.open(team, first);
    tasks.open(first, end);
    team.for_each(tasks.count(), [&](int64_t i, int64_t worker) {
      tasks.by_channel() ? sum_channels(tasks.task(i), worker) : sum_rows(tasks.task(i), worker);
    });
    if (!tasks.by_channel()) tiles.finish(first, end, output);
  }
}

#define DEFORMOPS_INSTANTIATE(T) \
  template void roi_average<T>(const Context&, const RoiBins<T>&, View<const T, 4>, View<T, 4>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

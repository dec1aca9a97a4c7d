// The largest pixel of each bin, and where it was.
//
// Memory besides the result: for roi_pool what roi_average has; for scatter_maxima some planes of
// one image for each thread.
#include <type_traits>

#include "kernels/cpu/roi_isa.h"
#include "kernels/cpu/roi_rows.h"
#include "kernels/cpu/roi_table.h"
#include "kernels/cpu/roi_tasks.h"
#include "kernels/cpu/roi_tiles.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// Of which scatter_maxima adds up the planes at a time.
constexpr int64_t kChannels = 8;

// The first of the largest pixels of a bin that has some, or the first NaN.
template <class Row, bool kIndexed, class C>
DEFORMOPS_INLINE void find_maximum(const RoiMap<const C>& map, const RoiTaps<C>& rows,
                                   const RoiTaps<C>& columns, int64_t width, C* values,
                                   C* indices) {
  using Index = typename VectorOf<C>::index;
  const C* row =
      at_distance(map.origin, rows.first() * map.stride_y + columns.first() * Row::kPitch);
  Vector<C> most[Row::kParts];
  Integers<C> where[Row::kParts];
  for (int part = 0; part < Row::kParts; ++part) {
    most[part] = Row::read(row, part);
    where[part] = Integers<C>{} + static_cast<Index>(rows.first() * width + columns.first());
  }
  for (int64_t y = rows.first(); y < rows.end(); ++y) {
    const C* pixel = row;
    for (int64_t x = columns.first(); x < columns.end(); ++x) {
      for (int part = 0; part < Row::kParts; ++part) {
        const Vector<C> value = Row::read(pixel, part);
        Integers<C> more = value > most[part];
        more |= kIndexed ? (value != value) & (most[part] == most[part]) : value != value;
        most[part] = more ? value : most[part];
        if (kIndexed) {
          where[part] = more ? Integers<C>{} + static_cast<Index>(y * width + x) : where[part];
        }
      }
      pixel += Row::kPitch;
    }
    row = at_distance(row, map.stride_y);
  }
  for (int part = 0; part < Row::kParts; ++part) {
    Row::write(values, part, most[part]);
    if (kIndexed) Row::write(indices, part, reinterpret_cast<Vector<C>>(where[part]));
  }
}

// The same for one channel.
template <class C>
DEFORMOPS_INLINE int64_t find_maximum_of_plane(const RoiMap<const C>& map, const RoiTaps<C>& rows,
                                               const RoiTaps<C>& columns, int64_t width, C& most) {
  int64_t where = -1;
  for (int64_t y = rows.first(); y < rows.end(); ++y) {
    for (int64_t x = columns.first(); x < columns.end(); ++x) {
      const C value = *at_distance(map.origin, y * map.stride_y + x);
      if (where >= 0 && !(value > most) && !(value != value && most == most)) continue;
      most = value;
      where = y * width + x;
    }
  }
  return where;
}

// Whether each index of some channels of a box is that of a pixel, or -1. A pass of its own, on
// vectors: a test of each index where it is used would take as long as its use.
template <class Index>
bool are_pixels(const View<const Index, 4>& index, int64_t k, int64_t first, int64_t channels,
                int64_t pixels) {
  using Number = std::make_unsigned_t<Index>;
  Number most = 0;  // index + 1
  const auto see = [&](const Index* run, int64_t count, int64_t stride) {
    for (int64_t i = 0; i < count; ++i) {
      const Number next = static_cast<Number>(run[i * stride]) + 1;
      most = next > most ? next : most;
    }
  };
  const int64_t height = index.sizes[2], width = index.sizes[3];
  const bool along_channels = index.strides[1] == 1;
  const bool dense = !along_channels && index.strides[2] == width * index.strides[3];
  const int64_t count = along_channels ? channels : dense ? height * width : width;
  const int64_t stride = along_channels ? 1 : index.strides[3];
  for (int64_t by = 0; by < (dense ? 1 : height); ++by) {
    for (int64_t i = 0; i < (along_channels ? width : channels); ++i) {
      const Index* const run =
          along_channels ? index.pointer(k, first, by, i) : index.pointer(k, first + i, by);
      stride == 1 ? see(run, count, 1) : see(run, count, stride);
    }
  }
  return most <= static_cast<Number>(pixels);
}

}  // namespace

template <class T, class Index>
void roi_pool(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
              View<T, 4> output, View<Index, 4> index) {
  using C = compute_t<T>;
  using Lane = typename VectorOf<C>::index;
  const ChannelBlocks blocks = blocks_of(bins);
  const Team team = team_for(bins);
  RoiTable<T> table(context, bins, input.sizes[0], 0);
  RoiTasks<T> tasks(context, bins, table, team, index.defined() && sizeof(Index) > sizeof(Lane));
  const RoiTiles<T> values(context, bins, table, team), indices(context, bins, table, team);

  const auto write_indices = [&](const RoiTask<T>& task, int64_t number, Range ys, const C* rows) {
    if constexpr (sizeof(Index) == sizeof(C)) {
      // As bits: C is only a name for as many.
      View<C, 4> bits = {reinterpret_cast<C*>(index.data), {}, {}};
      for (int d = 0; d < 4; ++d)
        bits.sizes[d] = index.sizes[d], bits.strides[d] = index.strides[d];
      indices.write(task, number, ys, rows, bits);
    } else {
      const int64_t pitch = row_pitch<C>(blocks.width(task.block));
      for (int64_t bin = ys.first * bins.pooled_x; bin < ys.end * bins.pooled_x; ++bin) {
        for (int64_t c = 0; c < blocks.width(task.block); ++c) {
          Lane lane;
          memcpy(&lane, at_distance(rows, bin * pitch + c), sizeof(lane));
          index(table.box(number), blocks.channel(task.block) + c, bin / bins.pooled_x,
                bin % bins.pooled_x) = static_cast<Index>(lane);
        }
      }
    }
  };

  const auto pool_rows = [&](const RoiTask<T>& task, int64_t worker) {
    const RoiMap<const C> map = tasks.map(task, input, worker);
    with_row<C>(blocks.width(task.block), [&](auto row) {
      using Row = decltype(row);
      const Vector<C> no_index = reinterpret_cast<Vector<C>>(Integers<C>{} - 1);
      const auto pool = [&](int64_t number, Range ys, C* value_rows, C* index_rows) {
        for (int64_t by = ys.first; by < ys.end; ++by) {
          for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
            const RoiTaps<C>& rows = table.rows(number, 0, by, bx);
            const RoiTaps<C>& columns = table.columns(number, 0, by, bx);
            const int64_t bin = (by * bins.pooled_x + bx) * Row::kPitch;
            C* const value = at_distance(value_rows, bin);
            C* const index = at_distance(index_rows, bin);
            if (rows.count == 0 || columns.count == 0) {
              const C none = table.scale(number, rows, columns);  // 0 or NaN
              for (int part = 0; part < Row::kParts; ++part) {
                Row::write(value, part, Vector<C>{} + none);
                if (index_rows != nullptr) Row::write(index, part, no_index);
              }
            } else if (index_rows != nullptr) {
              find_maximum<Row, true>(map, rows, columns, bins.width, value, index);
            } else {
              find_maximum<Row, false>(map, rows, columns, bins.width, value, index);
            }
          }
        }
      };
      for (int64_t number = task.first; number < task.end; ++number) {
        values.for_each_step([&](Range ys) {
          C* const value_rows = values.rows_of(task, worker, ys);
          C* const index_rows = index.defined() ? indices.rows_of(task, worker, ys) : nullptr;
          pool(number, ys, value_rows, index_rows);
          values.write(task, number, ys, value_rows, output);
          if (index.defined()) write_indices(task, number, ys, index_rows);
        });
      }
    });
  };

  const auto pool_channels = [&](const RoiTask<T>& task, int64_t worker) {
    for (int64_t i = 0; i < blocks.width(task.block); ++i) {
      const int64_t channel = blocks.channel(task.block) + i;
      const RoiMap<const C> map = tasks.plane(task, input, channel, worker);
      for (int64_t number = task.first; number < task.end; ++number) {
        for (int64_t by = 0; by < bins.pooled_y; ++by) {
          for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
            const RoiTaps<C>& rows = table.rows(number, 0, by, bx);
            const RoiTaps<C>& columns = table.columns(number, 0, by, bx);
            C most = table.scale(number, rows, columns);
            int64_t where = -1;
            if (rows.count > 0 && columns.count > 0) {
              where = find_maximum_of_plane(map, rows, columns, bins.width, most);
            }
            output(table.box(number), channel, by, bx) = convert<T>(most);
            if (index.defined()) {
              index(table.box(number), channel, by, bx) = static_cast<Index>(where);
            }
          }
        }
      }
    }
  };

  for (int64_t first = 0, end = 0; first < table.boxes(); first = end) {
    end = table.open(team, first);
    tasks.open(first, end);
    team.for_each(tasks.count(), [&](int64_t i, int64_t worker) {
      tasks.by_channel() ? pool_channels(tasks.task(i), worker) : pool_rows(tasks.task(i), worker);
    });
  }
}

template <class T, class Index>
bool gather_maxima(const Context&, const RoiBins<T>& bins, View<const T, 4> input,
                   View<const Index, 4> index, View<T, 4> output) {
  using C = compute_t<T>;
  const int64_t pixels = bins.height * bins.width, blocks = divide_up(bins.channels, kChannels);
  const bool dense = input.strides[2] == bins.width * input.strides[3];
  const Team team(output.sizes[0] * bins.channels * bins.pooled_y * bins.pooled_x);
  bool all_are = true;
  team.for_each(output.sizes[0] * blocks, [&](int64_t task, int64_t) {
    const int64_t k = task / blocks, first = task % blocks * kChannels;
    const int64_t channels = smaller(kChannels, bins.channels - first);
    if (!are_pixels(index, k, first, channels, pixels)) {
      __atomic_store_n(&all_are, false, __ATOMIC_RELAXED);
      return;
    }
    for (int64_t c = first; c < first + channels; ++c) {
      const T* const plane = input.pointer(bins.image(k), c);
      for (int64_t by = 0; by < bins.pooled_y; ++by) {
        for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
          const int64_t p = index(k, c, by, bx);
          if (p < 0) {
            output(k, c, by, bx) = convert<T>(C(0));
          } else if (dense) {
            output(k, c, by, bx) = plane[p * input.strides[3]];
          } else {
            output(k, c, by, bx) =
                plane[p / bins.width * input.strides[2] + p % bins.width * input.strides[3]];
          }
        }
      }
    }
  });
  return all_are;
}

template <class T, class Index>
bool scatter_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                    View<const Index, 4> index, View<T, 4> grad_input) {
  using C = compute_t<T>;
  const int64_t pixels = bins.height * bins.width, plane = 1 + pixels;
  const bool along_channels = grad_output.strides[1] == 1 && index.strides[1] == 1;
  // Where channels lie side by side, as many as a cache line has.
  const int64_t step = along_channels ? 2 * kChannels : kChannels;
  const int64_t blocks = divide_up(bins.channels, step);
  const BoxesByImage<T> boxes(context, bins, grad_input.sizes[0]);
  const Team team(4 * boxes.boxes() * bins.channels * bins.pooled_y * bins.pooled_x +
                  grad_input.sizes[0] * bins.channels * pixels);
  C* const all = allocate<C>(context, team.threads() * step * plane);
  bool all_are = true;

  team.for_each(grad_input.sizes[0] * blocks, [&](int64_t task, int64_t worker) {
    const int64_t n = task / blocks, first = task % blocks * step;
    const int64_t channels = smaller(step, bins.channels - first);
    // The element before a plane takes what belongs to no pixel.
    C* const planes = all + worker * step * plane + 1;
    memset(planes - 1, 0, static_cast<size_t>(channels * plane) * sizeof(C));
    for (int64_t number = boxes.start(n); number < boxes.start(n + 1); ++number) {
      const int64_t k = boxes.box(number);
      if (!are_pixels(index, k, first, channels, pixels)) {
        __atomic_store_n(&all_are, false, __ATOMIC_RELAXED);
        return;
      }
      // Sums of a channel are formed in the order of the bins, either way.
      if (along_channels) {
        for (int64_t by = 0; by < bins.pooled_y; ++by) {
          for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
            const T* const grads = grad_output.pointer(k, first, by, bx);
            const Index* const indices = index.pointer(k, first, by, bx);
            for (int64_t c = 0; c < channels; ++c) {
              planes[c * plane + indices[c]] += convert<C>(grads[c]);
            }
          }
        }
        continue;
      }
      for (int64_t c = 0; c < channels; ++c) {
        C* const sums = planes + c * plane;
        for (int64_t by = 0; by < bins.pooled_y; ++by) {
          const T* const grads = grad_output.pointer(k, first + c, by);
          const Index* const indices = index.pointer(k, first + c, by);
          for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
            sums[indices[bx * index.strides[3]]] += convert<C>(grads[bx * grad_output.strides[3]]);
          }
        }
      }
    }
    for_each_run(grad_input, n, 0, pixels, [&](const PixelRun<T>& run) {
      rearrange<C>(planes + run.first, {plane, 1}, channels, run.pixels,
                   run.data + first * grad_input.strides[1],
                   {grad_input.strides[1], grad_input.strides[3]});
    });
  });
  return all_are;
}

#define DEFORMOPS_INSTANTIATE_INDEX(T, Index)                                                 \
  template void roi_pool<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>,       \
                                   View<T, 4>, View<Index, 4>);                               \
  template bool gather_maxima<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>,  \
                                        View<const Index, 4>, View<T, 4>);                    \
  template bool scatter_maxima<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                         View<const Index, 4>, View<T, 4>);
#define DEFORMOPS_INSTANTIATE(T)          \
  DEFORMOPS_INSTANTIATE_INDEX(T, int32_t) \
  DEFORMOPS_INSTANTIATE_INDEX(T, int64_t)
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE
#undef DEFORMOPS_INSTANTIATE_INDEX

}  // namespace deformops::cpu::DEFORMOPS_ISA

// Deformable convolution, forward.
//
// A tile of output pixels at a time: gather the columns of some taps and channels into a buffer
// that stays in the second-level cache, multiply them by the packed weights into a tile of sums, go
// on to the next taps, and write the tile out once. No column matrix of an image ever exists.
//
// Memory besides the output: the packed weights, rows of channels of the input (kMapBytes or one
// image; nothing when the input is channels_last and not of a half type), and for each thread a
// tile of columns, of samples and of sums: below 1 MiB for up to 1024 output channels.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/maps.h"
#include "kernels/cpu/taps.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// The table of samples of one step of a tile stays below this.
constexpr int64_t kSamplesBytes = 128 << 10;

// How the sum over taps and channels of a group is cut into steps of about kDepth: several taps of
// all channels, or some channels of one tap. The order of the sum follows from it, so it may depend
// on shapes only.
struct Steps {
  int64_t taps, channels;  // of the whole sum
  int64_t step_taps, step_channels;

  struct Place {
    int64_t start;  // of the step, in the sum
    int64_t depth;  // of the step
    int64_t index;  // within the step
  };

  // Where the packed weights have this tap and channel.
  DEFORMOPS_INLINE Place place(int64_t tap, int64_t channel) const {
    const int64_t first_tap = tap - tap % step_taps;
    const int64_t first_channel = channel - channel % step_channels;
    const int64_t width = smaller(step_channels, channels - first_channel);
    return {first_tap * channels + first_channel, smaller(step_taps, taps - first_tap) * width,
            (tap - first_tap) * width + channel - first_channel};
  }
};

Steps cut_into_steps(int64_t taps, int64_t channels, int64_t sample_bytes_per_tap) {
  if (channels > kDepth) {
    const int64_t parts = divide_up(channels, kDepth);
    return {taps, channels, 1, round_up(divide_up(channels, parts), 16)};
  }
  const int64_t most = smaller(kDepth / larger(channels, 1), kSamplesBytes / sample_bytes_per_tap);
  return {taps, channels, larger(1, smaller(taps, most)), larger(channels, 1)};
}

// weight [O, C / groups, kH, kW] as panels of kBlock output channels, in the order of the steps:
// [group][step][panel][depth of the step][kBlock].
template <class T>
class PackedWeight {
 public:
  using C = compute_t<T>;

  PackedWeight(const Context& context, const Team& team, const View<const T, 4>& weight,
               int64_t groups, const Steps& steps)
      : depth_(steps.taps * steps.channels),
        outputs_(weight.sizes[0] / groups),
        panels_(divide_up(outputs_, kBlock<C>)),
        data_(allocate<C>(context, groups * depth_ * panels_ * kBlock<C>)) {
    // A weight is an image too: its outputs are channels, its taps pixels, and when the taps are
    // dense, so are the taps of neighbouring channels.
    const int64_t taps = steps.taps, *const size = weight.sizes, *const stride = weight.strides;
    const bool dense = stride[2] == size[3] * stride[3];
    const View<const T, 4> dense_image = {
        weight.data, {1, size[0], size[1], taps}, {0, stride[0], stride[1], stride[3]}};
    const View<const T, 4> images = {weight.data,
                                     {size[1], size[0], size[2], size[3]},
                                     {stride[1], stride[0], stride[2], stride[3]}};
    const int64_t channels_at_a_time = dense ? larger(1, kDepth / taps) : 1;
    const int64_t workers = team.workers(groups * panels_);
    C* const all_rows = allocate<C>(context, workers * channels_at_a_time * taps * kBlock<C>);
    team.for_each(groups * panels_, [&](int64_t task, int64_t worker) {
      const int64_t group = task / panels_, panel = task % panels_;
      const int64_t width = smaller(kBlock<C>, outputs_ - panel * kBlock<C>);
      C* const rows = all_rows + worker * channels_at_a_time * taps * kBlock<C>;
      for (int64_t first = 0; first < steps.channels; first += channels_at_a_time) {
        const int64_t last = smaller(steps.channels, first + channels_at_a_time);
        if (width < kBlock<C>) memset(rows, 0, (last - first) * taps * kBlock<C> * sizeof(C));
        const int64_t output = group * outputs_ + panel * kBlock<C>;
        if (dense) {
          pixels_to_rows(dense_image, 0, first * taps, last * taps, output, width, rows, kBlock<C>);
        } else {
          pixels_to_rows(images, first, 0, taps, output, width, rows, kBlock<C>);
        }
        for (int64_t channel = first; channel < last; ++channel) {
          for (int64_t tap = 0; tap < taps; ++tap) {
            const Steps::Place place = steps.place(tap, channel);
            memcpy(data_ + panel_offset(group, panel, place.start, place.depth) +
                       place.index * kBlock<C>,
                   rows + ((channel - first) * taps + tap) * kBlock<C>, kBlock<C> * sizeof(C));
          }
        }
      }
    });
  }

  int64_t panels() const { return panels_; }
  int64_t outputs() const { return outputs_; }  // of a group

  const C* panel(int64_t group, int64_t panel, int64_t start, int64_t depth) const {
    return data_ + panel_offset(group, panel, start, depth);
  }

 private:
  int64_t panel_offset(int64_t group, int64_t panel, int64_t start, int64_t depth) const {
    return ((group * depth_ + start) * panels_ + panel * depth) * kBlock<C>;
  }

  int64_t depth_, outputs_, panels_;
  C* data_;
};

// columns[row][0, width): channels [channel, channel + width) at all rows of a tile, for one tap.
// `samples` has that tap of every offset group.
template <class T, class C>
void gather_tile(const ChannelRows<T>& maps, const Samples<C>* samples, int64_t rows,
                 int64_t channel, int64_t width, int64_t offset_group_channels, C* columns,
                 int64_t stride) {
  for (int64_t c = channel; c < channel + width;) {
    const int64_t group = c / offset_group_channels;
    const int64_t stop = smaller(channel + width, (group + 1) * offset_group_channels);
    const RowMap<const C> map = maps.map(c);
    for (int64_t row = 0; row < rows; ++row) {
      gather_row(map, samples[group], row, stop - c, columns + row * stride + c - channel);
    }
    c = stop;
  }
}

}  // namespace

template <class T>
void deform_conv2d(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                   View<const T, 4> weight, View<const T, 1> bias, View<T, 4> output) {
  using C = compute_t<T>;
  const int64_t images = input.sizes[0], channels = input.sizes[1], taps = window.taps();
  const int64_t group_channels = weight.sizes[1];
  const int64_t groups = group_channels > 0 ? channels / group_channels : 1;
  const int64_t offset_groups = window.offset_groups;
  const int64_t offset_group_channels = larger(1, channels / offset_groups);

  const Team team(images * window.pixels() * taps * group_channels * weight.sizes[0]);
  ChannelRows<T> maps(context, input);
  const int64_t all_pixels = maps.images() * window.pixels();
  const int64_t size =
      smaller(kTilePixels<C>, round_up(divide_up(all_pixels, team.threads()), kTileRows));
  const Steps steps = cut_into_steps(taps, group_channels,
                                     offset_groups * static_cast<int64_t>(sizeof(Samples<C>)));
  const PackedWeight<T> packed(context, team, weight, groups, steps);

  const int64_t panels = groups * packed.panels();
  const int64_t columns_size = size * steps.step_taps * steps.step_channels;
  const int64_t sums_size = panels * size * kBlock<C>;
  const int64_t workers = team.workers(divide_up(all_pixels, size));
  C* const all_columns = allocate<C>(context, workers * columns_size);
  C* const all_sums = allocate<C>(context, workers * sums_size);
  const int64_t samples_size = steps.step_taps * offset_groups;
  Samples<C>* const all_samples = allocate<Samples<C>>(context, workers * samples_size);

  for (int64_t first = 0; first < images; first += maps.images()) {
    const int64_t count = smaller(maps.images(), images - first);
    maps.open(team, first, count);
    const Tiles tiles = {first, window.pixels(), count * window.pixels(), size};

    team.for_each(tiles.count(), [&](int64_t tile, int64_t worker) {
      C* const columns = all_columns + worker * columns_size;
      C* const sums = all_sums + worker * sums_size;
      Samples<C>* const samples = all_samples + worker * samples_size;
      const int64_t rows = tiles.rows(tile);

      for (int64_t panel = 0; panel < panels; ++panel) {
        C lanes[kBlock<C>];
        for (int64_t lane = 0; lane < kBlock<C>; ++lane) {
          const int64_t o = panel % packed.panels() * kBlock<C> + lane;
          const bool has_bias = bias.defined() && o < packed.outputs();
          lanes[lane] =
              has_bias ? convert<C>(bias(panel / packed.panels() * packed.outputs() + o)) : C(0);
        }
        for (int64_t row = 0; row < rows; ++row) {
          memcpy(sums + (panel * size + row) * kBlock<C>, lanes, sizeof(lanes));
        }
      }

      for (int64_t tap = 0; tap < taps; tap += steps.step_taps) {
        const int64_t step_taps = smaller(steps.step_taps, taps - tap);
        for (int64_t i = 0; i < step_taps; ++i) {
          for (int64_t group = 0; group < offset_groups; ++group) {
            fill_samples(window, tiles, tile, group, tap + i, maps.strides(),
                         samples[i * offset_groups + group]);
          }
        }
        for (int64_t group = 0; group < groups; ++group) {
          for (int64_t c = 0; c < group_channels; c += steps.step_channels) {
            const int64_t width = smaller(steps.step_channels, group_channels - c);
            const int64_t depth = step_taps * width;
            for (int64_t i = 0; i < step_taps; ++i) {
              gather_tile(maps, samples + i * offset_groups, rows, group * group_channels + c,
                          width, offset_group_channels, columns + i * width, depth);
            }
            for (int64_t panel = 0; panel < packed.panels(); ++panel) {
              multiply_panel<C, Lies::kRows>(
                  columns, depth, rows, depth,
                  packed.panel(group, panel, tap * group_channels + c, depth),
                  sums + (group * packed.panels() + panel) * size * kBlock<C>, true);
            }
          }
        }
      }

      tiles.for_each_image(tile, [&](int64_t n, int64_t begin, int64_t end, int64_t row) {
        for (int64_t panel = 0; panel < panels; ++panel) {
          const int64_t o = panel % packed.panels() * kBlock<C>;
          rows_to_pixels(sums + (panel * size + row) * kBlock<C>, kBlock<C>, output, n, begin, end,
                         panel / packed.panels() * packed.outputs() + o,
                         smaller(kBlock<C>, packed.outputs() - o));
        }
      });
    });
  }
}

#define DEFORMOPS_INSTANTIATE(T)                                                            \
  template void deform_conv2d<T>(const Context&, const SampledWindow<T>&, View<const T, 4>, \
                                 View<const T, 4>, View<const T, 1>, View<T, 4>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

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
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/taps.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// The table of samples of one step of a tile stays below this.
constexpr int64_t kSamplesBytes = 128 << 10;

// Steps of about kDepth, so that every step loads and stores the sums once.
Steps cut_into_steps(int64_t taps, int64_t channels, int64_t sample_bytes_per_tap) {
  const int64_t width = channels_of_step(channels, kDepth);
  const int64_t most = smaller(kDepth / width, kSamplesBytes / sample_bytes_per_tap);
  return {taps, channels, larger(1, smaller(taps, most)), width};
}

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
  const int64_t size = even_tile_size(all_pixels, kTilePixels<C>, team.threads());
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
            const Steps::Place step = steps.place(tap, c);
            for (int64_t i = 0; i < step_taps; ++i) {
              gather_tile(maps, samples + i * offset_groups, rows, group * group_channels + c,
                          width, offset_group_channels, columns + i * width, step.depth);
            }
            for (int64_t panel = 0; panel < packed.panels(); ++panel) {
              multiply_panel<C, Lies::kRows>(
                  columns, step.depth, rows, step.depth,
                  packed.panel(group, panel, step.start, step.depth),
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

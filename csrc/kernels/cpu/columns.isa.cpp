// Columns by themselves: gather, its transpose and its contraction, for whoever needs the stages of
// a deformable convolution one by one. They share the table of samples and the verbs on rows with
// the convolution; columns are [N, C, taps, oH, oW], so a tile of rows is transposed on its way.
//
// Memory besides the result: rows of channels of the input or sums of grad_input (kMapBytes or one
// image), tables of a tile for each thread (gather, contract) or of a band of tiles (scatter).
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/maps.h"
#include "kernels/cpu/taps.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// Samples that are prepared for all blocks of channels of a scatter.
constexpr int64_t kTableBytes = int64_t{4} << 20;

// Each element of the columns is four reads and a write.
template <class T>
Team team_for(const View<T, 5>& columns) {
  int64_t elements = 1;
  for (const int64_t size : columns.sizes) elements *= size;
  return Team(4 * elements);
}

// One tap of columns, as images.
template <class T>
View<T, 4> tap_of(const View<T, 5>& columns, int64_t tap) {
  return {columns.data + tap * columns.strides[2],
          {columns.sizes[0], columns.sizes[1], columns.sizes[3], columns.sizes[4]},
          {columns.strides[0], columns.strides[1], columns.strides[3], columns.strides[4]}};
}

// Rows of one block of channels of one tap, for the pixels of a tile; zeros beyond the channels.
template <class T, class C>
void columns_to_rows(const View<const T, 5>& columns, const Tiles& tiles, int64_t tile, int64_t tap,
                     int64_t channel, int64_t channels, C* rows) {
  if (channels < kBlock<C>) {
    memset(rows, 0, static_cast<size_t>(tiles.rows(tile) * kBlock<C>) * sizeof(C));
  }
  tiles.for_each_image(tile, [&](int64_t n, int64_t begin, int64_t end, int64_t row) {
    pixels_to_rows(tap_of(columns, tap), n, begin, end, channel, channels, rows + row * kBlock<C>,
                   kBlock<C>);
  });
}

}  // namespace

template <class T>
void gather_columns(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                    View<T, 5> columns) {
  using C = compute_t<T>;
  const int64_t images = input.sizes[0], taps = window.taps();
  const ChannelBlocks blocks(input.sizes[1], input.sizes[1], input.sizes[1] / window.offset_groups,
                             kBlock<C>);
  const Team team = team_for(columns);
  ChannelRows<T> maps(context, input);
  const int64_t size = kTilePixels<C>;
  const int64_t all_tiles = divide_up(maps.images() * window.pixels(), size);
  const int64_t workers = team.workers(all_tiles * taps);
  C* const all_rows = allocate<C>(context, workers * size * kBlock<C>);
  Samples<C>* const all_samples = allocate<Samples<C>>(context, workers);

  for (int64_t first = 0; first < images; first += maps.images()) {
    const int64_t count = smaller(maps.images(), images - first);
    maps.open(team, first, count);
    const Tiles tiles = {first, window.pixels(), count * window.pixels(), size};

    team.for_each(tiles.count() * taps, [&](int64_t task, int64_t worker) {
      const int64_t tile = task / taps, tap = task % taps;
      C* const rows = all_rows + worker * size * kBlock<C>;
      Samples<C>& samples = all_samples[worker];
      for (int64_t b = 0; b < blocks.count(); ++b) {
        if (b % blocks.per_offset_group() == 0) {
          fill_samples(window, tiles, tile, blocks.offset_group(b), tap, maps.strides(), samples);
        }
        const RowMap<const C> map = maps.map(blocks.channel(b));
        for (int64_t row = 0; row < tiles.rows(tile); ++row) {
          gather_row(map, samples, row, blocks.width(b), rows + row * kBlock<C>);
        }
        tiles.for_each_image(tile, [&](int64_t n, int64_t begin, int64_t end, int64_t row) {
          rows_to_pixels(rows + row * kBlock<C>, kBlock<C>, tap_of(columns, tap), n, begin, end,
                         blocks.channel(b), blocks.width(b));
        });
      }
    });
  }
}

template <class T>
void scatter_columns(const Context& context, const SampledWindow<T>& window,
                     View<const T, 5> columns, View<T, 4> grad_input) {
  using C = compute_t<T>;
  const int64_t images = grad_input.sizes[0], taps = window.taps();
  const int64_t height = grad_input.sizes[2], width = grad_input.sizes[3];
  const ChannelBlocks blocks(grad_input.sizes[1], grad_input.sizes[1],
                             grad_input.sizes[1] / window.offset_groups, kBlock<C>);
  const Team team = team_for(columns);
  const int64_t images_open =
      images_at_a_time(images, BlockMaps<C>::image_bytes(blocks, height * width));
  const BlockMaps<C> maps(context, blocks, images_open, height, width);
  const int64_t size = kTilePixels<C>;
  const int64_t table_size = taps * window.offset_groups;
  const int64_t band =
      smaller(divide_up(images_open * window.pixels(), size),
              larger(1, kTableBytes / (table_size * static_cast<int64_t>(sizeof(Samples<C>)))));
  Samples<C>* const samples = allocate<Samples<C>>(context, band * table_size);
  C* const all_rows = allocate<C>(context, team.workers(blocks.count()) * size * kBlock<C>);

  for (int64_t first = 0; first < images; first += images_open) {
    const int64_t count = smaller(images_open, images - first);
    team.for_each(blocks.count(), [&](int64_t b, int64_t) { maps.fill_with_zeros(b, count); });
    const Tiles tiles = {first, window.pixels(), count * window.pixels(), size};

    for (int64_t first_tile = 0; first_tile < tiles.count(); first_tile += band) {
      const int64_t band_tiles = smaller(band, tiles.count() - first_tile);
      team.for_each(band_tiles * taps * window.offset_groups, [&](int64_t task, int64_t) {
        const int64_t group = task / taps % window.offset_groups;
        fill_samples(window, tiles, first_tile + task / taps / window.offset_groups, group,
                     task % taps, maps.strides(), samples[task]);
      });
      team.for_each(blocks.count(), [&](int64_t b, int64_t worker) {
        C* const rows = all_rows + worker * size * kBlock<C>;
        for (int64_t i = 0; i < band_tiles; ++i) {
          for (int64_t tap = 0; tap < taps; ++tap) {
            columns_to_rows(columns, tiles, first_tile + i, tap, blocks.channel(b), blocks.width(b),
                            rows);
            const Samples<C>& at = samples[i * table_size + blocks.offset_group(b) * taps + tap];
            for (int64_t row = 0; row < tiles.rows(first_tile + i); ++row) {
              scatter_row(maps.map(b), at, row, blocks.width(b), rows + row * kBlock<C>);
            }
          }
        }
      });
    }
    maps.copy_to(team, blocks, grad_input, first, count);
  }
}

template <class T>
void contract_columns(const Context& context, const SampledWindow<T>& window,
                      View<const T, 4> input, View<const T, 5> columns, View<T, 4> grad_mask) {
  using C = compute_t<T>;
  const int64_t images = input.sizes[0], taps = window.taps();
  const ChannelBlocks blocks(input.sizes[1], input.sizes[1], input.sizes[1] / window.offset_groups,
                             kBlock<C>);
  const Team team = team_for(columns);
  const int64_t images_open =
      images_at_a_time(images, BlockMaps<C>::image_bytes(blocks, input.sizes[2] * input.sizes[3]));
  const BlockMaps<C> maps(context, blocks, images_open, input.sizes[2], input.sizes[3]);
  const int64_t size = kTilePixels<C>;
  const int64_t groups = window.offset_groups;
  const int64_t workers =
      team.workers(divide_up(images_open * window.pixels(), size) * taps * groups);
  C* const all_rows = allocate<C>(context, workers * size * kBlock<C>);
  C* const all_dots = allocate<C>(context, workers * size * 4);
  Samples<C>* const all_samples = allocate<Samples<C>>(context, workers);

  for (int64_t first = 0; first < images; first += images_open) {
    const int64_t count = smaller(images_open, images - first);
    maps.copy_from(team, blocks, input, first, count);
    const Tiles tiles = {first, window.pixels(), count * window.pixels(), size};

    team.for_each(tiles.count() * taps * groups, [&](int64_t task, int64_t worker) {
      const int64_t tile = task / groups / taps, tap = task / groups % taps, group = task % groups;
      C* const rows = all_rows + worker * size * kBlock<C>;
      C* const dots = all_dots + worker * size * 4;
      Samples<C>& samples = all_samples[worker];
      fill_samples(window, tiles, tile, group, tap, maps.strides(), samples);
      memset(dots, 0, static_cast<size_t>(size * 4) * sizeof(C));
      for (int64_t b = group * blocks.per_offset_group();
           b < (group + 1) * blocks.per_offset_group(); ++b) {
        columns_to_rows(columns, tiles, tile, tap, blocks.channel(b), blocks.width(b), rows);
        for (int64_t row = 0; row < tiles.rows(tile); ++row) {
          C part[4];
          dot_rows(maps.read_only_map(b), samples, row, blocks.width(b), rows + row * kBlock<C>,
                   part);
          for (int corner = 0; corner < 4; ++corner) dots[row * 4 + corner] += part[corner];
        }
      }
      for_each_batch(window, tiles, tile, group, tap,
                     [&](const PointBatch<T>& batch, int64_t row, int64_t lanes) {
                       for (int64_t lane = 0; lane < lanes; ++lane) {
                         const TapStencil<C> stencil = batch.stencil(lane);
                         grad_mask(batch.n(), group * taps + tap, batch.oy(lane), batch.ox(lane)) =
                             convert<T>(weigh_dots(stencil.y, stencil.x, dots + (row + lane) * 4));
                       }
                     });
    });
  }
}

#define DEFORMOPS_INSTANTIATE(T)                                                               \
  template void gather_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 4>,   \
                                  View<T, 5>);                                                 \
  template void scatter_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 5>,  \
                                   View<T, 4>);                                                \
  template void contract_columns<T>(const Context&, const SampledWindow<T>&, View<const T, 4>, \
                                    View<const T, 5>, View<T, 4>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

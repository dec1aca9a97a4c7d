// Deformable convolution, backward.
//
// The channels are cut into blocks of two vectors. A block owns its part of grad_input and
// grad_weight and walks over the tiles of output pixels in order; for each tile and tap it
//   - multiplies grad_output by the weight: a tile of grad_columns, used while it is in the cache;
//   - takes its dot products with the four corners of each sample (for grad_mask and grad_offset);
//   - scatters it into grad_input;
//   - gathers the columns again and adds grad_output^T times them to grad_weight.
// Blocks run in parallel. No two of them write to the same place, and what all of them contribute
// to, the dot products, is kept apart and added in the order of the blocks: the result has the same
// bits for any number of threads. When there are fewer blocks than threads would like, the taps of
// a block are shared out too; only the scatter, where taps meet, is then a pass of its own over
// grad_columns.
//
// Memory besides the gradients: the weight and grad_weight once each, packed; input and grad_input
// in blocks of channels (see ChannelBlocks), for kMapBytes or one image; tables of one band of
// tiles (kBandBytes or one tile); two tiles of one block for each thread.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/maps.h"
#include "kernels/cpu/taps.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// What is prepared for all blocks, a band of tiles at a time.
constexpr int64_t kBandBytes = int64_t{8} << 20;

template <class T>
class Backward {
 public:
  using C = compute_t<T>;

  Backward(const Context& context, const SampledWindow<T>& window, View<const T, 4> grad_output,
           View<const T, 4> input, View<const T, 4> weight,
           const ConvolutionGradients<T>& gradients)
      : context_(context),
        team_(2 * input.sizes[0] * window.pixels() * window.taps() * weight.sizes[1] *
              weight.sizes[0]),
        window_(window),
        grad_output_(grad_output),
        input_(input),
        weight_(weight),
        gradients_(gradients),
        wants_slopes_(gradients.offset.defined() || gradients.mask.defined()),
        needs_grad_columns_(wants_slopes_ || gradients.input.defined()),
        needs_input_(wants_slopes_ || gradients.weight.defined()),
        taps_(window.taps()),
        groups_(weight.sizes[1] > 0 ? input.sizes[1] / weight.sizes[1] : 1),
        outputs_(weight.sizes[0] / larger(groups_, 1)),
        blocks_(input.sizes[1], weight.sizes[1], input.sizes[1] / window.offset_groups, kBlock<C>),
        grad_stride_(round_up(weight.sizes[0], kLanes<C>) + kLanes<C>) {}

  void run() {
    const int64_t images = input_.sizes[0], pixels = input_.sizes[2] * input_.sizes[3];
    const int64_t maps = (needs_input_ ? 1 : 0) + (gradients_.input.defined() ? 1 : 0);
    const int64_t count =
        images_at_a_time(images, maps * BlockMaps<C>::image_bytes(blocks_, pixels));
    allocate_all(count);
    if (needs_grad_columns_) pack_weight();
    for (int64_t first = 0; first < images; first += count) {
      run_images(first, smaller(count, images - first));
    }
    if (gradients_.weight.defined()) write_grad_weight();
  }

 private:
  void allocate_all(int64_t images) {
    const int64_t threads = team_.threads(), blocks = blocks_.count();
    tile_size_ = smaller(kTilePixels<C>, images * window_.pixels());
    const int64_t wanted_units = threads == 1 ? 1 : 4 * threads;
    tap_parts_ = smaller(taps_, larger(1, divide_up(wanted_units, larger(blocks, 1))));
    staged_ = tap_parts_ > 1 && gradients_.input.defined();

    table_size_ = taps_ * window_.offset_groups;
    dots_size_ = wants_slopes_ ? blocks * taps_ * tile_size_ * 4 : 0;
    staged_size_ = staged_ ? blocks * taps_ * tile_size_ * kBlock<C> : 0;
    const int64_t tile_bytes =
        (tile_size_ * grad_stride_ + dots_size_ + staged_size_) * static_cast<int64_t>(sizeof(C)) +
        table_size_ * static_cast<int64_t>(sizeof(Samples<C>));
    const int64_t tiles = divide_up(images * window_.pixels(), tile_size_);
    band_tiles_ = smaller(tiles, larger(1, kBandBytes / tile_bytes));

    if (needs_input_) {
      input_maps_ = BlockMaps<C>(context_, blocks_, images, input_.sizes[2], input_.sizes[3]);
    }
    if (gradients_.input.defined()) {
      grad_input_maps_ = BlockMaps<C>(context_, blocks_, images, input_.sizes[2], input_.sizes[3]);
    }
    strides_ = needs_input_ ? input_maps_.strides() : grad_input_maps_.strides();
    grad_rows_ = allocate<C>(context_, band_tiles_ * tile_size_ * grad_stride_);
    samples_ = allocate<Samples<C>>(context_, band_tiles_ * table_size_);
    dots_ = allocate<C>(context_, band_tiles_ * dots_size_);
    staged_columns_ = allocate<C>(context_, band_tiles_ * staged_size_);
    const int64_t workers = team_.workers(blocks * tap_parts_);
    const int64_t tile_columns_size = workers * 2 * tile_size_ * kBlock<C>;
    tile_columns_ = allocate<C>(context_, tile_columns_size);
    if (blocks_.padded_width() < kBlock<C>) {  // so much of a row is gathered; the rest is zeros
      memset(tile_columns_, 0, static_cast<size_t>(tile_columns_size) * sizeof(C));
    }

    tile_sums_ = allocate<C>(context_, team_.workers(band_tiles_) * tile_size_ * 4);

    const int64_t packed_size = blocks * taps_ * outputs_ * kBlock<C>;
    if (needs_grad_columns_) packed_weight_ = allocate<C>(context_, packed_size);
    if (gradients_.weight.defined()) {
      packed_grad_weight_ = allocate<C>(context_, packed_size);
      team_.for_each(blocks, [&](int64_t block, int64_t) {
        memset(packed(packed_grad_weight_, block, 0), 0,
               static_cast<size_t>(taps_ * outputs_ * kBlock<C>) * sizeof(C));
      });
    }
  }

  // Packed weights are [block][tap][output of the group][kBlock].
  C* packed(C* all, int64_t block, int64_t tap) const {
    return all + (block * taps_ + tap) * outputs_ * kBlock<C>;
  }

  // A weight is an image too: for one output its taps are the pixels of a map of channels.
  void pack_weight() const {
    team_.for_each(blocks_.count(), [&](int64_t block, int64_t) {
      C* const target = packed(packed_weight_, block, 0);
      if (blocks_.width(block) < kBlock<C>) {
        memset(target, 0, static_cast<size_t>(taps_ * outputs_ * kBlock<C>) * sizeof(C));
      }
      for (int64_t output = 0; output < outputs_; ++output) {
        pixels_to_rows(weight_, blocks_.group(block) * outputs_ + output, 0, taps_,
                       blocks_.channel(block) % blocks_.group_channels, blocks_.width(block),
                       target + output * kBlock<C>, outputs_ * kBlock<C>);
      }
    });
  }

  void write_grad_weight() const {
    team_.for_each(blocks_.count(), [&](int64_t block, int64_t) {
      const C* const source = packed(packed_grad_weight_, block, 0);
      for (int64_t output = 0; output < outputs_; ++output) {
        rows_to_pixels(source + output * kBlock<C>, outputs_ * kBlock<C>, gradients_.weight,
                       blocks_.group(block) * outputs_ + output, 0, taps_,
                       blocks_.channel(block) % blocks_.group_channels, blocks_.width(block));
      }
    });
  }

  void run_images(int64_t first, int64_t count) {
    if (needs_input_) input_maps_.copy_from(team_, blocks_, input_, first, count);
    if (gradients_.input.defined()) {
      team_.for_each(blocks_.count(), [&](int64_t block, int64_t) {
        grad_input_maps_.fill_with_zeros(block, count);
      });
    }
    tiles_ = {first, window_.pixels(), count * window_.pixels(), tile_size_};
    for (int64_t tile = 0; tile < tiles_.count(); tile += band_tiles_) {
      run_band(tile, smaller(band_tiles_, tiles_.count() - tile));
    }
    if (gradients_.input.defined()) {
      grad_input_maps_.copy_to(team_, blocks_, gradients_.input, first, count);
    }
  }

  void run_band(int64_t first_tile, int64_t count) {
    first_tile_ = first_tile;
    team_.for_each(count, [&](int64_t i, int64_t) { prepare_tile(i); });
    team_.for_each(blocks_.count() * tap_parts_, [&](int64_t unit, int64_t worker) {
      const int64_t block = unit / tap_parts_, part = unit % tap_parts_;
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t tap = taps_ * part / tap_parts_; tap < taps_ * (part + 1) / tap_parts_;
             ++tap) {
          run_block(i, block, tap, worker);
        }
      }
    });
    if (staged_) {
      team_.for_each(blocks_.count(), [&](int64_t block, int64_t) {
        for (int64_t i = 0; i < count; ++i) {
          for (int64_t tap = 0; tap < taps_; ++tap) {
            scatter(i, block, tap, staged_columns(i, block, tap));
          }
        }
      });
    }
    if (wants_slopes_) {
      team_.for_each(count, [&](int64_t i, int64_t worker) { write_slopes(i, worker); });
    }
  }

  // Tables of tile i of the band.
  C* grad_rows(int64_t i) const { return grad_rows_ + i * tile_size_ * grad_stride_; }
  Samples<C>& samples(int64_t i, int64_t group, int64_t tap) const {
    return samples_[i * table_size_ + group * taps_ + tap];
  }
  C* dots(int64_t i, int64_t block, int64_t tap) const {
    return dots_ + i * dots_size_ + (block * taps_ + tap) * tile_size_ * 4;
  }
  C* staged_columns(int64_t i, int64_t block, int64_t tap) const {
    return staged_columns_ + i * staged_size_ + (block * taps_ + tap) * tile_size_ * kBlock<C>;
  }

  void prepare_tile(int64_t i) const {
    const int64_t tile = first_tile_ + i;
    tiles_.for_each_image(tile, [&](int64_t n, int64_t begin, int64_t end, int64_t row) {
      pixels_to_rows(grad_output_, n, begin, end, 0, grad_output_.sizes[1],
                     grad_rows(i) + row * grad_stride_, grad_stride_);
    });
    for (int64_t group = 0; group < window_.offset_groups; ++group) {
      for (int64_t tap = 0; tap < taps_; ++tap) {
        fill_samples(window_, tiles_, tile, group, tap, strides_, samples(i, group, tap));
      }
    }
  }

  void run_block(int64_t i, int64_t block, int64_t tap, int64_t worker) const {
    const int64_t rows = tiles_.rows(first_tile_ + i);
    const C* const grad = grad_rows(i) + blocks_.group(block) * outputs_;
    const Samples<C>& at = samples(i, blocks_.offset_group(block), tap);
    C* const columns = tile_columns_ + worker * 2 * tile_size_ * kBlock<C>;

    if (needs_grad_columns_) {
      C* const grad_columns =
          staged_ ? staged_columns(i, block, tap) : columns + tile_size_ * kBlock<C>;
      multiply_panel<C, Lies::kRows>(grad, grad_stride_, rows, outputs_,
                                     packed(packed_weight_, block, tap), grad_columns, false);
      if (wants_slopes_) {
        const RowMap<const C> map = input_maps_.read_only_map(block);
        C* const out = dots(i, block, tap);
        for (int64_t row = 0; row < rows; ++row) {
          dot_rows(map, at, row, blocks_.width(block), grad_columns + row * kBlock<C>,
                   out + row * 4);
        }
      }
      if (gradients_.input.defined() && !staged_) scatter(i, block, tap, grad_columns);
    }

    if (gradients_.weight.defined()) {
      const RowMap<const C> map = input_maps_.read_only_map(block);
      for (int64_t row = 0; row < rows; ++row) {
        gather_row(map, at, row, blocks_.padded_width(), columns + row * kBlock<C>);
      }
      multiply_panel<C, Lies::kColumns>(grad, grad_stride_, outputs_, rows, columns,
                                        packed(packed_grad_weight_, block, tap), true);
    }
  }

  void scatter(int64_t i, int64_t block, int64_t tap, const C* grad_columns) const {
    const int64_t rows = tiles_.rows(first_tile_ + i);
    const Samples<C>& at = samples(i, blocks_.offset_group(block), tap);
    const RowMap<C> map = grad_input_maps_.map(block);
    for (int64_t row = 0; row < rows; ++row) {
      scatter_row(map, at, row, blocks_.width(block), grad_columns + row * kBlock<C>);
    }
  }

  // grad_mask and grad_offset of tile i of the band, from the dot products of all blocks.
  void write_slopes(int64_t i, int64_t worker) const {
    C* const sums = tile_sums_ + worker * tile_size_ * 4;
    const int64_t count = tiles_.rows(first_tile_ + i) * 4;
    const int64_t blocks = blocks_.per_offset_group();
    for (int64_t group = 0; group < window_.offset_groups; ++group) {
      for (int64_t tap = 0; tap < taps_; ++tap) {
        memset(sums, 0, static_cast<size_t>(count) * sizeof(C));
        for (int64_t block = group * blocks; block < (group + 1) * blocks; ++block) {
          const C* const part = dots(i, block, tap);
          for (int64_t j = 0; j < count; ++j) sums[j] += part[j];
        }
        for_each_batch(window_, tiles_, first_tile_ + i, group, tap,
                       [&](const PointBatch<T>& batch, int64_t row, int64_t lanes) {
                         for (int64_t lane = 0; lane < lanes; ++lane) {
                           write_slopes(batch, lane, group * taps_ + tap, sums + (row + lane) * 4);
                         }
                       });
      }
    }
  }

  // `channel` is the mask's; the offset has two for each.
  void write_slopes(const PointBatch<T>& batch, int64_t lane, int64_t channel,
                    const C* dots) const {
    const int64_t n = batch.n(), oy = batch.oy(lane), ox = batch.ox(lane);
    const TapStencil<C> value = batch.stencil(lane);
    if (gradients_.mask.defined()) {
      gradients_.mask(n, channel, oy, ox) = convert<T>(weigh_dots(value.y, value.x, dots));
    }
    if (gradients_.offset.defined()) {
      const TapStencil<C> slope = batch.stencil(lane, 1, 1);
      gradients_.offset(n, 2 * channel, oy, ox) =
          convert<T>(value.mask * weigh_dots(slope.y, value.x, dots));
      gradients_.offset(n, 2 * channel + 1, oy, ox) =
          convert<T>(value.mask * weigh_dots(value.y, slope.x, dots));
    }
  }

  const Context& context_;
  const Team team_;
  const SampledWindow<T>& window_;
  const View<const T, 4> grad_output_, input_, weight_;
  const ConvolutionGradients<T>& gradients_;

  // What is asked for, and what that needs.
  const bool wants_slopes_, needs_grad_columns_, needs_input_;

  const int64_t taps_, groups_, outputs_;  // outputs of a group
  const ChannelBlocks blocks_;
  const int64_t grad_stride_;  // of rows of grad_output; no power of two, which caches dislike

  int64_t tile_size_ = 0, band_tiles_ = 0;
  int64_t tap_parts_ = 1;  // units of work in a block
  bool staged_ = false;    // grad_columns are kept for a scatter of its own

  BlockMaps<C> input_maps_, grad_input_maps_;
  RowStrides strides_ = {};
  Tiles tiles_ = {};
  int64_t first_tile_ = 0;  // of the band

  int64_t table_size_ = 0, dots_size_ = 0, staged_size_ = 0;  // of a tile
  C* grad_rows_ = nullptr;
  Samples<C>* samples_ = nullptr;
  C* dots_ = nullptr;
  C* staged_columns_ = nullptr;
  C* tile_columns_ = nullptr;
  C* tile_sums_ = nullptr;
  C* packed_weight_ = nullptr;
  C* packed_grad_weight_ = nullptr;
};

}  // namespace

template <class T>
void deform_conv2d_backward(const Context& context, const SampledWindow<T>& window,
                            View<const T, 4> grad_output, View<const T, 4> input,
                            View<const T, 4> weight, const ConvolutionGradients<T>& gradients) {
  Backward<T>(context, window, grad_output, input, weight, gradients).run();
}

#define DEFORMOPS_INSTANTIATE(T)                                                                \
  template void deform_conv2d_backward<T>(const Context&, const SampledWindow<T>&,              \
                                          View<const T, 4>, View<const T, 4>, View<const T, 4>, \
                                          const ConvolutionGradients<T>&);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

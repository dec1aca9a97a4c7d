// Convolution with 3x3 taps in place by fewer products: deform_conv2d without offset and mask,
// where the caller allows it.
//
// Pixels that are a dilation apart form maps of their own, on each of which the kernel is dense.
// There kOutputs neighbouring outputs of one axis are A^T ((G w) * (B^T x)) of three weights w and
// the kOutputs + 2 pixels x that they see: as many products as pixels, instead of three for each
// output. (Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms
// for Convolutional Neural Networks, 2016.) On both axes that is a tile of pixels, and the sum over
// channels is one matrix product for each of its places.
//
// What the transforms multiply up and cancel costs accuracy: errors are about eight times those of
// the direct sum, relative to the largest numbers that a tile sees. A number that is not finite, or
// one that overflows, would reach all outputs of its tile; then nothing of this result is of use.
//
// Memory besides the output: what regular_conv2d takes for the packed weight; rows of channels of
// the input as deform_conv2d; kTilesBytes of transformed tiles or one patch; kWeightsBytes of
// transformed weights or one panel; and for each thread the products of a patch for kTaskOutputs
// channels.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/maps.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

constexpr int kTaps = 3;

// Tiles of a patch, which is multiplied by the weights at once: at most, unless one row of tiles of
// one cell has more.
constexpr int64_t kPatchTiles = 168;

// Output channels of a task: one place of a patch is in the second-level cache while it is
// multiplied by the weights of all of them.
constexpr int64_t kTaskOutputs = 256;

constexpr int64_t kTilesBytes = int64_t{24} << 20;
constexpr int64_t kWeightsBytes = int64_t{24} << 20;

// Channels of one task of transforming weights.
constexpr int64_t kWeightChannels = 64;

// Products of one sum; more are a sum of such sums. What rounding loses in long sums the transforms
// multiply up.
constexpr int64_t kSummed = 128;

// The points at which the polynomials of weights and of outputs are evaluated, besides infinity.
// Symmetric ones near 1 keep the coefficients, and so the errors, small.
template <int kOutputs>
struct Points;
template <>
struct Points<3> {
  static constexpr double at[4] = {0, 0.75, -0.75, 1.5};
};
template <>
struct Points<4> {
  static constexpr double at[5] = {0, 0.75, -0.75, 1.5, -1.5};
};

template <int kRows, int kColumns>
struct Matrix {
  double at[kRows][kColumns] = {};
};

// A^T, G and B^T of one axis.
template <int kOutputs>
struct Transforms {
  static constexpr int kPixels = kOutputs + kTaps - 1;

  Matrix<kPixels, kPixels> pixels;
  Matrix<kPixels, kTaps> weights;
  Matrix<kOutputs, kPixels> outputs;

  constexpr Transforms() {
    constexpr int kLast = kPixels - 1;  // the point at infinity
    const auto& points = Points<kOutputs>::at;
    for (int p = 0; p < kLast; ++p) {
      double distances = 1;
      for (int other = 0; other < kLast; ++other) {
        if (other != p) distances *= points[p] - points[other];
      }
      double power = 1;
      for (int i = 0; i < kPixels; ++i, power *= points[p]) {
        if (i < kOutputs) outputs.at[i][p] = power;
        if (i < kTaps) weights.at[p][i] = power / distances;
      }
      multiply_out(p, pixels.at[p]);
    }
    outputs.at[kOutputs - 1][kLast] = 1;
    weights.at[kLast][kTaps - 1] = 1;
    multiply_out(kLast, pixels.at[kLast]);
  }

 private:
  // The coefficients of the product of (x - point) over all points but one.
  static constexpr void multiply_out(int without, double (&product)[kPixels]) {
    product[0] = 1;
    for (int p = 0; p < kPixels - 1; ++p) {
      if (p == without) continue;
      for (int i = kPixels - 1; i >= 0; --i) {
        product[i] = (i > 0 ? product[i - 1] : 0) - Points<kOutputs>::at[p] * product[i];
      }
    }
  }
};

template <int kOutputs>
constexpr Transforms<kOutputs> kTransforms;

// out[kRows] = matrix * in[kColumns], elements `step` apart. What is 0 in the matrix costs nothing:
// all loops are unrolled.
template <class C, int kRows, int kColumns>
DEFORMOPS_INLINE void apply(const Matrix<kRows, kColumns>& matrix, const Vector<C>* in, int in_step,
                            Vector<C>* out, int out_step) {
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    Vector<C> sum = {};
#pragma GCC unroll 8
    for (int column = 0; column < kColumns; ++column) {
      if (matrix.at[row][column] == 0) continue;
      sum += static_cast<C>(matrix.at[row][column]) * in[column * in_step];
    }
    out[row * out_step] = sum;
  }
}

// out[kRows][kRows] = matrix * in[kColumns][kColumns] * matrix^T.
template <class C, int kRows, int kColumns>
DEFORMOPS_INLINE void apply_both(const Matrix<kRows, kColumns>& matrix, const Vector<C>* in,
                                 Vector<C>* out) {
  Vector<C> half[kRows * kColumns];
#pragma GCC unroll 8
  for (int column = 0; column < kColumns; ++column) {
    apply<C>(matrix, in + column, kColumns, half + column, kColumns);
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    apply<C>(matrix, half + row * kColumns, 1, out + row * kRows, 1);
  }
}

// The tiles of one axis. A cell is a run of kOutputs * dilation outputs: as many tiles as the
// dilation, one for each remainder. A last cell that is cut off may have fewer.
template <int kOutputs>
struct TileAxis : WindowAxis {
  explicit TileAxis(const WindowAxis& axis) : WindowAxis(axis) {}

  int64_t cell_outputs() const { return kOutputs * dilation; }
  int64_t cells() const { return divide_up(output, cell_outputs()); }

  // Of the first so many cells.
  int64_t tiles(int64_t cells) const {
    const int64_t whole = smaller(cells, output / cell_outputs());
    const int64_t rest = cells > whole ? output - whole * cell_outputs() : 0;
    return whole * dilation + smaller(dilation, rest);
  }
  int64_t tiles() const { return tiles(cells()); }

  // The outputs of a tile are this one and those that follow it at the dilation.
  int64_t first_output(int64_t tile) const {
    return tile / dilation * cell_outputs() + tile % dilation;
  }
};

template <class T, int kOutputs>
class WinogradConvolution {
 public:
  using C = compute_t<T>;

  WinogradConvolution(const Context& context, const WindowAxis& y, const WindowAxis& x,
                      View<const T, 4> input, View<const T, 4> weight, View<const T, 1> bias,
                      View<T, 4> output)
      : y_(y),
        x_(x),
        bias_(bias),
        output_(output),
        channels_(weight.sizes[1]),
        groups_(input.sizes[1] / channels_),
        team_(products(input.sizes[0], y, x) * channels_ * weight.sizes[0]),
        maps_(context, input),
        packed_(context, team_, weight, groups_,
                {kTaps * kTaps, channels_, kTaps * kTaps, channels_}) {
    const int64_t cell_tiles = smaller(x_.dilation, x_.output);
    patch_cells_ = smaller(x_.cells(), larger(1, kPatchTiles / cell_tiles));
    columns_ = divide_up(x_.cells(), patch_cells_);
    patch_cells_ = divide_up(x_.cells(), columns_);
    const int64_t width = smaller(x_.tiles(), patch_cells_ * cell_tiles);
    const int64_t most_rows = larger(1, kPatchTiles / width);
    rows_ = divide_up(y_.tiles(), most_rows);
    patch_tiles_ = divide_up(y_.tiles(), rows_) * width;

    row_ = round_up(channels_, kLanes<C>) + kLanes<C>;
    place_tiles_ = (patch_tiles_ | 1) * row_;
    patch_size_ = kPlaces * place_tiles_;
    panel_size_ = channels_ * kBlock<C>;
    panel_sums_ = patch_tiles_ * kBlock<C>;

    const int64_t element = static_cast<int64_t>(sizeof(C));
    patches_at_a_time_ = smaller(maps_.images() * rows_ * columns_,
                                 larger(1, kTilesBytes / (patch_size_ * element)));
    panels_at_a_time_ =
        smaller(packed_.panels(), larger(1, kWeightsBytes / (kPlaces * panel_size_ * element)));
    const int64_t steps = divide_up(packed_.panels(), panels_at_a_time_);
    panels_at_a_time_ = divide_up(packed_.panels(), steps);
    tiles_ = allocate<C>(context, patches_at_a_time_ * patch_size_);
    place_weights_ = panels_at_a_time_ * panel_size_ + kLanes<C>;
    weights_ = allocate<C>(context, kPlaces * place_weights_);
    // Tasks for all threads, rather than long ones.
    const int64_t share = patches_at_a_time_ * panels_at_a_time_ / (2 * team_.threads());
    panels_ = smaller(larger(1, share), smaller(panels_at_a_time_, kTaskOutputs / kBlock<C>));
    place_sums_ = panels_ * panel_sums_ + kLanes<C>;
    const int64_t workers =
        team_.workers(patches_at_a_time_ * divide_up(panels_at_a_time_, panels_));
    sums_ = allocate<C>(context, workers * kPlaces * place_sums_);
    band_size_ = kOutputs * smaller(x_.output, patch_cells_ * x_.cell_outputs()) * kBlock<C>;
    bands_ = allocate<C>(context, workers * band_size_);
  }

  bool run() {
    const int64_t images = output_.sizes[0];
    for (int64_t first = 0; first < images; first += maps_.images()) {
      const int64_t count = smaller(maps_.images(), images - first);
      maps_.open(team_, first, count);
      const int64_t patches = count * rows_ * columns_;
      for (int64_t group = 0; group < groups_; ++group) {
        for (int64_t patch = 0; patch < patches; patch += patches_at_a_time_) {
          run_patches(group, first, patch, smaller(patches_at_a_time_, patches - patch));
          if (!finite_) return false;
        }
      }
    }
    return true;
  }

 private:
  static constexpr int kPixels = kOutputs + kTaps - 1;  // of a tile, on each axis
  static constexpr int kPlaces = kPixels * kPixels;

  static int64_t products(int64_t images, const WindowAxis& y, const WindowAxis& x) {
    return images * TileAxis<kOutputs>(y).tiles() * TileAxis<kOutputs>(x).tiles() * kPlaces;
  }

  // Some rows of tiles of an image, and of these those of some cells.
  struct Patch {
    int64_t image;
    int64_t first_row, rows;
    int64_t first_column, columns;
    int64_t first_x, width;  // outputs
  };

  Patch patch(int64_t index) const {
    const int64_t row = index / columns_ % rows_, column = index % columns_;
    Patch p;
    p.image = index / columns_ / rows_;
    p.first_row = y_.tiles() * row / rows_;
    p.rows = y_.tiles() * (row + 1) / rows_ - p.first_row;
    const int64_t cell = column * patch_cells_;
    const int64_t end = smaller(x_.cells(), cell + patch_cells_);
    p.first_column = x_.tiles(cell);
    p.columns = x_.tiles(end) - p.first_column;
    p.first_x = cell * x_.cell_outputs();
    p.width = smaller(x_.output, end * x_.cell_outputs()) - p.first_x;
    return p;
  }

  void run_patches(int64_t group, int64_t first_image, int64_t first, int64_t count) {
    const int64_t most_rows = divide_up(y_.tiles(), rows_);
    team_.for_each(count * most_rows, [&](int64_t task, int64_t) {
      const int64_t i = task / most_rows;
      transform_pixels(group, patch(first + i), task % most_rows, tiles_ + i * patch_size_);
    });
    for (int64_t panel = 0; panel < packed_.panels(); panel += panels_at_a_time_) {
      const int64_t panels = smaller(panels_at_a_time_, packed_.panels() - panel);
      const int64_t parts = divide_up(channels_, kWeightChannels);
      team_.for_each(panels * parts, [&](int64_t task, int64_t) {
        transform_weights(group, panel + task / parts, task % parts * kWeightChannels,
                          weights_ + task / parts * panel_size_);
      });
      team_.for_each(divide_up(panels, panels_) * count, [&](int64_t task, int64_t worker) {
        if (!__atomic_load_n(&finite_, __ATOMIC_RELAXED)) return;
        const int64_t i = task % count, j = task / count * panels_;
        const int64_t part = smaller(panels_, panels - j);
        Patch p = patch(first + i);
        p.image += first_image;
        C* const sums = sums_ + worker * kPlaces * place_sums_;
        for (int place = 0; place < kPlaces; ++place) {
          const C* const tiles = tiles_ + i * patch_size_ + place * place_tiles_;
          const C* const weights = weights_ + place * place_weights_ + j * panel_size_;
          for (int64_t k = 0; k < part; ++k) {
            int64_t channel = 0;
            do {
              multiply_panel<C, Lies::kRows>(
                  tiles + channel, row_, p.rows * p.columns, smaller(kSummed, channels_ - channel),
                  weights + k * panel_size_ + channel * kBlock<C>,
                  sums + place * place_sums_ + k * panel_sums_, channel > 0);
              channel += kSummed;
            } while (channel < channels_);
          }
        }
        for (int64_t k = 0; k < part; ++k) {
          transform_sums(group, p, panel + j + k, sums + k * panel_sums_,
                         bands_ + worker * band_size_);
        }
      });
    }
  }

  // B^T x B for one row of tiles: tiles[place][tile of the patch][channel].
  void transform_pixels(int64_t group, const Patch& p, int64_t row, C* tiles) const {
    if (row >= p.rows) return;
    const RowMap<const C> map = maps_.map(group * channels_);
    const int64_t top = y_.position(y_.first_output(p.first_row + row), 0);
    for (int64_t column = 0; column < p.columns; ++column) {
      const int64_t left = x_.position(x_.first_output(p.first_column + column), 0);
      const C* pixels[kPlaces];
      for (int i = 0; i < kPlaces; ++i) {
        const int64_t y = top + i / kPixels * y_.dilation, x = left + i % kPixels * x_.dilation;
        const bool inside = 0 <= y && y < y_.input && 0 <= x && x < x_.input;
        pixels[i] =
            inside ? map.rows + p.image * map.stride.image + y * map.stride.y + x * map.stride.x
                   : map.outside;
      }
      C* const out = tiles + (row * p.columns + column) * row_;
      for (int64_t c = 0; c < channels_; c += kLanes<C>) {
        Vector<C> tile[kPlaces], transformed[kPlaces];
        if (c + kLanes<C> <= channels_) {
#pragma GCC unroll 64
          for (int i = 0; i < kPlaces; ++i) tile[i] = load(pixels[i] + c);
        } else {
          for (int i = 0; i < kPlaces; ++i) {
            tile[i] = Vector<C>{};
            memcpy(&tile[i], pixels[i] + c, (channels_ - c) * sizeof(C));
          }
        }
        apply_both<C>(kTransforms<kOutputs>.pixels, tile, transformed);
#pragma GCC unroll 64
        for (int i = 0; i < kPlaces; ++i) store(out + i * place_tiles_ + c, transformed[i]);
      }
    }
  }

  // G w G^T for some channels of a panel: weights[place][channel][kBlock].
  void transform_weights(int64_t group, int64_t panel, int64_t first, C* weights) const {
    const C* const taps = packed_.panel(group, panel, 0, kTaps * kTaps * channels_);
    const int64_t begin = first * kBlock<C>;
    const int64_t end = smaller(channels_, first + kWeightChannels) * kBlock<C>;
    for (int64_t at = begin; at < end; at += kLanes<C>) {
      Vector<C> kernel[kTaps * kTaps], transformed[kPlaces];
#pragma GCC unroll 16
      for (int tap = 0; tap < kTaps * kTaps; ++tap) {
        kernel[tap] = load(taps + tap * channels_ * kBlock<C> + at);
      }
      apply_both<C>(kTransforms<kOutputs>.weights, kernel, transformed);
#pragma GCC unroll 64
      for (int i = 0; i < kPlaces; ++i) store(weights + i * place_weights_ + at, transformed[i]);
    }
  }

  // A^T M A plus the bias: the outputs of one patch and one panel.
  void transform_sums(int64_t group, const Patch& p, int64_t panel, const C* sums, C* band) {
    const int64_t first = panel * kBlock<C>, count = smaller(kBlock<C>, packed_.outputs() - first);
    const int64_t channel = group * packed_.outputs() + first;
    C lanes[kBlock<C>] = {};
    for (int64_t lane = 0; lane < count && bias_.defined(); ++lane) {
      lanes[lane] = convert<C>(bias_(channel + lane));
    }
    Vector<C> zero = {};  // unless an output is not finite
    for (int64_t row = 0; row < p.rows; ++row) {
      const int64_t y = y_.first_output(p.first_row + row);
      const int64_t rows = smaller(kOutputs, divide_up(y_.output - y, y_.dilation));
      for (int64_t column = 0; column < p.columns; ++column) {
        const int64_t x = x_.first_output(p.first_column + column);
        const int64_t columns = smaller(kOutputs, divide_up(x_.output - x, x_.dilation));
        const C* const products = sums + (row * p.columns + column) * kBlock<C>;
        C* const out = band + (x - p.first_x) * kBlock<C>;
        for (int64_t lane = 0; lane < kBlock<C>; lane += kLanes<C>) {
          Vector<C> tile[kPlaces], transformed[kOutputs * kOutputs];
#pragma GCC unroll 64
          for (int i = 0; i < kPlaces; ++i) tile[i] = load(products + i * place_sums_ + lane);
          apply_both<C>(kTransforms<kOutputs>.outputs, tile, transformed);
          const Vector<C> shift = load(lanes + lane);
          for (int64_t i = 0; i < rows; ++i) {
            for (int64_t j = 0; j < columns; ++j) {
              const Vector<C> sum = transformed[i * kOutputs + j];
              zero += C(0) * sum;
              store(out + (i * p.width + j * x_.dilation) * kBlock<C> + lane, sum + shift);
            }
          }
        }
      }
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t begin = (y + i * y_.dilation) * x_.output + p.first_x;
        rows_to_pixels(band + i * p.width * kBlock<C>, kBlock<C>, output_, p.image, begin,
                       begin + p.width, channel, count);
      }
    }
    for (int lane = 0; lane < kLanes<C>; ++lane) {
      if (zero[lane] != 0) __atomic_store_n(&finite_, false, __ATOMIC_RELAXED);
    }
  }

  const TileAxis<kOutputs> y_, x_;
  const View<const T, 1> bias_;
  const View<T, 4> output_;
  const int64_t channels_, groups_;  // channels of a group
  const Team team_;
  ChannelRows<T> maps_;
  const PackedWeight<T> packed_;
  int64_t patch_cells_, columns_, rows_, patch_tiles_;
  int64_t row_, place_tiles_, patch_size_;
  int64_t panel_size_, place_weights_, panel_sums_, place_sums_, band_size_;
  int64_t patches_at_a_time_, panels_at_a_time_, panels_;
  C* tiles_;
  C* weights_;
  C* sums_;
  C* bands_;
  bool finite_ = true;
};

// Products of all tiles of both axes.
template <int kOutputs>
int64_t tile_products(const WindowAxis& y, const WindowAxis& x) {
  constexpr int kPixels = kOutputs + kTaps - 1;
  return TileAxis<kOutputs>(y).tiles() * TileAxis<kOutputs>(x).tiles() * kPixels * kPixels;
}

}  // namespace

template <class T>
bool winograd_conv2d(const Context& context, const WindowAxis& y, const WindowAxis& x,
                     View<const T, 4> input, View<const T, 4> weight, View<const T, 1> bias,
                     View<T, 4> output) {
  return tile_products<3>(y, x) < tile_products<4>(y, x)
             ? WinogradConvolution<T, 3>(context, y, x, input, weight, bias, output).run()
             : WinogradConvolution<T, 4>(context, y, x, input, weight, bias, output).run();
}

#define DEFORMOPS_INSTANTIATE(T)                                                         \
  template bool winograd_conv2d<T>(const Context&, const WindowAxis&, const WindowAxis&, \
                                   View<const T, 4>, View<const T, 4>, View<const T, 1>, \
                                   View<T, 4>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

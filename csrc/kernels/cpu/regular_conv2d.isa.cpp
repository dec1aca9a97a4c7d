// Convolution whose taps stay in place: deform_conv2d without offset and mask.
//
// A tap then reads a shifted copy of the input, so nothing is gathered: the pixels below a patch of
// outputs are brought once into a strip of rows of channels, and each tap is a product that starts
// at another pixel of it. Outputs whose tap falls into the padding are left out of the product,
// which at large dilations is a good part of the work.
//
// Some channels of all taps at a time, for one panel of output channels after the other: while the
// weights pass by, the strip stays in the second-level cache.
//
// Memory besides the output: the packed weight, and for each thread a strip of about kStripBytes
// and the sums of a patch for at most kOutputs channels.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// Pixels of a patch: three tiles of deform_conv2d, because here fewer things share the cache and
// every patch reads all weights again. Its strip leaves half of a second-level cache of 1 MiB to
// them; the sums need not stay there, products fetch them early enough.
template <class C>
constexpr int64_t kPatchPixels = 3 * kTilePixels<C>;

constexpr int64_t kStripBytes = 400 << 10;

// Output channels that are summed up at a time.
constexpr int64_t kOutputs = 512;

struct Range {
  int64_t begin, end;

  DEFORMOPS_INLINE int64_t size() const { return end - begin; }
};

// Which of the outputs have this tap on the map.
DEFORMOPS_INLINE Range on_map(const WindowAxis& axis, Range outputs, int64_t tap) {
  const int64_t before = -axis.position(0, tap);  // pixels by which output 0 misses the map
  const int64_t first = before > 0 ? divide_up(before, axis.stride) : 0;
  const int64_t room = axis.input + before;
  const int64_t last = room > 0 ? divide_up(room, axis.stride) : 0;
  const int64_t begin = larger(outputs.begin, first);
  return {begin, larger(begin, smaller(outputs.end, last))};
}

// One axis of a strip: which pixels of the input it has. Taps whose pixels overlap share them;
// otherwise each has its own, one for each output.
class StripAxis {
 public:
  // For patches of at most `outputs` outputs.
  StripAxis(const WindowAxis& axis, int64_t outputs) : axis_(axis) {
    const int64_t reach = (outputs - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1;
    const int64_t together = smaller(axis.input, reach);
    shared_ = together <= axis.taps * outputs;
    most_ = shared_ ? together : outputs;
  }

  int64_t parts() const { return shared_ ? 1 : axis_.taps; }
  int64_t step() const { return shared_ ? 1 : axis_.stride; }  // from pixel to pixel of a part
  int64_t most_pixels() const { return most_; }                // of a part

  // The input pixels of a part, from the first to the last, for a patch.
  Range pixels(Range outputs, int64_t part) const {
    if (shared_) {
      const int64_t begin = larger(0, axis_.position(outputs.begin, 0));
      const int64_t last = axis_.position(outputs.end - 1, axis_.taps - 1);
      return {begin, larger(begin, smaller(axis_.input, last + 1))};
    }
    const Range inside = on_map(axis_, outputs, part);
    if (inside.size() == 0) return {0, 0};
    return {axis_.position(inside.begin, part), axis_.position(inside.end - 1, part) + 1};
  }

  int64_t part(int64_t tap) const { return shared_ ? 0 : tap; }

 private:
  WindowAxis axis_;
  bool shared_;
  int64_t most_;
};

// How the outputs are cut into patches: some rows of pixels, or a part of one row that is too long.
class Patches {
 public:
  Patches(const WindowAxis& y, const WindowAxis& x, int64_t images, int64_t most_pixels,
          int64_t threads)
      : y_(y.output), x_(x.output), columns_(divide_up(x_, most_pixels)) {
    width_ = divide_up(x_, columns_);
    // As many rows as fit, but so that all threads have the same number of patches.
    const int64_t share = larger(1, threads / (images * columns_));
    const int64_t most_rows = larger(1, most_pixels / width_);
    rows_ = smaller(y_, divide_up(divide_up(y_, share), most_rows) * share);
    count_ = images * rows_ * columns_;
  }

  int64_t count() const { return count_; }
  int64_t height() const { return divide_up(y_, rows_); }  // at most
  int64_t width() const { return width_; }                 // at most

  int64_t image(int64_t i) const { return i / columns_ / rows_; }
  Range y(int64_t i) const {
    const int64_t row = i / columns_ % rows_;
    return {y_ * row / rows_, y_ * (row + 1) / rows_};
  }
  Range x(int64_t i) const {
    const int64_t begin = i % columns_ * width_;
    return {begin, smaller(x_, begin + width_)};
  }

 private:
  int64_t y_, x_, columns_;
  int64_t width_, rows_, count_;
};

// Pixels [y, x] of image n, every step-th of them, from this channel on.
template <class T>
View<T, 4> cut_out(const View<T, 4>& view, int64_t n, int64_t channel, Range y, Range x,
                   int64_t step_y, int64_t step_x) {
  return {view.pointer(n, channel, y.begin, x.begin),
          {1, view.sizes[1] - channel, divide_up(y.size(), step_y), divide_up(x.size(), step_x)},
          {0, view.strides[1], view.strides[2] * step_y, view.strides[3] * step_x}};
}

template <class T>
class RegularConvolution {
 public:
  using C = compute_t<T>;

  RegularConvolution(const Context& context, const WindowAxis& y, const WindowAxis& x,
                     View<const T, 4> input, View<const T, 4> weight, View<const T, 1> bias,
                     View<T, 4> output)
      : y_(y),
        x_(x),
        input_(input),
        bias_(bias),
        output_(output),
        team_(input.sizes[0] * y.output * x.output * y.taps * x.taps * weight.sizes[1] *
              weight.sizes[0]),
        group_channels_(weight.sizes[1]),
        groups_(group_channels_ > 0 ? input.sizes[1] / group_channels_ : 1),
        patches_(y, x, input.sizes[0], kPatchPixels<C>, team_.threads()),
        strip_y_(y, patches_.height()),
        strip_x_(x, patches_.width()),
        step_channels_(step_channels()),
        packed_(context, team_, weight, groups_,
                {y.taps * x.taps, group_channels_, y.taps * x.taps, step_channels_}) {
    parts_ = divide_up(packed_.panels(), kOutputs / kBlock<C>);
    part_panels_ = divide_up(packed_.panels(), parts_);
    part_size_ = strip_y_.most_pixels() * strip_x_.most_pixels() * step_channels_;
    strip_size_ = strip_y_.parts() * strip_x_.parts() * part_size_;
    panel_size_ = patches_.height() * patches_.width() * kBlock<C>;
    const int64_t workers = team_.workers(tasks());
    strips_ = allocate<C>(context, workers * strip_size_);
    sums_ = allocate<C>(context, workers * part_panels_ * panel_size_);
    products_ = allocate<Product>(context, workers * y.taps * x.taps);
  }

  void run() const {
    team_.for_each(tasks(), [&](int64_t task, int64_t worker) {
      const int64_t part = task % parts_;
      const Range panels = {part * part_panels_,
                            smaller(packed_.panels(), (part + 1) * part_panels_)};
      run_patch(task / parts_ / groups_, task / parts_ % groups_, panels, worker);
    });
  }

 private:
  // The product of one tap with a strip. Rows of outputs that follow each other without a gap, in
  // the strip as in the patch, are one.
  struct Product {
    int64_t tap;
    int64_t rows, row_pixels;         // of outputs
    int64_t left, row_step, step;     // the first pixel in the strip, and from there to the next
    int64_t result, result_row_step;  // the first pixel in the patch
  };

  int64_t tasks() const { return patches_.count() * groups_ * parts_; }

  // As many as make a strip of kStripBytes. The order of the sum follows from it, so it may not
  // depend on the patches that are used, which depend on the number of threads.
  int64_t step_channels() const {
    const Patches largest(y_, x_, 1, kPatchPixels<C>, 1);
    const StripAxis y(y_, largest.height()), x(x_, largest.width());
    const int64_t pixels = y.parts() * y.most_pixels() * x.parts() * x.most_pixels();
    const int64_t most = kStripBytes / static_cast<int64_t>(sizeof(C)) / larger(pixels, 1);
    return channels_of_step(group_channels_, larger(16, smaller(kDepth, most / 16 * 16)));
  }

  void run_patch(int64_t patch, int64_t group, Range panels, int64_t worker) const {
    const int64_t n = patches_.image(patch);
    const Range rows = patches_.y(patch), columns = patches_.x(patch);
    C* const strip = strips_ + worker * strip_size_;
    C* const sums = sums_ + worker * part_panels_ * panel_size_;
    Product* const products = products_ + worker * y_.taps * x_.taps;

    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      start(sums + (panel - panels.begin) * panel_size_, rows.size() * columns.size(), group,
            panel);
    }
    const int64_t count = list_products(rows, columns, products);
    for (int64_t c = 0; c < group_channels_; c += step_channels_) {
      const int64_t depth = smaller(step_channels_, group_channels_ - c);
      fill_strip(n, group * group_channels_ + c, depth, rows, columns, strip);
      for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
        const C* const weights =
            packed_.panel(group, panel, c * y_.taps * x_.taps, y_.taps * x_.taps * depth);
        C* const panel_sums = sums + (panel - panels.begin) * panel_size_;
        for (int64_t i = 0; i < count; ++i) {
          multiply(products[i], strip, depth, weights, panel_sums);
        }
      }
    }

    const View<T, 4> pixels = cut_out(output_, n, group * packed_.outputs(), rows, columns, 1, 1);
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const int64_t o = panel * kBlock<C>;
      rows_to_pixels(sums + (panel - panels.begin) * panel_size_, kBlock<C>, pixels, 0, 0,
                     rows.size() * columns.size(), o, smaller(kBlock<C>, packed_.outputs() - o));
    }
  }

  // Sums start with the bias.
  void start(C* sums, int64_t pixels, int64_t group, int64_t panel) const {
    C lanes[kBlock<C>];
    for (int64_t lane = 0; lane < kBlock<C>; ++lane) {
      const int64_t o = panel * kBlock<C> + lane;
      const bool has_bias = bias_.defined() && o < packed_.outputs();
      lanes[lane] = has_bias ? convert<C>(bias_(group * packed_.outputs() + o)) : C(0);
    }
    for (int64_t i = 0; i < pixels; ++i) memcpy(sums + i * kBlock<C>, lanes, sizeof(lanes));
  }

  // Where part (i, j) of a strip begins, in pixels.
  int64_t part_of_strip(int64_t i, int64_t j) const {
    return (i * strip_x_.parts() + j) * strip_y_.most_pixels() * strip_x_.most_pixels();
  }

  // The taps that at least one output of the patch has on the map.
  int64_t list_products(Range rows, Range columns, Product* products) const {
    int64_t count = 0;
    for (int64_t ty = 0; ty < y_.taps; ++ty) {
      const Range oys = on_map(y_, rows, ty);
      const Range strip_rows = strip_y_.pixels(rows, strip_y_.part(ty));
      for (int64_t tx = 0; tx < x_.taps; ++tx) {
        const Range oxs = on_map(x_, columns, tx);
        if (oys.size() == 0 || oxs.size() == 0) continue;
        const Range strip_columns = strip_x_.pixels(columns, strip_x_.part(tx));
        const int64_t width = divide_up(strip_columns.size(), strip_x_.step());
        const int64_t first_row = (y_.position(oys.begin, ty) - strip_rows.begin) / strip_y_.step();
        const int64_t first_column =
            (x_.position(oxs.begin, tx) - strip_columns.begin) / strip_x_.step();
        Product& product = products[count++];
        product = {
            ty * x_.taps + tx,
            oys.size(),
            oxs.size(),
            part_of_strip(strip_y_.part(ty), strip_x_.part(tx)) + first_row * width + first_column,
            y_.stride / strip_y_.step() * width,
            x_.stride / strip_x_.step(),
            (oys.begin - rows.begin) * columns.size() + oxs.begin - columns.begin,
            columns.size()};
        if (product.row_pixels * product.step == product.row_step &&
            product.row_pixels == product.result_row_step) {
          product.row_pixels *= product.rows;
          product.rows = 1;
        }
      }
    }
    return count;
  }

  void fill_strip(int64_t n, int64_t channel, int64_t depth, Range rows, Range columns,
                  C* strip) const {
    for (int64_t i = 0; i < strip_y_.parts(); ++i) {
      for (int64_t j = 0; j < strip_x_.parts(); ++j) {
        const Range y = strip_y_.pixels(rows, i), x = strip_x_.pixels(columns, j);
        if (y.size() == 0 || x.size() == 0) continue;
        const View<const T, 4> pixels =
            cut_out(input_, n, channel, y, x, strip_y_.step(), strip_x_.step());
        pixels_to_rows(pixels, 0, 0, pixels.sizes[2] * pixels.sizes[3], 0, depth,
                       strip + part_of_strip(i, j) * depth, depth);
      }
    }
  }

  // `weights` are those of a panel, [tap][depth][kBlock].
  void multiply(const Product& product, const C* strip, int64_t depth, const C* weights,
                C* sums) const {
    const C* const panel = weights + product.tap * depth * kBlock<C>;
    for (int64_t row = 0; row < product.rows; ++row) {
      multiply_panel<C, Lies::kRows>(
          strip + (product.left + row * product.row_step) * depth, product.step * depth,
          product.row_pixels, depth, panel,
          sums + (product.result + row * product.result_row_step) * kBlock<C>, true);
    }
  }

  const WindowAxis y_, x_;
  const View<const T, 4> input_;
  const View<const T, 1> bias_;
  const View<T, 4> output_;
  const Team team_;
  const int64_t group_channels_, groups_;
  const Patches patches_;
  const StripAxis strip_y_, strip_x_;
  const int64_t step_channels_;
  const PackedWeight<T> packed_;
  int64_t parts_, part_panels_;  // of the panels of a group
  int64_t part_size_, strip_size_, panel_size_;
  C* strips_;
  C* sums_;
  Product* products_;
};

}  // namespace

template <class T>
void regular_conv2d(const Context& context, const WindowAxis& y, const WindowAxis& x,
                    View<const T, 4> input, View<const T, 4> weight, View<const T, 1> bias,
                    View<T, 4> output) {
  RegularConvolution<T>(context, y, x, input, weight, bias, output).run();
}

#define DEFORMOPS_INSTANTIATE(T)                                                        \
  template void regular_conv2d<T>(const Context&, const WindowAxis&, const WindowAxis&, \
                                  View<const T, 4>, View<const T, 4>, View<const T, 1>, \
                                  View<T, 4>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

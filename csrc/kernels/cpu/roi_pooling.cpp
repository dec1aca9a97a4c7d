// The kernels of roi_pooling.h as plain loops over the geometry, threads over boxes or channels.
#include "kernels/roi_pooling.h"

#include <limits>

#include "core/parallel.h"

namespace deformops::cpu {
namespace {

template <class C>
constexpr C kNan = std::numeric_limits<C>::quiet_NaN();

// Calls body(y, x, weight) for the corners of all samples of a bin, or for its
// pixels; y is -1 where there is no pixel. Returns what the sum is to be
// divided by.
template <class T, class Body>
compute_t<T> for_each_point(const RoiBins<T>& bins, const RoiBox<compute_t<T>>& box, int64_t k,
                            int64_t cls, int64_t by, int64_t bx, int raise_y, int raise_x,
                            const Body& body) {
  using C = compute_t<T>;
  if (bins.convention.points == RoiPoints::kPixels) {
    const Range ys = bins.pixels_y(box, by), xs = bins.pixels_x(box, bx);
    for (int64_t y = ys.first; y < ys.end; ++y) {
      for (int64_t x = xs.first; x < xs.end; ++x) body(y, x, C(1));
    }
    const int64_t rows = ys.end > ys.first ? ys.end - ys.first : 0;
    return bins.divisor(box, xs.end > xs.first ? rows * (xs.end - xs.first) : 0);
  }
  const C move_y = bins.move_y(box, k, cls, by, bx), move_x = bins.move_x(box, k, cls, by, bx);
  const Range ys = bins.samples_y(box, by, move_y), xs = bins.samples_x(box, bx, move_x);
  int64_t inside = 0;
  for (int64_t i = ys.first; i < ys.end; ++i) {
    const C y = bins.position_y(box, by, i, move_y);
    for (int64_t j = xs.first; j < xs.end; ++j) {
      const SampleStencil<C> stencil =
          bins.stencil(box, y, bins.position_x(box, bx, j, move_x), raise_y, raise_x);
      if (!stencil.inside) continue;
      ++inside;
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t row = stencil.y.index[corner / 2], column = stencil.x.index[corner % 2];
        const bool pixel = row >= 0 && column >= 0;
        body(pixel ? row : -1, column, stencil.y.weight[corner / 2] * stencil.x.weight[corner % 2]);
      }
    }
  }
  return bins.divisor(box, inside);
}

}  // namespace

template <class T, class Index>
void roi_pool(const Context&, const RoiBins<T>& bins, View<const T, 4> input, View<T, 4> output,
              View<Index, 4> index) {
  using C = compute_t<T>;
  parallel_for(0, output.sizes[0], 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const RoiBox<C> box = bins.box(k);
      for (int64_t c = 0; c < bins.channels; ++c) {
        for (int64_t by = 0; by < bins.pooled_y; ++by) {
          for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
            Range ys = {0, 0}, xs = {0, 0};
            if (box.state == RoiState::kUsable) {
              ys = bins.pixels_y(box, by), xs = bins.pixels_x(box, bx);
            }
            C most = box.state == RoiState::kNan ? kNan<C> : C(0);
            int64_t where = -1;
            for (int64_t y = ys.first; y < ys.end; ++y) {
              for (int64_t x = xs.first; x < xs.end; ++x) {
                const C value = static_cast<C>(input(box.image, c, y, x));
                if (where < 0 || value > most || (value != value && most == most)) {
                  most = value, where = y * bins.width + x;
                }
              }
            }
            output(k, c, by, bx) = static_cast<T>(most);
            if (index.defined()) index(k, c, by, bx) = static_cast<Index>(where);
          }
        }
      }
    }
  });
}

template <class T, class Index>
void gather_maxima(const Context&, const RoiBins<T>& bins, View<const T, 4> input,
                   View<const Index, 4> index, View<T, 4> output) {
  using C = compute_t<T>;
  parallel_for(0, output.sizes[0], 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      for (int64_t c = 0; c < bins.channels; ++c) {
        for (int64_t by = 0; by < bins.pooled_y; ++by) {
          for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
            const int64_t p = index(k, c, by, bx);
            output(k, c, by, bx) = p < 0 ? static_cast<T>(C(0))
                                         : input(bins.image(k), c, p / bins.width, p % bins.width);
          }
        }
      }
    }
  });
}

template <class T, class Index>
void scatter_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                    View<const Index, 4> index, View<T, 4> grad_input) {
  using C = compute_t<T>;
  const int64_t images = grad_input.sizes[0], pixels = bins.height * bins.width;
  C* const all =
      context.scratch->allocate_array<C>(static_cast<size_t>(bins.channels * images * pixels));
  parallel_for(0, bins.channels, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      C* const sums = all + c * images * pixels;
      for (int64_t i = 0; i < images * pixels; ++i) sums[i] = C(0);
      for (int64_t k = 0; k < grad_output.sizes[0]; ++k) {
        for (int64_t by = 0; by < bins.pooled_y; ++by) {
          for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
            const int64_t p = index(k, c, by, bx);
            if (p < 0) continue;
            sums[bins.image(k) * pixels + p] += static_cast<C>(grad_output(k, c, by, bx));
          }
        }
      }
      for (int64_t i = 0; i < images * pixels; ++i) {
        grad_input(i / pixels, c, i % pixels / bins.width, i % bins.width) =
            static_cast<T>(sums[i]);
      }
    }
  });
}

template <class T>
void roi_average(const Context&, const RoiBins<T>& bins, View<const T, 4> input,
                 View<T, 4> output) {
  using C = compute_t<T>;
  parallel_for(0, output.sizes[0], 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const RoiBox<C> box = bins.box(k);
      for (int64_t c = 0; c < bins.channels; ++c) {
        for (int64_t by = 0; by < bins.pooled_y; ++by) {
          for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
            C sum = box.state == RoiState::kNan ? kNan<C> : C(0);
            if (box.state == RoiState::kUsable) {
              const int64_t channel = bins.input_channel(c, by, bx);
              const C divisor = for_each_point(
                  bins, box, k, c / bins.channels_per_class(), by, bx, 0, 0,
                  [&](int64_t y, int64_t x, C weight) {
                    const C pixel = y < 0 ? C(0) : static_cast<C>(input(box.image, channel, y, x));
                    sum += weight * pixel;
                  });
              sum /= divisor;
            }
            output(k, c, by, bx) = static_cast<T>(sum);
          }
        }
      }
    }
  });
}

template <class T>
void roi_average_backward(const Context& context, const RoiBins<T>& bins,
                          View<const T, 4> grad_output, View<const T, 4> input,
                          View<T, 4> grad_input, View<T, 4> grad_offset) {
  using C = compute_t<T>;
  const int64_t count = grad_output.sizes[0], images = input.sizes[0];
  const int64_t pixels = bins.height * bins.width, groups = bins.groups_y * bins.groups_x;
  if (grad_input.defined()) {
    C* const all = context.scratch->allocate_array<C>(
        static_cast<size_t>(bins.channels * groups * images * pixels));
    parallel_for(0, bins.channels, 1, [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) {
        C* const sums = all + c * groups * images * pixels;
        for (int64_t i = 0; i < groups * images * pixels; ++i) sums[i] = C(0);
        for (int64_t k = 0; k < count; ++k) {
          const RoiBox<C> box = bins.box(k);
          if (box.state != RoiState::kUsable) continue;
          for (int64_t by = 0; by < bins.pooled_y; ++by) {
            for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
              const int64_t group = bins.input_channel(c, by, bx) - c * groups;
              C* const plane = sums + (group * images + box.image) * pixels;
              const C grad = static_cast<C>(grad_output(k, c, by, bx));
              const auto nothing = [](int64_t, int64_t, C) {};
              const int64_t cls = c / bins.channels_per_class();
              const C divisor = for_each_point(bins, box, k, cls, by, bx, 0, 0, nothing);
              for_each_point(bins, box, k, cls, by, bx, 0, 0, [&](int64_t y, int64_t x, C weight) {
                if (y >= 0) plane[y * bins.width + x] += weight * grad / divisor;
              });
            }
          }
        }
        for (int64_t i = 0; i < groups * images * pixels; ++i) {
          const int64_t p = i % pixels;
          grad_input(i / pixels % images, c * groups + i / pixels / images, p / bins.width,
                     p % bins.width) = static_cast<T>(sums[i]);
        }
      }
    });
  }
  if (!grad_offset.defined()) return;
  parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const RoiBox<C> box = bins.box(k);
      for (int64_t channel = 0; channel < grad_offset.sizes[1]; ++channel) {
        for (int64_t py = 0; py < grad_offset.sizes[2]; ++py) {
          for (int64_t px = 0; px < grad_offset.sizes[3]; ++px) {
            C total = C(0);
            const int64_t cls = channel / 2;
            for (int64_t by = 0; by < bins.pooled_y; ++by) {
              for (int64_t bx = 0; bx < bins.pooled_x; ++bx) {
                if (by * grad_offset.sizes[2] / bins.pooled_y != py ||
                    bx * grad_offset.sizes[3] / bins.pooled_x != px) {
                  continue;
                }
                if (box.state == RoiState::kNan) total = kNan<C>;
                if (box.state != RoiState::kUsable) continue;
                for (int64_t i = 0; i < bins.channels_per_class(); ++i) {
                  const int64_t c = cls * bins.channels_per_class() + i;
                  const int64_t from = bins.input_channel(c, by, bx);
                  C sum = C(0);
                  const C divisor = for_each_point(
                      bins, box, k, cls, by, bx, channel % 2, 1 - channel % 2,
                      [&](int64_t y, int64_t x, C weight) {
                        sum +=
                            weight * (y < 0 ? C(0) : static_cast<C>(input(box.image, from, y, x)));
                      });
                  total += static_cast<C>(grad_output(k, c, by, bx)) * sum / divisor;
                }
              }
            }
            grad_offset(k, channel, py, px) = static_cast<T>(total);
          }
        }
      }
    }
  });
}

#define DEFORMOPS_INSTANTIATE_INDEX(T, Index)                                                 \
  template void roi_pool<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>,       \
                                   View<T, 4>, View<Index, 4>);                               \
  template void gather_maxima<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>,  \
                                        View<const Index, 4>, View<T, 4>);                    \
  template void scatter_maxima<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                         View<const Index, 4>, View<T, 4>);
#define DEFORMOPS_INSTANTIATE(T)                                                                 \
  DEFORMOPS_INSTANTIATE_INDEX(T, int32_t)                                                        \
  DEFORMOPS_INSTANTIATE_INDEX(T, int64_t)                                                        \
  template void roi_average<T>(const Context&, const RoiBins<T>&, View<const T, 4>, View<T, 4>); \
  template void roi_average_backward<T>(const Context&, const RoiBins<T>&, View<const T, 4>,     \
                                        View<const T, 4>, View<T, 4>, View<T, 4>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE
#undef DEFORMOPS_INSTANTIATE_INDEX

}  // namespace deformops::cpu

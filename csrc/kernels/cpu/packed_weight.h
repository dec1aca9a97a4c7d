// The weight of a convolution, brought into the order in which its tiles are multiplied.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/view.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// How the sum over taps and channels of a group is cut into steps: several taps of all channels, or
// some channels of one or of all taps. The order of the sum follows from it, so it may depend on
// shapes only.
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
    const int64_t height = smaller(step_taps, taps - first_tap);
    const int64_t width = smaller(step_channels, channels - first_channel);
    return {first_tap * channels + first_channel * height, height * width,
            (tap - first_tap) * width + channel - first_channel};
  }
};

// Channels of a step: all, or parts of equal size of at most `most`.
DEFORMOPS_INLINE int64_t channels_of_step(int64_t channels, int64_t most) {
  const int64_t parts = divide_up(channels, most);
  return parts <= 1 ? larger(channels, 1) : round_up(divide_up(channels, parts), 16);
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
    // A weight is an image too: its outputs are channels and its taps pixels. When the taps of all
    // channels lie behind each other they are the pixels of one image, else the channels of a tap.
    const int64_t taps = steps.taps, *const size = weight.sizes, *const stride = weight.strides;
    const bool dense = stride[1] == taps * stride[3] && stride[2] == size[3] * stride[3];
    const View<const T, 4> all_taps = {
        weight.data, {1, size[0], 1, size[1] * taps}, {0, stride[0], 0, stride[3]}};
    const View<const T, 4> one_tap = {
        weight.data, {1, size[0], 1, size[1]}, {0, stride[0], 0, stride[1]}};
    const int64_t channels_at_a_time = larger(1, kDepth / taps);
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
        for (int64_t tap = 0; tap < taps && !dense; ++tap) {
          View<const T, 4> image = one_tap;
          image.data = weight.pointer(0, 0, tap / size[3], tap % size[3]);
          pixels_to_rows(image, 0, first, last, output, width, rows + tap * kBlock<C>,
                         taps * kBlock<C>);
        }
        if (dense) {
          pixels_to_rows(all_taps, 0, first * taps, last * taps, output, width, rows, kBlock<C>);
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

}  // namespace deformops::cpu::DEFORMOPS_ISA

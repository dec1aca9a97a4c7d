// Pooling of the bins of boxes: the maximum of their pixels, or the mean of what they look at.
//
// The mean is a derivative of one multilinear form,
//     P(input, grad_output; boxes, offset) = <grad_output, mean over a bin of gather(input;
//     offset)>
// at the orders that `bins` has (geometry/roi.h): roi_average is dP/dgrad_output, and
// roi_average_backward dP/dinput and dP/doffset, the latter being P at one order more, summed over
// the channels of a class and the bins of a part.
//
// The maximum is one of
//     M(input, grad_output; index) = <grad_output, input[index]>,
// where the index says which pixel was the largest: gather_maxima is dM/dgrad_output,
// scatter_maxima dM/dinput.
//
// Shapes: input [N, C, H, W]; boxes [K, 5]; output [K, C', pooled_y, pooled_x], where C = C' *
// groups_y * groups_x; offset [K, 2 * classes, part_y, part_x]; index like output. Views may have
// any strides. Every box has an image (RoiBins::has_image) on the CPU; on a GPU the kernels see to
// that. An undefined result view is a gradient that nobody asked for; defined ones are overwritten.
// Sums of half types are formed in float. T is double, float, half or bfloat16; Index int32_t, or
// int64_t where a map has more pixels than that counts.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/scalars.h"
#include "core/view.h"
#include "geometry/roi.h"

namespace deformops {

// Bit-identical for any number of threads.
namespace cpu {

// The largest pixel of each bin, NaN if one is, 0 if it has none; and, where `index` is defined,
// y * W + x of the first such pixel, -1 if there is none, or none that a gradient could go to.
template <class T, class Index>
void roi_pool(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
              View<T, 4> output, View<Index, 4> index);

// input[image of the box, channel, index], 0 where the index is -1. Returns whether all others are
// of pixels of the map: if not, the result is not to be used.
template <class T, class Index>
bool gather_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                   View<const Index, 4> index, View<T, 4> output);

// Its exact transpose.
template <class T, class Index>
bool scatter_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                    View<const Index, 4> index, View<T, 4> grad_input);

template <class T>
void roi_average(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                 View<T, 4> output);

template <class T>
void roi_average_backward(const Context& context, const RoiBins<T>& bins,
                          View<const T, 4> grad_output, View<const T, 4> input,
                          View<T, 4> grad_input, View<T, 4> grad_offset);

}  // namespace cpu

// The same on the current device and context.stream. The result has the same bits every time if
// context.deterministic is set. An index that is of no pixel is refused by the kernels, as a box
// without an image is; the host does not wait to hear of it, and is told true.
namespace cuda {

template <class T, class Index>
void roi_pool(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
              View<T, 4> output, View<Index, 4> index);

template <class T, class Index>
bool gather_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                   View<const Index, 4> index, View<T, 4> output);

template <class T, class Index>
bool scatter_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                    View<const Index, 4> index, View<T, 4> grad_input);

template <class T>
void roi_average(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                 View<T, 4> output);

template <class T>
void roi_average_backward(const Context& context, const RoiBins<T>& bins,
                          View<const T, 4> grad_output, View<const T, 4> input,
                          View<T, 4> grad_input, View<T, 4> grad_offset);

}  // namespace cuda

}  // namespace deformops

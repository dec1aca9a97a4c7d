// Convolution by sampled columns: gather, multiply, scatter.
//
// All functions are partial derivatives of one multilinear form,
//     F(input, weight, mask, grad_output; offset) = <grad_output, W . (mask * gather(input;
//     offset))>
// or, with columns = W^T grad_output, of
//     T(input, columns, mask; offset) = <columns, mask * gather(input; offset)>,
// at the orders of the hat function given by the window (core/stencil.h). The derivative with
// respect to an offset is the mask times the one with respect to the mask at one order more.
//
// Shapes: input [N, C, H, W]; columns [N, C, taps, oH, oW]; weight [O, C / groups, kH, kW];
// bias [O] or undefined; output [N, O, oH, oW]. Views may have any strides. An undefined result
// view is a gradient that nobody asked for; defined ones are overwritten. On both devices sums of
// half types are formed in float. T is double, float, half or bfloat16.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/scalars.h"
#include "core/view.h"
#include "geometry/window.h"

namespace deformops {

// What deform_conv2d_backward returns; the sum of grad_output over batch and pixels, the gradient
// of the bias, is torch's.
template <class T>
struct ConvolutionGradients {
  View<T, 4> input;
  View<T, 4> offset;
  View<T, 4> weight;
  View<T, 4> mask;
};

// Bit-identical for any number of threads. `T` as instantiated in kernels/cpu.
namespace cpu {

// dT/dcolumns.
template <class T>
void gather_columns(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                    View<T, 5> columns);

// dT/dinput: the exact transpose of gather_columns.
template <class T>
void scatter_columns(const Context& context, const SampledWindow<T>& window,
                     View<const T, 5> columns, View<T, 4> grad_input);

// dT/dmask: columns times samples, summed over the channels of an offset group;
// grad_mask is [N, offset_groups * taps, oH, oW]. The window's own mask is not used.
template <class T>
void contract_columns(const Context& context, const SampledWindow<T>& window,
                      View<const T, 4> input, View<const T, 5> columns, View<T, 4> grad_mask);

// dF/dgrad_output, plus the bias.
template <class T>
void deform_conv2d(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                   View<const T, 4> weight, View<const T, 1> bias, View<T, 4> output);

// The same for a window without offset and mask, by the fewer products of Winograd's algorithm and
// with larger rounding errors. Returns whether the output is valid: not if the window is another
// one than 3x3 taps of stride 1, nor if a number that is not finite came up.
template <class T>
bool winograd_conv2d(const Context& context, const WindowAxis& y, const WindowAxis& x,
                     View<const T, 4> input, View<const T, 4> weight, View<const T, 1> bias,
                     View<T, 4> output);

// dF/dinput, dF/doffset, dF/dweight, dF/dmask.
template <class T>
void deform_conv2d_backward(const Context& context, const SampledWindow<T>& window,
                            View<const T, 4> grad_output, View<const T, 4> input,
                            View<const T, 4> weight, const ConvolutionGradients<T>& gradients);

}  // namespace cpu

// The same on the current device and context.stream; a gradient of the input has to be dense, its
// dimensions in any order. The result has the same bits every time if context.deterministic is set.
namespace cuda {

template <class T>
void gather_columns(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                    View<T, 5> columns);

template <class T>
void scatter_columns(const Context& context, const SampledWindow<T>& window,
                     View<const T, 5> columns, View<T, 4> grad_input);

template <class T>
void contract_columns(const Context& context, const SampledWindow<T>& window,
                      View<const T, 4> input, View<const T, 5> columns, View<T, 4> grad_mask);

template <class T>
void deform_conv2d(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                   View<const T, 4> weight, View<const T, 1> bias, View<T, 4> output);

template <class T>
void deform_conv2d_backward(const Context& context, const SampledWindow<T>& window,
                            View<const T, 4> grad_output, View<const T, 4> input,
                            View<const T, 4> weight, const ConvolutionGradients<T>& gradients);

}  // namespace cuda

}  // namespace deformops

// The two gradients of roi_average.
#pragma once

#include "core/context.h"
#include "geometry/roi.h"

namespace deformops::cuda {

template <class T>
void roi_grad_input(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                    View<T, 4> grad_input);

template <class T>
void roi_grad_offset(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                     View<const T, 4> input, View<T, 4> grad_offset);

}  // namespace deformops::cuda

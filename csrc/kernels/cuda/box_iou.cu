// Overlaps of all pairs, a thread for each: neighbours write neighbours and share a box.
#include <cstdint>

#include "core/context.h"
#include "kernels/cuda/boxes.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/suppression.h"

namespace deformops::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kBoxThreads)
    box_iou_kernel(BoxMeasure<compute_t<T>> measure, View<const T, 2> boxes1,
                   View<const T, 2> boxes2, View<T, 2> overlaps) {
  using C = compute_t<T>;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kBoxThreads + threadIdx.x;
  const int64_t row = pair / overlaps.sizes[1], column = pair % overlaps.sizes[1];
  if (row >= overlaps.sizes[0]) return;
  overlaps(row, column) =
      static_cast<T>(measure.overlap(load_box<C>(boxes1, row), load_box<C>(boxes2, column)));
}

}  // namespace

template <class T>
void box_iou(const Context& context, bool plus_one, View<const T, 2> boxes1,
             View<const T, 2> boxes2, View<T, 2> overlaps) {
  const int64_t pairs = overlaps.sizes[0] * overlaps.sizes[1];
  launch("box_iou", box_iou_kernel<T>, divide_up(pairs, kBoxThreads), kBoxThreads, context.stream,
         BoxMeasure<compute_t<T>>(plus_one), boxes1, boxes2, overlaps);
}

#define DEFORMOPS_INSTANTIATE(T) \
  template void box_iou<T>(const Context&, bool, View<const T, 2>, View<const T, 2>, View<T, 2>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cuda

// The entries of kernels/suppression.h: the kernels of the instruction set that this machine runs.
#include "kernels/suppression.h"

#include "kernels/cpu/run_chosen.h"

namespace deformops::cpu {

#define DEFORMOPS_DECLARE(isa)                                                              \
  namespace isa {                                                                           \
  template <class T>                                                                        \
  void box_iou(const Context&, bool, View<const T, 2>, View<const T, 2>, View<T, 2>);       \
  template <class T>                                                                        \
  void nms(const Context&, const Suppression&, View<const T, 3>, View<const T, 2>,          \
           View<const int64_t, 2>, View<int64_t, 2>, View<int64_t, 1>);                     \
  template <class T>                                                                        \
  void soft_nms(const Context&, const SoftSuppression&, View<const T, 2>, View<const T, 1>, \
                View<T, 1>, View<int64_t, 1>, View<int64_t, 1>);                            \
  }
DEFORMOPS_FOR_EACH_ISA(DEFORMOPS_DECLARE)
#undef DEFORMOPS_DECLARE

template <class T>
void box_iou(const Context& context, bool plus_one, View<const T, 2> boxes1,
             View<const T, 2> boxes2, View<T, 2> overlaps) {
  DEFORMOPS_RUN_CHOSEN(box_iou(context, plus_one, boxes1, boxes2, overlaps));
}

template <class T>
void nms(const Context& context, const Suppression& rule, View<const T, 3> boxes,
         View<const T, 2> scores, View<const int64_t, 2> groups, View<int64_t, 2> kept,
         View<int64_t, 1> counts) {
  DEFORMOPS_RUN_CHOSEN(nms(context, rule, boxes, scores, groups, kept, counts));
}

template <class T>
void soft_nms(const Context& context, const SoftSuppression& rule, View<const T, 2> boxes,
              View<const T, 1> scores, View<T, 1> kept_scores, View<int64_t, 1> kept,
              View<int64_t, 1> count) {
  DEFORMOPS_RUN_CHOSEN(soft_nms(context, rule, boxes, scores, kept_scores, kept, count));
}

#define DEFORMOPS_INSTANTIATE(T)                                                                  \
  template void box_iou<T>(const Context&, bool, View<const T, 2>, View<const T, 2>, View<T, 2>); \
  template void nms<T>(const Context&, const Suppression&, View<const T, 3>, View<const T, 2>,    \
                       View<const int64_t, 2>, View<int64_t, 2>, View<int64_t, 1>);               \
  template void soft_nms<T>(const Context&, const SoftSuppression&, View<const T, 2>,             \
                            View<const T, 1>, View<T, 1>, View<int64_t, 1>, View<int64_t, 1>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu

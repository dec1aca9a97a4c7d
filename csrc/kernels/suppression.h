// Boxes that suppress one another: overlaps of all pairs, and non-maximum suppression, which keeps
// the best box, drops those that overlap it, and goes on with what is left.
//
// A box is x1, y1, x2, y2; geometry/box.h has the overlap. Scores fall in the order of torch.sort:
// NaN before all numbers, equal ones by index. Decisions are the same on both devices, to the bit.
// T is double, float, half or bfloat16; half types are computed in float. Views may have any
// strides.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/scalars.h"
#include "core/view.h"

namespace deformops {

// A kept box suppresses those that overlap it by strictly more than `threshold`, compared as the
// float64 number that it is.
struct Suppression {
  double threshold;
  bool plus_one;  // see BoxMeasure
};

// What becomes of the score of a box that a better one overlaps.
enum class Decay : int32_t {
  kNaive,     // 0 above the threshold
  kLinear,    // score * (1 - overlap) above the threshold
  kGaussian,  // score * exp(-overlap^2 / sigma)
};

struct SoftSuppression {
  Suppression hard;
  Decay decay;
  double sigma;
  double min_score;  // a box whose score falls below this is dropped
};

// Results have no gaps. Scratch grows linearly with the number of boxes; the result does not depend
// on the number of threads.
namespace cpu {

// boxes1 [N, 4], boxes2 [M, 4], overlaps [N, M].
template <class T>
void box_iou(const Context& context, bool plus_one, View<const T, 2> boxes1,
             View<const T, 2> boxes2, View<T, 2> overlaps);

// boxes [B, N, 4], scores [B, N], groups [B, N] or undefined: boxes suppress those of their own
// image and group. kept [B, M]: the first M kept boxes of each image by falling score, then -1;
// counts [B]: how many these are.
template <class T>
void nms(const Context& context, const Suppression& rule, View<const T, 3> boxes,
         View<const T, 2> scores, View<const int64_t, 2> groups, View<int64_t, 2> kept,
         View<int64_t, 1> counts);

// boxes [N, 4], scores [N]. kept [N] and their final scores [N] in the order in which they were
// chosen; count [1]: how many these are.
template <class T>
void soft_nms(const Context& context, const SoftSuppression& rule, View<const T, 2> boxes,
              View<const T, 1> scores, View<T, 1> kept_scores, View<int64_t, 1> kept,
              View<int64_t, 1> count);

}  // namespace cpu

// The same on the current device and context.stream.
namespace cuda {

template <class T>
void box_iou(const Context& context, bool plus_one, View<const T, 2> boxes1,
             View<const T, 2> boxes2, View<T, 2> overlaps);

template <class T>
void nms(const Context& context, const Suppression& rule, View<const T, 3> boxes,
         View<const T, 2> scores, View<const int64_t, 2> groups, View<int64_t, 2> kept,
         View<int64_t, 1> counts);

template <class T>
void soft_nms(const Context& context, const SoftSuppression& rule, View<const T, 2> boxes,
              View<const T, 1> scores, View<T, 1> kept_scores, View<int64_t, 1> kept,
              View<int64_t, 1> count);

}  // namespace cuda

}  // namespace deformops

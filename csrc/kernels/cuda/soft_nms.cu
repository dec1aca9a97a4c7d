// Soft non-maximum suppression in one block: boxes are chosen one after the other, and for each all
// threads let the scores of their boxes decay and look for the next best.
#include <cstdint>
#include <limits>

#include "core/context.h"
#include "core/exponential.h"
#include "kernels/cuda/boxes.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/decay.h"
#include "kernels/suppression.h"

namespace deformops::cuda {
namespace {

constexpr int kSoftThreads = 512;
constexpr int kSoftWarps = kSoftThreads / 32;

// The score of a box that was chosen or dropped. Those of others are NaN without a sign, or not
// negative: as integers their bits have their order, NaN above all numbers, and kOut is negative.
constexpr float kOut = -1;
template <class C>
constexpr C kNan = std::numeric_limits<C>::quiet_NaN();

template <class C>
struct __align__(16) Best {
  typename integers<C>::type rank = -1;
  int64_t index = -1;

  // The higher rank, the lower index of equal ones.
  __device__ void see(typename integers<C>::type other_rank, int64_t other_index) {
    if (other_rank < 0 || other_rank < rank) return;
    if (other_rank == rank && other_index > index) return;
    rank = other_rank;
    index = other_index;
  }

  __device__ void see_warp() {
    for (int distance = 16; distance > 0; distance /= 2) {
      const auto other_rank = __shfl_xor_sync(~0u, rank, distance);
      const int64_t other_index = __shfl_xor_sync(~0u, index, distance);
      see(other_rank, other_index);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kSoftThreads)
    soft_nms_kernel(BoxMeasure<compute_t<T>> measure, DecayRule<compute_t<T>> decay,
                    compute_t<T> min_score, View<const T, 2> boxes, View<const T, 1> scores,
                    AlignedBox<compute_t<T>>* own_boxes, compute_t<T>* own_scores,
                    View<T, 1> kept_scores, View<int64_t, 1> kept, View<int64_t, 1> count) {
  using C = compute_t<T>;
  using Bits = typename integers<C>::type;
  __shared__ Best<C> of_warps[kSoftWarps];
  const int64_t total = scores.sizes[0];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  Best<C> best;
  for (int64_t i = threadIdx.x; i < total; i += kSoftThreads) {
    own_boxes[i] = load_box<C>(boxes, i);
    const C score = static_cast<C>(scores(i)) + C(0);  // no negative zero
    own_scores[i] = score < min_score ? C(kOut) : score == score ? score : kNan<C>;
    best.see(bit_cast<Bits>(own_scores[i]), i);
  }
  int64_t chosen_count = 0;
  for (;; ++chosen_count) {
    best.see_warp();
    if (lane == 0) of_warps[warp] = best;
    __syncthreads();
    best = of_warps[lane % kSoftWarps];
    best.see_warp();
    if (best.index < 0) break;
    const int64_t index = best.index;
    const AlignedBox<C> chosen = own_boxes[index];
    if (threadIdx.x == 0) {
      kept_scores(chosen_count) = static_cast<T>(own_scores[index]);
      kept(chosen_count) = index;
    }
    __syncthreads();  // all have read what changes now
    const C area = measure.area(chosen);
    best = Best<C>();
    for (int64_t i = threadIdx.x; i < total; i += kSoftThreads) {
      if (i == index) own_scores[i] = C(kOut);
      C score = own_scores[i];
      if (bit_cast<Bits>(score) < 0) continue;
      const AlignedBox<C> box = own_boxes[i];
      if (measure.intersection(chosen, box) > 0) {
        score = decay.decayed(score, measure.overlap(chosen, area, box, measure.area(box)));
        if (score < min_score) score = C(kOut);
        own_scores[i] = score;
      }
      best.see(bit_cast<Bits>(score), i);
    }
  }
  if (threadIdx.x == 0) count(0) = chosen_count;
}

}  // namespace

template <class T>
void soft_nms(const Context& context, const SoftSuppression& rule, View<const T, 2> boxes,
              View<const T, 1> scores, View<T, 1> kept_scores, View<int64_t, 1> kept,
              View<int64_t, 1> count) {
  using C = compute_t<T>;
  const auto boxes_count = static_cast<size_t>(scores.sizes[0]);
  auto* const own_boxes = context.scratch->allocate_array<AlignedBox<C>>(boxes_count);
  auto* const own_scores = context.scratch->allocate_array<C>(boxes_count);
  launch("soft_nms", soft_nms_kernel<T>, 1, kSoftThreads, context.stream,
         BoxMeasure<C>(rule.hard.plus_one), DecayRule<C>(rule), rounded_up<C>(rule.min_score),
         boxes, scores, own_boxes, own_scores, kept_scores, kept, count);
}

#define DEFORMOPS_INSTANTIATE(T)                                                      \
  template void soft_nms<T>(const Context&, const SoftSuppression&, View<const T, 2>, \
                            View<const T, 1>, View<T, 1>, View<int64_t, 1>, View<int64_t, 1>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cuda

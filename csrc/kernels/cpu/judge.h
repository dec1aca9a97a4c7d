// Whether kept boxes suppress a candidate: a vector of pairs at a time.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "geometry/box.h"
#include "kernels/cpu/box_vector.h"
#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

DEFORMOPS_INLINE bool any_greater(Vector<float> a, Vector<float> b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ)) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_ps(_mm_cmpgt_ps((__m128)a, (__m128)b)) != 0;
#else
  bool any = false;
  for (int lane = 0; lane < kLanes<float>; ++lane) any |= a[lane] > b[lane];
  return any;
#endif
}

DEFORMOPS_INLINE bool any_greater(Vector<double> a, Vector<double> b) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_GT_OQ)) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_pd(_mm_cmpgt_pd((__m128d)a, (__m128d)b)) != 0;
#else
  bool any = false;
  for (int lane = 0; lane < kLanes<double>; ++lane) any |= a[lane] > b[lane];
  return any;
#endif
}

// A vector of kept boxes with their shares of the test (see OverlapThreshold).
template <class C>
struct KeptVector {
  Box<Vector<C>> boxes;
  Vector<C> share;

  // No box in any lane: nothing overlaps it.
  DEFORMOPS_INLINE void clear() {
    boxes = broadcast(kEmptyBox<C>);
    share = Vector<C>{} + kInfinity<C>;
  }

  DEFORMOPS_INLINE void set(int lane, const Box<C>& box, C box_share) {
    set_lane(boxes, lane, box);
    share[lane] = box_share;
  }
};

// Decides whether boxes overlap by more than a threshold.
template <class C, bool kPlusOne>
class Judge {
 public:
  explicit Judge(double threshold) : limit_(threshold) {}

  C threshold() const { return limit_.threshold; }

  DEFORMOPS_INLINE C extent(C low, C high) const {
    return BoxMeasure<C>(kPlusOne).extent(low, high);
  }

  DEFORMOPS_INLINE C share(const Box<C>& box) const {
    return limit_.share(BoxMeasure<C>(kPlusOne).area(box));
  }

  // Others neither suppress nor are suppressed.
  DEFORMOPS_INLINE bool takes_part(const Box<C>& box) const {
    return BoxMeasure<C>(kPlusOne).can_overlap(box);
  }

  DEFORMOPS_INLINE bool suppressed(const Box<Vector<C>>& candidate, Vector<C> share,
                                   const KeptVector<C>& kept) const {
    const BoxMeasure<Vector<C>> measure(kPlusOne);
    // The real intersection or more: for 0, g++ would find a detour.
    const Vector<C> width =
        larger_of(Vector<C>{} + C(0x1p-64), measure.common_width(candidate, kept.boxes));
    const Vector<C> common = width * measure.common_height(candidate, kept.boxes);
    if (!any_greater(common, share + kept.share)) return false;
    return any_greater(measure.overlap(candidate, kept.boxes), Vector<C>{} + limit_.threshold);
  }

 private:
  OverlapThreshold<C> limit_;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

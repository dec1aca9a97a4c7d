// Soft non-maximum suppression: the best box is chosen, the scores of those that overlap it decay,
// and so on. One pass over the boxes that are left decays their scores and finds the next best.
#include <limits>

#include "kernels/cpu/box_vector.h"
#include "kernels/cpu/judge.h"
#include "kernels/cpu/tasks.h"
#include "kernels/decay.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

template <class C>
class SoftNms {
 public:
  template <class T>
  SoftNms(const Context& context, const SoftSuppression& rule, View<const T, 2> boxes,
          View<const T, 1> scores)
      : decay_(rule),
        min_score_(rounded_up<C>(rule.min_score)),
        measure_(rule.hard.plus_one),
        vectors_(allocate<ScoredVector>(context, divide_up(scores.sizes[0], kLanes<C>))) {
    for (int64_t i = 0; i < scores.sizes[0]; ++i) {
      const C score = static_cast<C>(scores(i)) + C(0);  // no negative zero
      if (score < min_score_) continue;
      const C nan = std::numeric_limits<C>::quiet_NaN();
      append(load_box<C>(boxes, i), score == score ? score : nan, static_cast<Index>(i));
    }
    finish_vector();
  }

  // Takes one box after the other; returns how many there were.
  template <class T>
  int64_t run(View<T, 1> kept_scores, View<int64_t, 1> kept) {
    int64_t count = 0;
    int64_t until_compaction = 0;
    for (int64_t best = highest(); best >= 0;) {
      ScoredVector& vector = vectors_[best / kLanes<C>];
      const int lane = static_cast<int>(best % kLanes<C>);
      kept_scores(count) = convert<T>(vector.scores[lane]);
      kept(count++) = vector.indices[lane];
      const Box<C> chosen = lane_of<C>(vector.boxes, lane);
      vector.scores[lane] = kOut;
      if (--until_compaction < 0) {
        compact();
        until_compaction = larger(16, slots_ / 8);
      }
      best = decay_by(chosen);
    }
    return count;
  }

 private:
  using Index = typename VectorOf<C>::index;

  struct ScoredVector {
    Box<Vector<C>> boxes;
    Vector<C> areas;
    Vector<C> scores;
    Integers<C> indices;
  };

  // The score of a lane without a box. Those of boxes are NaN without a sign, or not negative: as
  // integers their bits have their order, NaN above all numbers, and kOut is negative.
  static constexpr C kOut = -1;

  static Integers<C> ranks_of(Vector<C> scores) { return reinterpret_cast<Integers<C>>(scores); }

  // The best lane of all vectors, the first of equals; -1 if no box is left.
  struct Best {
    Integers<C> ranks = Integers<C>{} - 1;
    Integers<C> vectors = {};

    DEFORMOPS_INLINE void see(Vector<C> scores, int64_t vector) {
      const Integers<C> seen = ranks_of(scores);
      vectors = seen > ranks ? Integers<C>{} + static_cast<Index>(vector) : vectors;
      ranks = seen > ranks ? seen : ranks;
    }

    int64_t place() const {
      int64_t best = -1;
      Index rank = -1;
      for (int lane = 0; lane < kLanes<C>; ++lane) {
        const int64_t here = vectors[lane] * int64_t{kLanes<C>} + lane;
        if (ranks[lane] < 0 || ranks[lane] < rank || (ranks[lane] == rank && here > best)) continue;
        rank = ranks[lane];
        best = here;
      }
      return best;
    }
  };

  int64_t count_vectors() const { return divide_up(slots_, kLanes<C>); }

  int64_t highest() const {
    Best best;
    for (int64_t v = 0; v < count_vectors(); ++v) best.see(vectors_[v].scores, v);
    return best.place();
  }

  int64_t decay_by(const Box<C>& chosen) {
    const Box<Vector<C>> all = broadcast(chosen);
    const Vector<C> area = measure_.area(all);
    Best best;
    for (int64_t v = 0; v < count_vectors(); ++v) {
      ScoredVector& vector = vectors_[v];
      if (any_greater(measure_.intersection(all, vector.boxes), Vector<C>{})) {
        const Vector<C> overlap = measure_.overlap(all, area, vector.boxes, vector.areas);
        const Vector<C> old = vector.scores;
        Vector<C> decayed = decay_.decayed(old, overlap);
        decayed = decayed < Vector<C>{} + min_score_ ? Vector<C>{} + kOut : decayed;
        vector.scores = ranks_of(old) < 0 ? old : decayed;
      }
      best.see(vector.scores, v);
    }
    return best.place();
  }

  void append(const Box<C>& box, C score, Index index) {
    ScoredVector& vector = vectors_[slots_ / kLanes<C>];
    const int lane = static_cast<int>(slots_++ % kLanes<C>);
    set_lane(vector.boxes, lane, box);
    vector.scores[lane] = score;
    vector.indices[lane] = index;
    if (lane == kLanes<C> - 1) finish_vector();
  }

  // Empties the lanes behind the last box.
  void finish_vector() {
    if (slots_ == 0) return;
    ScoredVector& vector = vectors_[(slots_ - 1) / kLanes<C>];
    for (int64_t slot = slots_; slot % kLanes<C> != 0; ++slot) {
      set_lane(vector.boxes, static_cast<int>(slot % kLanes<C>), Box<C>{});
      vector.scores[slot % kLanes<C>] = kOut;
      vector.indices[slot % kLanes<C>] = 0;
    }
    vector.areas = measure_.area(vector.boxes);
  }

  // Moves the boxes that are left together; they stay in the order of their indices.
  void compact() {
    const int64_t slots = slots_;
    slots_ = 0;
    for (int64_t slot = 0; slot < slots; ++slot) {
      const ScoredVector& vector = vectors_[slot / kLanes<C>];
      const int lane = static_cast<int>(slot % kLanes<C>);
      const C score = vector.scores[lane];
      if (score < C(0)) continue;
      append(lane_of<C>(vector.boxes, lane), score, vector.indices[lane]);
    }
    finish_vector();
  }

  DecayRule<C> decay_;
  C min_score_;
  BoxMeasure<Vector<C>> measure_;
  ScoredVector* vectors_;
  int64_t slots_ = 0;  // lanes in use
};

}  // namespace

template <class T>
void soft_nms(const Context& context, const SoftSuppression& rule, View<const T, 2> boxes,
              View<const T, 1> scores, View<T, 1> kept_scores, View<int64_t, 1> kept,
              View<int64_t, 1> count) {
  count(0) = SoftNms<compute_t<T>>(context, rule, boxes, scores).run(kept_scores, kept);
}

#define DEFORMOPS_INSTANTIATE(T)                                                      \
  template void soft_nms<T>(const Context&, const SoftSuppression&, View<const T, 2>, \
                            View<const T, 1>, View<T, 1>, View<int64_t, 1>, View<int64_t, 1>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

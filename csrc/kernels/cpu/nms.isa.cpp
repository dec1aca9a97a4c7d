// Non-maximum suppression: the boxes of each image in the order of their groups and scores, then a
// greedy pass over each segment, the boxes of one group.
#include <new>

#include "kernels/cpu/greedy.h"
#include "kernels/cpu/ranking.h"
#include "kernels/suppression.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// A segment with more boxes is worth all threads; smaller ones are dealt out to them.
constexpr int64_t kLargeSegment = 16384;
// What a box costs, in multiply-adds.
constexpr int64_t kOperations = 1000;

template <class T, bool kPlusOne>
class Nms {
 public:
  Nms(const Context& context, const Suppression& rule, View<const T, 3> boxes,
      View<const T, 2> scores, View<const int64_t, 2> groups)
      : context_(context),
        judge_(rule.threshold),
        boxes_(boxes),
        scores_(scores),
        groups_(groups),
        images_(boxes.sizes[0]),
        count_(boxes.sizes[1]),
        team_(images_ * count_ * kOperations) {
    const int64_t total = images_ * count_;
    ranked_ = allocate<Ranked<Key>>(context, total);
    spare_ranked_ = allocate<Ranked<Key>>(context, total);
    ordered_ = allocate<Box<C>>(context, total);
    kept_ = allocate<uint8_t>(context, total);
    if (groups.defined()) {
      grouped_ = allocate<Ranked<uint64_t>>(context, total);
      spare_grouped_ = allocate<Ranked<uint64_t>>(context, total);
      kept_by_rank_ = allocate<uint8_t>(context, total);
    }
    starts_ = allocate<int64_t>(context, (groups.defined() ? total : images_) + 1);
  }

  void run(View<int64_t, 2> kept, View<int64_t, 1> counts) {
    team_.for_each(images_, [&](int64_t image, int64_t) { arrange(image); });
    find_segments();
    decide(kept.sizes[1]);
    team_.for_each(images_, [&](int64_t image, int64_t) { counts(image) = write(image, kept); });
  }

 private:
  using C = compute_t<T>;
  using Key = decltype(falling_key(C()));

  // Orders the boxes of an image by score, then by group.
  void arrange(int64_t image) {
    const int64_t first = image * count_;
    Ranked<Key>* const ranked = ranked_ + first;
    for (int64_t i = 0; i < count_; ++i) {
      ranked[i] = {falling_key(static_cast<C>(scores_(image, i))), static_cast<uint32_t>(i)};
    }
    sort_by_key(ranked, spare_ranked_ + first, count_);
    if (groups_.defined()) {
      Ranked<uint64_t>* const grouped = grouped_ + first;
      for (int64_t rank = 0; rank < count_; ++rank) {
        const int64_t group = groups_(image, ranked[rank].entry);
        grouped[rank] = {static_cast<uint64_t>(group), static_cast<uint32_t>(rank)};
      }
      sort_by_key(grouped, spare_grouped_ + first, count_);
    }
    for (int64_t place = first; place < first + count_; ++place) {
      ordered_[place] = load_box<C>(boxes_, image, ranked[rank_of(place)].entry);
    }
  }

  // Of the box at a place in this order, among the scores of its image.
  int64_t rank_of(int64_t place) const {
    return groups_.defined() ? grouped_[place].entry : place % count_;
  }

  // starts_[segments_] is the end of the last.
  void find_segments() {
    for (int64_t place = 0; place < images_ * count_; ++place) {
      const bool first = place % count_ == 0;
      if (first || (groups_.defined() && grouped_[place].key != grouped_[place - 1].key)) {
        starts_[segments_++] = place;
      }
    }
    starts_[segments_] = images_ * count_;
  }

  void decide(int64_t limit) {
    const auto segment = [&](int64_t i) {
      return Segment<C>{ordered_ + starts_[i], kept_ + starts_[i], starts_[i + 1] - starts_[i]};
    };
    const int64_t large = team_.threads() > 1 ? kLargeSegment : INT64_MAX;
    int64_t most_small = 0;
    for (int64_t i = 0; i < segments_; ++i) {
      if (segment(i).count > large) {
        Greedy<C, kPlusOne>(context_, judge_, segment(i).count).run(segment(i), limit, team_);
      } else {
        most_small = larger(most_small, segment(i).count);
      }
    }
    const int64_t workers = team_.workers(segments_);
    auto* const greedy = allocate<Greedy<C, kPlusOne>>(context_, workers);
    for (int64_t worker = 0; worker < workers; ++worker) {
      new (greedy + worker) Greedy<C, kPlusOne>(context_, judge_, most_small);
    }
    team_.for_each(segments_, [&](int64_t i, int64_t worker) {
      if (segment(i).count <= large) greedy[worker].run(segment(i), limit);
    });
  }

  // The kept boxes of an image by rank; returns how many fit.
  int64_t write(int64_t image, View<int64_t, 2> kept) const {
    const int64_t first = image * count_, limit = kept.sizes[1];
    const uint8_t* by_rank = kept_ + first;
    if (groups_.defined()) {
      uint8_t* const scattered = kept_by_rank_ + first;
      for (int64_t i = 0; i < count_; ++i) scattered[rank_of(first + i)] = kept_[first + i];
      by_rank = scattered;
    }
    int64_t count = 0;
    for (int64_t rank = 0; rank < count_ && count < limit; ++rank) {
      if (by_rank[rank]) kept(image, count++) = ranked_[first + rank].entry;
    }
    for (int64_t i = count; i < limit; ++i) kept(image, i) = -1;
    return count;
  }

  const Context& context_;
  Judge<C, kPlusOne> judge_;
  View<const T, 3> boxes_;
  View<const T, 2> scores_;
  View<const int64_t, 2> groups_;
  int64_t images_, count_;
  Team team_;
  Ranked<Key>*ranked_, *spare_ranked_;
  Ranked<uint64_t>*grouped_ = nullptr, *spare_grouped_ = nullptr;  // entries are ranks
  Box<C>* ordered_;
  uint8_t* kept_;
  uint8_t* kept_by_rank_ = nullptr;
  int64_t* starts_;
  int64_t segments_ = 0;
};

}  // namespace

template <class T>
void nms(const Context& context, const Suppression& rule, View<const T, 3> boxes,
         View<const T, 2> scores, View<const int64_t, 2> groups, View<int64_t, 2> kept,
         View<int64_t, 1> counts) {
  if (rule.plus_one) {
    Nms<T, true>(context, rule, boxes, scores, groups).run(kept, counts);
  } else {
    Nms<T, false>(context, rule, boxes, scores, groups).run(kept, counts);
  }
}

#define DEFORMOPS_INSTANTIATE(T)                                                               \
  template void nms<T>(const Context&, const Suppression&, View<const T, 3>, View<const T, 2>, \
                       View<const int64_t, 2>, View<int64_t, 2>, View<int64_t, 1>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

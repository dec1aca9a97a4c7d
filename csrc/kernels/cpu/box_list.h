// Kept boxes one after the other: the quickest to ask as long as they are few.
#pragma once

#include <cstdint>

#include "kernels/cpu/judge.h"
#include "kernels/cpu/tasks.h"

namespace deformops::cpu::DEFORMOPS_ISA {

template <class C, bool kPlusOne>
class BoxList {
 public:
  BoxList(const Context& context, const Judge<C, kPlusOne>& judge, int64_t most)
      : judge_(judge), vectors_(allocate<KeptVector<C>>(context, divide_up(most, kLanes<C>))) {}

  int64_t count() const { return count_; }

  void clear() { count_ = 0; }

  void insert(const Box<C>& box) {
    KeptVector<C>& vector = vectors_[count_ / kLanes<C>];
    const int lane = static_cast<int>(count_++ % kLanes<C>);
    if (lane == 0) vector.clear();
    vector.set(lane, box, judge_.share(box));
  }

  bool suppresses(const Box<C>& box) const {
    const Box<Vector<C>> candidate = broadcast(box);
    const Vector<C> share = Vector<C>{} + judge_.share(box);
    for (int64_t v = 0; v * kLanes<C> < count_; ++v) {
      if (judge_.suppressed(candidate, share, vectors_[v])) return true;
    }
    return false;
  }

 private:
  Judge<C, kPlusOne> judge_;
  KeptVector<C>* vectors_;
  int64_t count_ = 0;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

// Kept boxes by size and place, so that a candidate meets only those that may overlap it enough.
//
// If two boxes overlap by more than t, so do their intervals on each axis, hence
//     t < extent_a / extent_b < 1 / t,
//     |center_a - center_b| < (extent_a + extent_b) / 2 * (1 - t) / (1 + t).
// A box lies in a cell, which is given by the levels of its two extents (a level is some octaves)
// and by its center, counted in steps that grow with the level. A candidate visits the cells that
// these bounds leave, its own first, since the box that suppresses it is most likely there.
//
// Cells are hashed into chains of vectors. That several cells share a chain costs time and changes
// no decision, and memory does not depend on where the boxes are.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/judge.h"
#include "kernels/cpu/tasks.h"

namespace deformops::cpu::DEFORMOPS_ISA {

template <class C, bool kPlusOne>
class BoxGrid {
 public:
  // For at most `boxes` boxes: about 110 bytes for each.
  BoxGrid(const Context& context, const Judge<C, kPlusOne>& judge, int64_t boxes) : judge_(judge) {
    while (chains() < boxes / 8) --hash_shift_;
    const int64_t vectors = chains() + boxes / kLanes<C> + 1;
    vectors_ = allocate<KeptVector<C>>(context, vectors);
    next_ = allocate<int32_t>(context, vectors);
    heads_ = allocate<Head>(context, chains());

    // Conservative by far more than rounding errors.
    const double t = 0.9999 * static_cast<double>(judge.threshold());
    smallest_ratio_ = static_cast<C>(t);
    largest_ratio_ = static_cast<C>(t > 0 ? 1 / t : HUGE_VAL);
    reach_ = static_cast<C>(0.5001 * (1 - t) / (1 + t));
    // A level as wide as the range of sizes that a candidate meets: it then visits two at most.
    while (level_shift_ < 3 && t * t * std::ldexp(1.0, 1 << level_shift_) < 1) ++level_shift_;
    for (int level = 0; level < kLevels; ++level) {
      const int octave = ((level + 1) << level_shift_) + kFirstOctave;
      upper_[level] = level + 1 < kLevels ? static_cast<C>(std::ldexp(1.0, octave))
                                          : std::numeric_limits<C>::infinity();
      steps_[level] = static_cast<C>(std::ldexp(1.0, 1 - octave));
    }
    clear();
  }

  void clear() {
    used_vectors_ = 0;
    for (int64_t chain = 0; chain < chains(); ++chain) heads_[chain] = {-1, 0};
    for (uint64_t& widths : used_) widths = 0;
  }

  bool suppresses(const Box<C>& box) const {
    const Place place(*this, box);
    const Box<Vector<C>> candidate = broadcast(box);
    const Vector<C> share = Vector<C>{} + judge_.share(box);
    const uint32_t own = chain_of(place);
    if (chain_suppresses(own, candidate, share)) return true;

    const int first_w = level(place.width * smallest_ratio_);
    const int last_w = level(place.width * largest_ratio_);
    const int first_h = level(place.height * smallest_ratio_);
    const int last_h = level(place.height * largest_ratio_);
    const uint64_t widths = ~uint64_t{0} >> (kLevels - 1 - last_w) & ~uint64_t{0} << first_w;
    // Where the cells would be as much work as all boxes (tiny thresholds, or sizes that differ by
    // orders of magnitude), it is all boxes.
    int64_t affordable = used_vectors_ / 2 + 1;
    for (int h = first_h; h <= last_h; ++h) {
      uint64_t left = used_[h] & widths;
      if (left == 0) continue;
      const Cells rows = cells(place.y, place.height, h);
      for (; left != 0; left &= left - 1) {
        const int w = __builtin_ctzll(left);
        const Cells columns = cells(place.x, place.width, w);
        affordable -= rows.count() * columns.count();
        if (affordable < 0) return any_suppresses(candidate, share);
        for (int64_t row = rows.first; row <= rows.last; ++row) {
          for (int64_t column = columns.first; column <= columns.last; ++column) {
            const uint32_t chain = chain_of(w, h, column, row);
            if (chain != own && chain_suppresses(chain, candidate, share)) return true;
          }
        }
      }
    }
    return false;
  }

  void insert(const Box<C>& box) {
    const Place place(*this, box);
    used_[level(place.height)] |= uint64_t{1} << level(place.width);
    Head& head = heads_[chain_of(place)];
    if (head.vector < 0 || head.boxes == kLanes<C>) {
      next_[used_vectors_] = head.vector;
      vectors_[used_vectors_].clear();
      head = {static_cast<int32_t>(used_vectors_++), 0};
    }
    vectors_[head.vector].set(head.boxes++, box, judge_.share(box));
  }

 private:
  // Sizes beyond the first and last level belong to these.
  static constexpr int kLevels = 64, kFirstOctave = -20;

  struct Head {
    int32_t vector;  // the newest of the chain, or -1
    int32_t boxes;   // in that vector
  };

  struct Cells {
    int64_t first, last;
    int64_t count() const { return last - first + 1; }
  };

  struct Place {
    C width, height, x, y;
    Place(const BoxGrid& grid, const Box<C>& box)
        : width(grid.judge_.extent(box.x1, box.x2)),
          height(grid.judge_.extent(box.y1, box.y2)),
          x(C(0.5) * box.x1 + C(0.5) * box.x2),
          y(C(0.5) * box.y1 + C(0.5) * box.y2) {}
  };

  int64_t chains() const { return int64_t{1} << (32 - hash_shift_); }

  int level(C extent) const {
    using Bits = typename VectorOf<C>::index;
    constexpr int kFraction = std::numeric_limits<C>::digits - 1;
    constexpr int kBias = std::numeric_limits<C>::max_exponent - 1;
    const int64_t octave = (bit_cast<Bits>(extent) >> kFraction) - kBias;
    return static_cast<int>(smaller(larger(octave - kFirstOctave, 0) >> level_shift_, kLevels - 1));
  }

  int64_t cell(C center, int level) const {
    const C farthest = C(0x1p30);
    const C steps = smaller_of(larger_of(center * steps_[level], -farthest), farthest);
    const int32_t toward_zero = static_cast<int32_t>(steps);
    return toward_zero - (static_cast<C>(toward_zero) > steps ? 1 : 0);
  }

  // On one axis, at one level.
  Cells cells(C center, C extent, int level) const {
    constexpr C kRounding = 16 * std::numeric_limits<C>::epsilon();
    const C other = smaller_of(upper_[level], extent * largest_ratio_);
    const C reach = reach_ * (extent + other) + kRounding * (center < 0 ? -center : center);
    return {cell(center - reach, level), cell(center + reach, level)};
  }

  uint32_t chain_of(int w, int h, int64_t column, int64_t row) const {
    const uint32_t mixed =
        static_cast<uint32_t>(w) * 0x9e3779b1u + static_cast<uint32_t>(h) * 0x85ebca77u +
        static_cast<uint32_t>(column) * 0xc2b2ae3du + static_cast<uint32_t>(row) * 0x27d4eb2fu;
    return mixed * 0x9e3779b1u >> hash_shift_;
  }

  uint32_t chain_of(const Place& place) const {
    const int w = level(place.width), h = level(place.height);
    return chain_of(w, h, cell(place.x, w), cell(place.y, h));
  }

  DEFORMOPS_INLINE bool chain_suppresses(uint32_t chain, const Box<Vector<C>>& candidate,
                                         Vector<C> share) const {
    for (int32_t v = heads_[chain].vector; v >= 0; v = next_[v]) {
      if (judge_.suppressed(candidate, share, vectors_[v])) return true;
    }
    return false;
  }

  bool any_suppresses(const Box<Vector<C>>& candidate, Vector<C> share) const {
    for (int64_t v = 0; v < used_vectors_; ++v) {
      if (judge_.suppressed(candidate, share, vectors_[v])) return true;
    }
    return false;
  }

  Judge<C, kPlusOne> judge_;
  int hash_shift_ = 32 - 6;
  int level_shift_ = 1;
  int64_t used_vectors_;
  KeptVector<C>* vectors_;
  int32_t* next_;
  Head* heads_;
  C smallest_ratio_, largest_ratio_, reach_;
  C upper_[kLevels], steps_[kLevels];
  uint64_t used_[kLevels];  // a bit for each level of widths, for each level of heights
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

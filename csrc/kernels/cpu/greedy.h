// The greedy pass: the best box is kept, those that it suppresses are not, and so on.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/box_grid.h"
#include "kernels/cpu/box_list.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Boxes that may suppress each other, by falling score, and for each whether it is kept.
template <class C>
struct Segment {
  const Box<C>* boxes;
  uint8_t* kept;
  int64_t count;
};

template <class C, bool kPlusOne>
class Greedy {
 public:
  // For segments of at most so many boxes.
  Greedy(const Context& context, const Judge<C, kPlusOne>& judge, int64_t boxes)
      : judge_(judge),
        list_(context, judge, smaller(boxes, kBlock)),
        grid_(context, judge, boxes > kMostListed ? boxes : 0) {}

  // The boxes after the first `limit` that are kept are not.
  void run(const Segment<C>& segment, int64_t limit) {
    int64_t i = 0, kept = 0;
    list_.clear();
    for (; i < segment.count && kept < limit && list_.count() < kMostListed; ++i) {
      kept += segment.kept[i] = keep(list_, segment.boxes[i]);
    }
    if (i < segment.count && kept < limit) {
      grid_.clear();
      insert_kept(segment, 0, i);
    }
    for (; i < segment.count && kept < limit; ++i) {
      kept += segment.kept[i] = keep(grid_, segment.boxes[i]);
    }
    memset(segment.kept + i, 0, static_cast<size_t>(segment.count - i));
  }

  // The same by all threads, a block of boxes at a time: together they ask the grid, which holds
  // the kept boxes before the block, and one of them decides among those in the block. Where hardly
  // any are left to decide about, blocks grow: threads that wait for each other wait for all that
  // shares their cores, too.
  void run(const Segment<C>& segment, int64_t limit, const Team& team) {
    int64_t first = 0, kept = 0, block = kBlock;
    grid_.clear();
    while (first < segment.count && kept < limit) {
      const int64_t end = smaller(first + block, segment.count);
      team.for_each(divide_up(end - first, kPiece), [&](int64_t piece, int64_t) {
        const int64_t begin = first + piece * kPiece;
        for (int64_t i = begin; i < smaller(begin + kPiece, end); ++i) {
          const Box<C>& box = segment.boxes[i];
          segment.kept[i] = !judge_.takes_part(box) || !grid_.suppresses(box);
        }
      });
      list_.clear();
      int64_t i = first;
      for (; i < end && list_.count() < kBlock; ++i) {
        if (segment.kept[i] == 0) continue;
        kept += segment.kept[i] = kept < limit && keep(list_, segment.boxes[i]);
      }
      insert_kept(segment, first, i);
      if (i < end) {  // the list is full: what is behind has to ask again
        block = kBlock;
      } else if (list_.count() < kBlock / 4) {
        block *= 2;
      }
      first = i;
    }
    memset(segment.kept + first, 0, static_cast<size_t>(segment.count - first));
  }

 private:
  // With more kept boxes a grid is quicker than a list.
  static constexpr int64_t kMostListed = 512;
  // A block's boxes ask each other by a list, of no more than so many; smaller blocks would make
  // the threads wait oftener.
  static constexpr int64_t kBlock = 1024, kPiece = 64;

  template <class KeptBoxes>
  DEFORMOPS_INLINE bool keep(KeptBoxes& kept, const Box<C>& box) {
    if (!judge_.takes_part(box)) return true;
    if (kept.suppresses(box)) return false;
    kept.insert(box);
    return true;
  }

  void insert_kept(const Segment<C>& segment, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      if (segment.kept[i] && judge_.takes_part(segment.boxes[i])) grid_.insert(segment.boxes[i]);
    }
  }

  Judge<C, kPlusOne> judge_;
  BoxList<C, kPlusOne> list_;
  BoxGrid<C, kPlusOne> grid_;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

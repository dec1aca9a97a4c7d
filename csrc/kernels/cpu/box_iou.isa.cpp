// Overlaps of all pairs: each box of the first list with a vector of the second at a time.
#include "kernels/cpu/box_vector.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/tasks.h"
#include "kernels/suppression.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

template <class C>
struct MeasuredVector {
  Box<Vector<C>> boxes;
  Vector<C> areas;
};

// What a pair costs, in multiply-adds.
constexpr int64_t kOperations = 4;
// Rows of the result that a thread takes at a time.
constexpr int64_t kRows = 64;

}  // namespace

template <class T>
void box_iou(const Context& context, bool plus_one, View<const T, 2> boxes1,
             View<const T, 2> boxes2, View<T, 2> overlaps) {
  using C = compute_t<T>;
  constexpr int64_t lanes = kLanes<C>;
  const int64_t rows = boxes1.sizes[0], columns = boxes2.sizes[0];
  const BoxMeasure<C> measure(plus_one);
  const BoxMeasure<Vector<C>> vector_measure(plus_one);

  const int64_t vectors = divide_up(columns, lanes);
  auto* const measured = allocate<MeasuredVector<C>>(context, vectors);
  for (int64_t v = 0; v < vectors; ++v) {
    measured[v].boxes = broadcast(Box<C>{});
    for (int64_t lane = 0; lane < smaller(lanes, columns - v * lanes); ++lane) {
      set_lane(measured[v].boxes, static_cast<int>(lane), load_box<C>(boxes2, v * lanes + lane));
    }
    measured[v].areas = vector_measure.area(measured[v].boxes);
  }

  const Team team(rows * columns * kOperations);
  team.for_each(divide_up(rows, kRows), [&](int64_t task, int64_t) {
    for (int64_t row = task * kRows; row < smaller(rows, (task + 1) * kRows); ++row) {
      const Box<C> box = load_box<C>(boxes1, row);
      const Box<Vector<C>> all = broadcast(box);
      const Vector<C> area = Vector<C>{} + measure.area(box);
      for (int64_t v = 0; v < vectors; ++v) {
        const Vector<C> overlap =
            vector_measure.overlap(all, area, measured[v].boxes, measured[v].areas);
        T* const target = overlaps.pointer(row, v * lanes);
        const int64_t here = smaller(lanes, columns - v * lanes);
        if (here == lanes) {
          store_as<C>(target, overlap);
        } else {
          T last[lanes];
          store_as<C>(last, overlap);
          memcpy(target, last, static_cast<size_t>(here) * sizeof(T));
        }
      }
    }
  });
}

#define DEFORMOPS_INSTANTIATE(T) \
  template void box_iou<T>(const Context&, bool, View<const T, 2>, View<const T, 2>, View<T, 2>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

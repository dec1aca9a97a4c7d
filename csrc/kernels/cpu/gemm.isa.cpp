// The product of gemm.h by micro-kernels for every number of rows, compiled once for all who
// multiply.
#include "kernels/cpu/gemm.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// Elements of a cache line.
template <class C>
constexpr int kLine = 64 / static_cast<int>(sizeof(C));

// result[rows x kBlock] (+)= left[rows x depth] * panel[depth x kBlock], for a fixed number of
// rows. Meanwhile `ahead` is brought into the second-level cache, ahead_step elements at each step,
// and the result, which is wanted at the end, into the first-level one.
template <class C, Lies kLies, int kRows>
DEFORMOPS_INLINE void multiply_rows(const C* left, int64_t stride, int64_t depth, const C* panel,
                                    const C* ahead, int64_t ahead_step, C* result,
                                    bool accumulate) {
  Vector<C> sums[kRows][2];
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row) sums[row][0] = sums[row][1] = Vector<C>{};

#pragma GCC unroll 32
  for (int i = 0; i < kRows * kBlock<C>; i += kLine<C>) __builtin_prefetch(result + i, 1, 3);
  for (int64_t step = 0; step < depth; ++step) {
    __builtin_prefetch(at_distance(ahead, step * ahead_step), 0, 2);
    const Vector<C> low = load(panel + step * kBlock<C>);
    const Vector<C> high = load(panel + step * kBlock<C> + kLanes<C>);
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row) {
      const C factor = kLies == Lies::kRows ? left[row * stride + step] : left[row + step * stride];
      sums[row][0] += factor * low;
      sums[row][1] += factor * high;
    }
  }

#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row) {
    C* out = result + row * kBlock<C>;
    if (accumulate) {
      sums[row][0] += load(out);
      sums[row][1] += load(out + kLanes<C>);
    }
    store(out, sums[row][0]);
    store(out + kLanes<C>, sums[row][1]);
  }
}

// The same for 1 <= rows <= kRows, known only now.
template <class C, Lies kLies, int kRows>
DEFORMOPS_INLINE void multiply_up_to(int64_t rows, const C* left, int64_t stride, int64_t depth,
                                     const C* panel, const C* ahead, int64_t ahead_step, C* result,
                                     bool accumulate) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      multiply_rows<C, kLies, kRows>(left, stride, depth, panel, ahead, ahead_step, result,
                                     accumulate);
    } else {
      multiply_up_to<C, kLies, kRows - 1>(rows, left, stride, depth, panel, ahead, ahead_step,
                                          result, accumulate);
    }
  }
}

}  // namespace

// Rows are dealt out evenly, because a micro-kernel of one or two rows would wait for its own sums.
template <class C, Lies kLies>
void multiply_panel(const C* left, int64_t stride, int64_t rows, int64_t depth, const C* panel,
                    C* result, bool accumulate) {
  const int64_t row_steps = divide_up(rows, kTileRows);
  int64_t start = 0;
  do {
    const int64_t steps = smaller(depth - start, kDepth);
    const C* const first = left + (kLies == Lies::kRows ? start : start * stride);
    const C* const part = panel + start * kBlock<C>;
    for (int64_t i = 0; i < row_steps; ++i) {
      const int64_t row = rows * i / row_steps, end = rows * (i + 1) / row_steps;
      const C* const ahead = kLies == Lies::kRows
                                 ? at_distance(part, (steps + steps * i / row_steps) * kBlock<C>)
                                 : at_distance<const C>(result, (rows + row) * kBlock<C>);
      const int64_t ahead_step =
          kLies == Lies::kRows ? kBlock<C> / row_steps : (end - row) * kBlock<C> / larger(steps, 1);
      multiply_up_to<C, kLies, kTileRows>(
          end - row, first + (kLies == Lies::kRows ? row * stride : row), stride, steps, part,
          ahead, ahead_step, result + row * kBlock<C>, accumulate || start > 0);
    }
    start += kDepth;
  } while (start < depth);
}

#define DEFORMOPS_INSTANTIATE(C, kLies) \
  template void multiply_panel<C, kLies>(const C*, int64_t, int64_t, int64_t, const C*, C*, bool);
DEFORMOPS_INSTANTIATE(float, Lies::kRows)
DEFORMOPS_INSTANTIATE(float, Lies::kColumns)
DEFORMOPS_INSTANTIATE(double, Lies::kRows)
DEFORMOPS_INSTANTIATE(double, Lies::kColumns)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

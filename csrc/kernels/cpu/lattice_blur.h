// Splat and blur of one block of channels; slicing reads the rows that they leave.
#pragma once

#include <cstdint>

#include "core/huge_pages.h"
#include "kernels/cpu/lattice_rows.h"
#include "kernels/cpu/lattice_waves.h"
#include "kernels/lattice.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Entries that are asked for ahead of their turn: points of vertices, vertices of points.
constexpr int64_t kEntriesAhead = 24;
constexpr int64_t kPointsAhead = 6;

// entry / corners without a division, for entries and corners of a lattice.
class CornerToPoint {
 public:
  explicit CornerToPoint(int64_t corners)
      : inverse_(~uint64_t{0} / static_cast<uint64_t>(corners) + 1) {}

  DEFORMOPS_INLINE int64_t operator()(int32_t entry) const {
    __extension__ typedef unsigned __int128 Wide;
    return static_cast<int64_t>(static_cast<Wide>(inverse_) * static_cast<uint32_t>(entry) >> 64);
  }

 private:
  uint64_t inverse_;  // 2^64 / corners, rounded up: exact for entries below 2^31
};

// Rows of kWidth channels of all vertices. Behind the last one is one with zeros, which stands for
// absent neighbours.
template <class C, int kWidth>
class VertexRows {
 public:
  VertexRows(const Context& context, const Lattice& lattice, bool reverse, int64_t threads)
      : lattice_(lattice),
        axes_(lattice.neighbor.sizes[0]),
        reverse_(reverse),
        waves_(context, lattice, reverse, kWidth * sizeof(C), threads),
        zeros_(lattice.start.sizes[0] - 1 + waves_.shift(0)),
        rows_(allocate<C>(context, (zeros_ + 1) * kWidth)) {
    use_huge_pages(rows_, (zeros_ + 1) * kWidth * static_cast<int64_t>(sizeof(C)));
    for (int64_t c = 0; c < kWidth; ++c) rows_[zeros_ * kWidth + c] = C(0);
  }

  int64_t tasks() const { return waves_.tasks(); }

  // Begins to splat and blur; returns the number of tasks, to be run in their order.
  int64_t begin_sweep() {
    waves_.begin_sweep();
    return tasks();
  }

  // splat(first, end, rows) fills rows of vertices.
  template <class Splat>
  DEFORMOPS_INLINE void run(int64_t task, const Splat& splat) const {
    waves_.run(task, [&](int64_t stage, int64_t begin, int64_t end) {
      C* const to = rows_ + waves_.shift(stage) * kWidth;
      if (stage == 0) return splat(begin, end, to);
      blur(reverse_ ? axes_ - stage : stage - 1, waves_.shift(stage - 1), to, begin, end);
    });
  }

  // The blurred rows, without the blur's scale.
  const C* blurred() const { return rows_; }

 private:
  DEFORMOPS_INLINE void blur(int64_t axis, int64_t shift, C* to, int64_t begin, int64_t end) const {
    const int32_t* const neighbor = lattice_.neighbor.data + axis * lattice_.neighbor.strides[0];
    const C* const from = rows_ + shift * kWidth;
    const uint32_t zeros = static_cast<uint32_t>(zeros_ - shift);
    const auto row = [&](int32_t n) {
      const uint32_t number = static_cast<uint32_t>(n);  // -1 is the largest
      return Row<C, kWidth>::load(from +
                                  static_cast<int64_t>(number < zeros ? number : zeros) * kWidth);
    };
    for (int64_t v = begin; v < end; ++v) {
      Row<C, kWidth> sum = Row<C, kWidth>::load(from + v * kWidth);
      sum.add_product(C(0.5), row(neighbor[2 * v]) + row(neighbor[2 * v + 1]));
      sum.store(to + v * kWidth);
    }
  }

  Lattice lattice_;
  int64_t axes_;
  bool reverse_;
  Waves waves_;
  int64_t zeros_;
  C* rows_;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

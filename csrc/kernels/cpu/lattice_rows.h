// Rows of a fixed number of channels: in registers, of vertices, and of points.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/view.h"
#include "kernels/cpu/exponential.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// The largest power of two that is not above `limit`.
constexpr int power_of_two(int limit) {
  int power = 1;
  while (2 * power <= limit) power *= 2;
  return power;
}

template <class C, int kCount>
struct Part {
  typedef C type __attribute__((vector_size(kCount * sizeof(C))));
  typedef C unaligned
      __attribute__((vector_size(kCount * sizeof(C)), aligned(sizeof(C)), may_alias));
};
template <class C>
struct Part<C, 1> {
  typedef C type;
  typedef C unaligned;
};

template <class C, int kCount>
DEFORMOPS_INLINE C sum_lanes(typename Part<C, kCount>::type lanes) {
  if constexpr (kCount == 1) {
    return lanes;
  } else {
    typename Part<C, kCount / 2>::type halves[2];
    memcpy(halves, &lanes, sizeof(lanes));
    return sum_lanes<C, kCount / 2>(halves[0] + halves[1]);
  }
}

template <class C, int kCount>
DEFORMOPS_INLINE C largest_lane(typename Part<C, kCount>::type lanes) {
  if constexpr (kCount == 1) {
    return lanes;
  } else {
    typename Part<C, kCount / 2>::type halves[2];
    memcpy(halves, &lanes, sizeof(lanes));
    return largest_lane<C, kCount / 2>(halves[0] > halves[1] ? halves[0] : halves[1]);
  }
}

// kWidth channels in registers: vectors, then halves of vectors.
template <class C, int kWidth>
struct Row {
  static constexpr int kHead = power_of_two(kWidth < kLanes<C> ? kWidth : kLanes<C>);
  using Head = typename Part<C, kHead>::type;
  using Unaligned = typename Part<C, kHead>::unaligned;

  Head head = {};
  Row<C, kWidth - kHead> tail;

  DEFORMOPS_INLINE static Row load(const C* row) {
    return {*reinterpret_cast<const Unaligned*>(row), Row<C, kWidth - kHead>::load(row + kHead)};
  }
  DEFORMOPS_INLINE void store(C* row) const {
    *reinterpret_cast<Unaligned*>(row) = head;
    tail.store(row + kHead);
  }
  // Of the first `count` channels.
  DEFORMOPS_INLINE void store_first(C* row, int64_t count) const {
    if (count >= kHead) {
      *reinterpret_cast<Unaligned*>(row) = head;
      tail.store_first(row + kHead, count - kHead);
      return;
    }
    C channels[kHead];
    memcpy(channels, &head, sizeof(head));
    const C* from = channels;
#pragma GCC unroll 8
    for (int size = kHead / 2; size > 0; size /= 2) {
      if ((count & size) == 0) continue;
      memcpy(row, from, static_cast<size_t>(size) * sizeof(C));
      row += size;
      from += size;
    }
  }
  DEFORMOPS_INLINE Row operator+(const Row& other) const {
    return {head + other.head, tail + other.tail};
  }
  DEFORMOPS_INLINE Row operator*(const Row& other) const {
    return {head * other.head, tail * other.tail};
  }
  DEFORMOPS_INLINE C sum() const { return sum_lanes<C, kHead>(head) + tail.sum(); }
  DEFORMOPS_INLINE C largest() const {
    const C most = largest_lane<C, kHead>(head), rest = tail.largest();
    return most > rest ? most : rest;
  }
  // exp(this - largest)
  DEFORMOPS_INLINE Row exponential_from(C largest) const {
    return {exponential<C>(head - largest), tail.exponential_from(largest)};
  }
  DEFORMOPS_INLINE void add_product(C weight, const Row& row) {
    head += weight * row.head;
    tail.add_product(weight, row.tail);
  }
};
template <class C>
struct Row<C, 0> {
  DEFORMOPS_INLINE static Row load(const C*) { return {}; }
  DEFORMOPS_INLINE void store(C*) const {}
  DEFORMOPS_INLINE void store_first(C*, int64_t) const {}
  DEFORMOPS_INLINE Row operator+(const Row&) const { return {}; }
  DEFORMOPS_INLINE Row operator*(const Row&) const { return {}; }
  DEFORMOPS_INLINE C sum() const { return C(0); }
  DEFORMOPS_INLINE C largest() const { return static_cast<C>(-__builtin_inf()); }
  DEFORMOPS_INLINE Row exponential_from(C) const { return {}; }
  DEFORMOPS_INLINE void add_product(C, const Row&) {}
};

// A task's points.
constexpr int64_t kPointsOfTask = 4096;

// Channels come in blocks of at most so many, and of one of these widths.
constexpr int64_t kMaxWidth = 32;

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

template <class Body>
DEFORMOPS_INLINE void with_width(int64_t channels, const Body& body) {
  if (channels == 1) return body(Constant<1>{});
  if (channels == 2) return body(Constant<2>{});
  if (channels <= 4) return body(Constant<4>{});
  if (channels <= 8) return body(Constant<8>{});
  if (channels <= 16) return body(Constant<16>{});
  if (channels <= 24) return body(Constant<24>{});
  body(Constant<kMaxWidth>{});
}

template <int kBytes>
DEFORMOPS_INLINE void prefetch(const void* address) {
  const char* const first = static_cast<const char*>(address);
  for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(first + i);
  if (kBytes % 64 != 0) __builtin_prefetch(first + kBytes - 1);
}

// Calls body(begin, end) for ranges that cover [0, size), on all threads.
template <class Body>
DEFORMOPS_INLINE void for_each_range(const Team& team, int64_t size, int64_t length,
                                     const Body& body) {
  team.for_each(divide_up(size, length), [&](int64_t task, int64_t) {
    body(task * length, smaller(size, (task + 1) * length));
  });
}

// Calls body(Constant<width>{}, begin, end) for ranges of channels to be taken in blocks of a
// width.
template <class Body>
DEFORMOPS_INLINE void with_blocks(int64_t channels, const Body& body) {
  const int64_t whole = channels / kMaxWidth * kMaxWidth;
  if (whole > 0) body(Constant<kMaxWidth>{}, int64_t{0}, whole);
  if (whole == channels) return;
  with_width(channels - whole, [&](auto number) { body(number, whole, channels); });
}

enum class Behind { kAnything, kZeros };  // the last channel of a row

// Blocks of kWidth channels of values [P, L] as rows that can be read in full, although there may
// be fewer. Where anything may be behind the last channel dense rows are read where they are;
// others are copied, and so are the last ones, behind which there may be nothing.
template <class C, int kWidth>
class PointRows {
 public:
  PointRows(const Context& context, const View<const C, 2>& values, Behind behind)
      : values_(values),
        stride_(values.strides[0]),
        dense_(values.strides[1] == 1 && stride_ >= smaller(kWidth, values.sizes[1]) &&
               behind == Behind::kAnything) {
    const int64_t points = values.sizes[0];
    copies_ = allocate<C>(context, (dense_ ? smaller(kWidth, points) : points) * kWidth);
  }

  // Channels [first, first + kWidth), as far as there are.
  void open(const Team& team, int64_t first) {
    const int64_t points = values_.sizes[0];
    const int64_t width = smaller(kWidth, values_.sizes[1] - first);
    direct_ = dense_ ? larger(0, points - divide_up(kWidth - width, stride_)) : 0;
    data_ = values_.data + first * values_.strides[1];
    for_each_range(team, points - direct_, kPointsOfTask, [&](int64_t begin, int64_t end) {
      C* const rows = copies_ + begin * kWidth;
      memset(rows, 0, static_cast<size_t>((end - begin) * kWidth) * sizeof(C));
      rearrange<C>(data_ + (direct_ + begin) * stride_, {values_.strides[1], stride_}, width,
                   end - begin, rows, {1, kWidth});
    });
  }

  DEFORMOPS_INLINE const C* operator[](int64_t p) const {
    return p < direct_ ? data_ + p * stride_ : copies_ + (p - direct_) * kWidth;
  }

 private:
  View<const C, 2> values_;
  int64_t stride_;
  bool dense_;
  C* copies_;
  const C* data_ = nullptr;
  int64_t direct_ = 0;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA

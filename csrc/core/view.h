// A tensor as kernels see it: a pointer, sizes, strides in elements. It owns nothing.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace deformops {

template <class T, int Rank>
struct View {
  T* data = nullptr;
  int64_t sizes[Rank] = {};
  int64_t strides[Rank] = {};

  DEFORMOPS_INLINE bool defined() const { return data != nullptr; }

  template <class... Index>
  DEFORMOPS_INLINE T* pointer(Index... index) const {
    static_assert(sizeof...(Index) <= Rank, "more indices than dimensions");
    T* address = data;
    int dimension = 0;
    ((address += static_cast<int64_t>(index) * strides[dimension++]), ...);
    return address;
  }

  template <class... Index>
  DEFORMOPS_INLINE T& operator()(Index... index) const {
    static_assert(sizeof...(Index) == Rank, "one index for each dimension");
    return *pointer(index...);
  }
};

}  // namespace deformops

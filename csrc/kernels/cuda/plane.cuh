// Addresses inside one channel of a map.
#pragma once

#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <type_traits>

#include "core/view.h"

namespace deformops::cuda {

// Pixel (y, x) lies (y * row + x * column) * unit bytes from the channel's first. The unit is what
// the strides have in common (one element of [N, C, H, W], all channels of channels_last), so that
// 32 bits count it even where 32 bits would not count the elements of the tensor, and an address is
// one multiply-add of 32 x 32 + 64 bits.
struct Plane {
  uint32_t row, column, unit;
};

template <class T>
Plane plane_of(const View<T, 4>& map) {
  const int64_t row = map.strides[2], column = map.strides[3];
  const int64_t unit = std::gcd(row, column);
  if (unit == 0) return {0, 0, 0};
  const int64_t last = ((map.sizes[2] - 1) * row + (map.sizes[3] - 1) * column) / unit;
  const int64_t bytes = unit * static_cast<int64_t>(sizeof(T));
  if (row / unit > INT32_MAX || column / unit > INT32_MAX || last > INT32_MAX ||
      bytes > UINT32_MAX) {
    throw std::length_error("a map of one channel has more than 2^31 pixels");
  }
  return {static_cast<uint32_t>(row / unit), static_cast<uint32_t>(column / unit),
          static_cast<uint32_t>(bytes)};
}

template <class T>
__device__ __forceinline__ T* pixel_at(T* channel, const Plane& plane, uint32_t offset) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(channel) +
                              static_cast<uint64_t>(offset) * plane.unit);
}

}  // namespace deformops::cuda

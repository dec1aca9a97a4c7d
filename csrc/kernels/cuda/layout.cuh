// How the host decides which way neighbouring threads walk over a map.
#pragma once

#include "core/view.h"
#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

template <class T>
Lanes lanes_of(const View<T, 4>& map) {
  return map.strides[1] == 1 && map.strides[3] != 1 && map.sizes[1] > 1 ? Lanes::kChannels
                                                                        : Lanes::kPixels;
}

// Whether the channels of a pixel can be loaded 16 bytes at a time, starting at multiples of
// `segment`.
template <class T>
bool has_vectors(const View<T, 4>& map, int64_t segment) {
  constexpr int64_t kSize = Vector<std::remove_const_t<T>>::kSize;
  return reinterpret_cast<uintptr_t>(map.data) % 16 == 0 && segment % kSize == 0 &&
         map.strides[0] % kSize == 0 && map.strides[2] % kSize == 0 && map.strides[3] % kSize == 0;
}

}  // namespace deformops::cuda

// Where the gradient of the input is summed: in itself, or for half types in a float copy that is
// rounded once at the end (4 bytes of scratch for each of its elements).
#pragma once

#include <algorithm>
#include <array>
#include <stdexcept>
#include <type_traits>

#include "core/context.h"
#include "core/scalars.h"
#include "core/view.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

template <class T>
int64_t count_of(const View<T, 4>& map) {
  return map.sizes[0] * map.sizes[1] * map.sizes[2] * map.sizes[3];
}

// Whether the elements fill a piece of memory without gaps, in any order of the dimensions.
template <class T>
bool is_dense(const View<T, 4>& map) {
  std::array<int, 4> order = {0, 1, 2, 3};
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return map.strides[a] < map.strides[b]; });
  int64_t expected = 1;
  for (const int d : order) {
    if (map.sizes[d] != 1 && map.strides[d] != expected) return false;
    expected *= map.sizes[d];
  }
  return true;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    round_sums_kernel(const compute_t<T>* sums, T* rounded, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) rounded[i] = round_to<T>(sums[i]);
}

template <class T>
class InputSums {
 public:
  using C = compute_t<T>;

  InputSums(const Context& context, View<T, 4> grad_input)
      : stream_(context.stream), count_(count_of(grad_input)), grad_input_(grad_input) {
    if (!is_dense(grad_input)) throw std::invalid_argument("grad_input: expected a dense view");
    if constexpr (std::is_same_v<T, C>) {
      sums_ = grad_input;
    } else {
      sums_.data = context.scratch->template allocate_array<C>(count_);
      std::copy(grad_input.sizes, grad_input.sizes + 4, sums_.sizes);
      std::copy(grad_input.strides, grad_input.strides + 4, sums_.strides);
    }
    check(cudaMemsetAsync(sums_.data, 0, static_cast<size_t>(count_) * sizeof(C),
                          static_cast<cudaStream_t>(stream_)),
          "zero_sums");
  }

  const View<C, 4>& view() const { return sums_; }

  // Rounds the sums, where they are not yet the gradient itself.
  void finish() const {
    if constexpr (!std::is_same_v<T, C>) {
      launch("round_sums", round_sums_kernel<T>, divide_up(count_, kThreads), kThreads, stream_,
             sums_.data, grad_input_.data, count_);
    }
  }

 private:
  void* stream_;
  int64_t count_;
  View<T, 4> grad_input_;
  View<C, 4> sums_;
};

}  // namespace deformops::cuda

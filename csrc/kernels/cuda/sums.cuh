// Where the gradient of the input is summed: in itself, or for half types in a float copy that is
// rounded once at the end (4 bytes of scratch for each of its elements).
#pragma once

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "core/context.h"
#include "core/scalars.h"
#include "core/view.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

// The dimensions of a map from the outermost to the innermost in memory.
template <class T>
std::array<int, 4> memory_order(const View<T, 4>& map) {
  std::array<int, 4> order = {0, 1, 2, 3};
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return map.strides[a] > map.strides[b]; });
  return order;
}

// Dense strides, the dimensions in the order in which `like` has them.
template <class T>
std::array<int64_t, 4> dense_strides(const View<T, 4>& like) {
  const std::array<int, 4> order = memory_order(like);
  std::array<int64_t, 4> strides = {};
  int64_t stride = 1;
  for (int i = 3; i >= 0; --i) {
    strides[order[i]] = stride;
    stride *= like.sizes[order[i]];
  }
  return strides;
}

template <class T>
int64_t count_of(const View<T, 4>& map) {
  return map.sizes[0] * map.sizes[1] * map.sizes[2] * map.sizes[3];
}

// to = from, or 0 if `from` is undefined. Dimensions come outermost first.
template <class To, class From>
__global__ void __launch_bounds__(256)
    assign_kernel(View<To, 4> to, View<const From, 4> from, int64_t count) {
  int64_t rest = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (rest >= count) return;
  int64_t to_offset = 0, from_offset = 0;
#pragma unroll
  for (int d = 3; d >= 0; --d) {
    if (rest == 0) break;
    const int64_t index = rest % to.sizes[d];
    rest /= to.sizes[d];
    to_offset += index * to.strides[d];
    from_offset += index * from.strides[d];
  }
  to.data[to_offset] = from.defined() ? static_cast<To>(from.data[from_offset]) : To{};
}

template <class To, class From>
void assign(const char* name, void* stream, View<To, 4> to, View<const From, 4> from) {
  const std::array<int, 4> order = memory_order(to);
  View<To, 4> ordered_to = {to.data};
  View<const From, 4> ordered_from = {from.data};
  for (int d = 0; d < 4; ++d) {
    ordered_to.sizes[d] = to.sizes[order[d]];
    ordered_to.strides[d] = to.strides[order[d]];
    ordered_from.strides[d] = from.strides[order[d]];
  }
  const int64_t count = count_of(to);
  launch(name, assign_kernel<To, From>, divide_up(count, 256), 256, stream, ordered_to,
         ordered_from, count);
}

template <class T>
class InputSums {
 public:
  using C = compute_t<T>;

  InputSums(const Context& context, View<T, 4> grad_input)
      : stream_(context.stream), grad_input_(grad_input) {
    const std::array<int64_t, 4> strides = dense_strides(grad_input);
    const bool dense = std::equal(strides.begin(), strides.end(), grad_input.strides);
    const size_t count = static_cast<size_t>(count_of(grad_input));
    std::copy(grad_input.sizes, grad_input.sizes + 4, sums_.sizes);
    if constexpr (std::is_same_v<T, C>) {
      sums_ = grad_input;
      if (!dense) {
        assign<C, C>("zero_sums", stream_, sums_, {});
        return;
      }
    } else {
      sums_.data = context.scratch->template allocate_array<C>(count);
      std::copy(strides.begin(), strides.end(), sums_.strides);
    }
    check(cudaMemsetAsync(sums_.data, 0, count * sizeof(C), static_cast<cudaStream_t>(stream_)),
          "zero_sums");
  }

  const View<C, 4>& view() const { return sums_; }

  // Rounds the sums, where they are not yet the gradient itself.
  void finish() const {
    if constexpr (!std::is_same_v<T, C>) {
      View<const C, 4> sums = {sums_.data};
      std::copy(sums_.sizes, sums_.sizes + 4, sums.sizes);
      std::copy(sums_.strides, sums_.strides + 4, sums.strides);
      assign<T, C>("round_sums", stream_, grad_input_, sums);
    }
  }

 private:
  void* stream_;
  View<T, 4> grad_input_;
  View<C, 4> sums_;
};

}  // namespace deformops::cuda

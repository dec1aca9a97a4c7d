// output = the largest pixel of each bin, and where it is.
//
// A block has some bins of a box and runs through channels. A thread has a bin and a channel, or 16
// bytes of neighbouring channels where these lie side by side (channels_last); its neighbours have
// the next numbers of the output.
//
// Bytes: output and index once; the input once for each box that covers it, mostly from the
// second-level cache.
#include "core/context.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/roi_blocks.cuh"
#include "kernels/roi_pooling.h"

namespace deformops::cuda {
namespace {

template <class T, class Index>
struct Pool {
  RoiBins<T> bins;
  View<const T, 4> input;
  View<T, 4> output;
  View<Index, 4> index;  // or undefined
  BinBlocks blocks;
  bool along_channels;
};

// The first of the largest numbers seen. NaN is larger than all others.
template <class C, class Index>
struct Maximum {
  C value = C(0);
  Index index = -1;

  __device__ __forceinline__ void see(C candidate, Index at) {
    if (index < 0 || (value == value && !(candidate <= value))) {
      value = candidate;
      index = at;
    }
  }
};

template <class T, class Index, int kUnit>
__global__ void __launch_bounds__(kThreads, 6) roi_pool_kernel(const Pool<T, Index> problem) {
  using C = compute_t<T>;

  __shared__ BinBlock block;
  __shared__ RoiState state;
  __shared__ int2 rows[kMostBins], columns[kMostBins];  // [x, y)

  const RoiBins<T>& bins = problem.bins;
  problem.blocks.open(block, bins, problem.input.sizes[0]);
  const int number = threadIdx.x % kMostBins;
  const bool is_y = threadIdx.x < kMostBins;
  if (number < (is_y ? block.height : block.width)) {
    const RoiBox<C> box = bins.box(block.k);
    const Range range = is_y ? bins.pixels_y(box, block.first_y + number)
                             : bins.pixels_x(box, block.first_x + number);
    (is_y ? rows : columns)[number] = {static_cast<int>(range.first), static_cast<int>(range.end)};
    if (threadIdx.x == 0) state = box.state;
  }
  __syncthreads();

  const BinItems items = {block.bins(), block.channels / kUnit, problem.along_channels};
  for (int item = threadIdx.x; item < items.count(); item += kThreads) {
    const int bin = items.bin_of(item);
    const int bin_y = block.y_of(bin), bin_x = block.x_of(bin);
    const int64_t channel = block.first_channel + items.unit_of(item) * static_cast<int64_t>(kUnit);
    const T* const from = problem.input.pointer(block.image, channel);
    const int2 y = rows[bin / block.width], x = columns[bin % block.width];
    Maximum<C, Index> maxima[kUnit];
    if (state == RoiState::kUsable) {
      for (int i = y.x; i < y.y; ++i) {
        const T* const row = from + i * problem.input.strides[2];
        for (int j = x.x; j < x.y; ++j) {
          T pixel[kUnit];
          load_run(pixel, row + j * problem.input.strides[3]);
          const Index at = static_cast<Index>(i) * static_cast<Index>(bins.width) + j;
#pragma unroll
          for (int c = 0; c < kUnit; ++c) maxima[c].see(static_cast<C>(pixel[c]), at);
        }
      }
    }
    const bool is_nan = state == RoiState::kNan;
    T values[kUnit];
    Index indices[kUnit];
#pragma unroll
    for (int c = 0; c < kUnit; ++c) {
      values[c] = round_to<T>(is_nan ? static_cast<C>(NAN) : maxima[c].value);
      indices[c] = maxima[c].index;
    }
    store_run(problem.output.pointer(block.k, channel, bin_y, bin_x), values);
    if (problem.index.defined()) {
      store_run(problem.index.pointer(block.k, channel, bin_y, bin_x), indices);
    }
  }
}

}  // namespace

template <class T, class Index>
void roi_pool(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
              View<T, 4> output, View<Index, 4> index) {
  constexpr int kSize = Vector<T>::kSize;
  Pool<T, Index> problem = {};
  problem.bins = bins;
  problem.input = input;
  problem.output = output;
  problem.index = index;
  problem.along_channels = lanes_of(input) == Lanes::kChannels;
  if constexpr (std::is_same_v<Index, int32_t>) {  // of larger maps there are few channels
    if (has_channel_vectors(input, bins.channels) && has_channel_vectors(output, bins.channels) &&
        (!index.defined() || has_channel_vectors(index, bins.channels))) {
      problem.blocks = deal_bins(bins, kSize);
      launch("roi_pool", roi_pool_kernel<T, Index, kSize>, problem.blocks.count(), kThreads,
             context.stream, problem);
      return;
    }
  }
  problem.blocks = deal_bins(bins);
  launch("roi_pool", roi_pool_kernel<T, Index, 1>, problem.blocks.count(), kThreads, context.stream,
         problem);
}

#define DEFORMOPS_INSTANTIATE(T)                                                          \
  template void roi_pool<T, int32_t>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                     View<T, 4>, View<int32_t, 4>);                       \
  template void roi_pool<T, int64_t>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                     View<T, 4>, View<int64_t, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

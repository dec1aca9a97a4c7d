// output = mean over the bins of gather(input).
//
// A block has some bins of a box and runs through channels: the rows and columns that the bins read
// are worked out once. A thread has a bin and a channel, or 16 bytes of neighbouring channels where
// these lie side by side (channels_last); its neighbours have the next numbers of the output.
//
// Bytes: the output once; the input once for each box that covers it, mostly from the second-level
// cache. A bin of n x n samples, a pixel apart, is (n + 1)^2 multiply-adds.
#include "core/context.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/roi_blocks.cuh"
#include "kernels/cuda/roi_taps.cuh"
#include "kernels/roi_pooling.h"

namespace deformops::cuda {
namespace {

template <class T>
struct Average {
  RoiBins<T> bins;
  View<const T, 4> input;
  View<T, 4> output;
  BinBlocks blocks;
  bool along_channels;
};

// kUnit: channels of a thread; more than one are loaded and stored at once.
template <class T, int kUnit>
__global__ void __launch_bounds__(kThreads, 6) roi_average_kernel(const Average<T> problem) {
  using C = compute_t<T>;
  using Lists = TapLists<T, 1>;

  __shared__ BinBlock block;
  __shared__ Lists lists;

  const RoiBins<T>& bins = problem.bins;
  problem.blocks.open(block, bins, problem.input.sizes[0]);
  lists.open(bins, block);
  const int windows_y = lists.windows_y(), windows_x = lists.windows_x();
  const BinItems items = {block.bins(), block.channels / kUnit, problem.along_channels};
  for (int first = 0; first < items.count(); first += kThreads) {
    const int item = first + static_cast<int>(threadIdx.x);
    const bool active = item < items.count();
    const int bin = active ? items.bin_of(item) : 0;
    const int bin_y = block.y_of(bin), bin_x = block.x_of(bin);
    const int64_t channel =
        block.first_channel + (active ? items.unit_of(item) : 0) * static_cast<int64_t>(kUnit);
    const T* const from =
        problem.input.pointer(block.image, bins.input_channel(channel, bin_y, bin_x));
    C sum[kUnit] = {};
    for (int window = 0; window < windows_y * windows_x; ++window) {
      if (first == 0 || windows_y * windows_x > 1) {
        __syncthreads();
        lists.fill(bins, block, window / windows_x, window % windows_x);
      }
      if (!active) continue;
      const typename Lists::List rows = lists.rows(bin), columns = lists.columns(bin);
#pragma unroll 1
      for (int i = 0; i < rows.count; ++i) {
        const T* const row = from + rows.taps[i].index * problem.input.strides[2];
        C row_sum[kUnit] = {};
#pragma unroll 4
        for (int j = 0; j < columns.count; ++j) {
          T pixel[kUnit];
          load_run(pixel, row + columns.taps[j].index * problem.input.strides[3]);
#pragma unroll
          for (int c = 0; c < kUnit; ++c) {
            row_sum[c] += columns.taps[j].weights[0] * static_cast<C>(pixel[c]);
          }
        }
#pragma unroll
        for (int c = 0; c < kUnit; ++c) sum[c] += rows.taps[i].weights[0] * row_sum[c];
      }
    }
    if (!active) continue;
    const C divisor = lists.divisor(bin);
    T means[kUnit];
#pragma unroll
    for (int c = 0; c < kUnit; ++c) means[c] = round_to<T>(sum[c] / divisor);
    store_run(problem.output.pointer(block.k, channel, bin_y, bin_x), means);
  }
}

}  // namespace

template <class T>
void roi_average(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                 View<T, 4> output) {
  constexpr int kSize = Vector<T>::kSize;
  Average<T> problem = {};
  problem.bins = bins;
  problem.input = input;
  problem.output = output;
  problem.along_channels = lanes_of(input) == Lanes::kChannels;
  const bool vectors = bins.groups_y * bins.groups_x == 1 &&
                       has_channel_vectors(input, bins.channels_per_class()) &&
                       has_channel_vectors(output, bins.channels_per_class());
  problem.blocks = deal_bins(bins, vectors ? kSize : 1);
  launch("roi_average", vectors ? roi_average_kernel<T, kSize> : roi_average_kernel<T, 1>,
         problem.blocks.count(), kThreads, context.stream, problem);
}

#define DEFORMOPS_INSTANTIATE(T) \
  template void roi_average<T>(const Context&, const RoiBins<T>&, View<const T, 4>, View<T, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

// grad_offset: the form at one order more, summed over the channels of a class and the bins of a
// part.
//
// A block has some bins of a box and class and a share of the channels. A thread has a bin and
// every so many channels; its neighbours have the next bins ([N, C, H, W]) or the next channels
// (channels_last). It reads what the forward pass reads, weighs it twice, and the block sums over
// its threads before it writes two numbers for each bin. All sums have one order: the same bits
// every time.
//
// Scratch: 2 numbers for each bin, class and share.
#include "core/context.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/roi_backward.cuh"
#include "kernels/cuda/roi_blocks.cuh"
#include "kernels/cuda/roi_taps.cuh"

namespace deformops::cuda {
namespace {

// Sums over channels: slopes(axis, share, class, k, bin), axis 0 for x and 1 for y.
template <class C>
struct Slopes {
  C* data;
  int64_t shares, classes, boxes;
  int pooled_y, pooled_x;

  __host__ __device__ int64_t count() const {
    return 2 * shares * classes * boxes * pooled_y * pooled_x;
  }
  __device__ C& at(int axis, int64_t share, int64_t cls, int64_t k, int y, int x) const {
    const int64_t box = ((axis * shares + share) * classes + cls) * boxes + k;
    return data[(box * pooled_y + y) * pooled_x + x];
  }
};

template <class T>
struct GradOffset {
  RoiBins<T> bins;
  View<const T, 4> grad_output;
  View<const T, 4> input;
  BinBlocks blocks;
  Slopes<compute_t<T>> slopes;
  bool along_channels;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 6) sum_slopes_kernel(const GradOffset<T> problem) {
  using C = compute_t<T>;
  using Lists = TapLists<T, 2>;

  __shared__ BinBlock block;
  __shared__ Lists lists;
  __shared__ C sums[2][kThreads];

  const RoiBins<T>& bins = problem.bins;
  problem.blocks.open(block, bins, problem.input.sizes[0]);
  lists.open(bins, block);
  const int windows_y = lists.windows_y(), windows_x = lists.windows_x();

  // Threads in `lanes` ranks along the channels, for `width` bins at a time.
  const int lanes = problem.along_channels ? 32 : kThreads / block.bins();
  const int width = problem.along_channels ? kThreads / 32 : block.bins();
  const int thread = threadIdx.x;
  const int lane = problem.along_channels ? thread % 32 : thread / width;
  const int column = problem.along_channels ? thread / 32 : thread % width;
  for (int first = 0; first < block.bins(); first += width) {
    const int bin = first + column;
    const bool active = lane < lanes && bin < block.bins() && !lists.is_empty(bin);
    const int bin_y = block.y_of(bin), bin_x = block.x_of(bin);
    C slope_y = C(0), slope_x = C(0);
    for (int window = 0; window < windows_y * windows_x; ++window) {
      if (first == 0 || windows_y * windows_x > 1) {
        __syncthreads();
        lists.fill(bins, block, window / windows_x, window % windows_x);
      }
      if (!active) continue;
      const typename Lists::List rows = lists.rows(bin), columns = lists.columns(bin);
      for (int c = lane; c < block.channels; c += lanes) {
        const int64_t channel = block.first_channel + c;
        const T* const from =
            problem.input.pointer(block.image, bins.input_channel(channel, bin_y, bin_x));
        C sum_y = C(0), sum_x = C(0);
        for (int i = 0; i < rows.count; ++i) {
          const T* const row = from + rows.taps[i].index * problem.input.strides[2];
          C value = C(0), slope = C(0);
          for (int j = 0; j < columns.count; ++j) {
            const C pixel = static_cast<C>(row[columns.taps[j].index * problem.input.strides[3]]);
            value += columns.taps[j].weights[0] * pixel;
            slope += columns.taps[j].weights[1] * pixel;
          }
          sum_y += rows.taps[i].weights[1] * value;
          sum_x += rows.taps[i].weights[0] * slope;
        }
        const C grad = static_cast<C>(problem.grad_output(block.k, channel, bin_y, bin_x));
        slope_y += grad * sum_y;
        slope_x += grad * sum_x;
      }
    }
    sums[0][thread] = slope_x;
    sums[1][thread] = slope_y;
    __syncthreads();
    if (thread < 2 * width && first + thread % width < block.bins()) {
      const int axis = thread / width, sum_column = thread % width, sum_bin = first + sum_column;
      C sum = C(0);
      for (int i = 0; i < lanes; ++i) {
        sum += sums[axis][problem.along_channels ? sum_column * 32 + i : i * width + sum_column];
      }
      problem.slopes.at(axis, block.share, block.cls, block.k, block.y_of(sum_bin),
                        block.x_of(sum_bin)) = sum / lists.divisor(sum_bin);
    }
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_parts_kernel(Slopes<compute_t<T>> slopes, View<T, 4> grad_offset, int64_t count) {
  using C = compute_t<T>;
  int64_t rest = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (rest >= count) return;
  const int64_t parts_y = grad_offset.sizes[2], parts_x = grad_offset.sizes[3];
  const int64_t part_x = rest % parts_x;
  rest /= parts_x;
  const int64_t part_y = rest % parts_y;
  rest /= parts_y;
  const int64_t channel = rest % grad_offset.sizes[1], k = rest / grad_offset.sizes[1];
  const int end_y = first_bin(part_y + 1, parts_y, slopes.pooled_y);
  const int end_x = first_bin(part_x + 1, parts_x, slopes.pooled_x);
  C sum = C(0);
  for (int64_t share = 0; share < slopes.shares; ++share) {
    for (int y = first_bin(part_y, parts_y, slopes.pooled_y); y < end_y; ++y) {
      for (int x = first_bin(part_x, parts_x, slopes.pooled_x); x < end_x; ++x) {
        sum += slopes.at(static_cast<int>(channel % 2), share, channel / 2, k, y, x);
      }
    }
  }
  grad_offset(k, channel, part_y, part_x) = round_to<T>(sum);
}

}  // namespace

template <class T>
void roi_grad_offset(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                     View<const T, 4> input, View<T, 4> grad_offset) {
  using C = compute_t<T>;
  GradOffset<T> problem = {};
  problem.bins = bins;
  problem.grad_output = grad_output;
  problem.input = input;
  problem.blocks = deal_bins(bins);
  problem.slopes = {nullptr,
                    problem.blocks.shares,
                    problem.blocks.classes,
                    problem.blocks.boxes,
                    problem.blocks.pooled_y,
                    problem.blocks.pooled_x};
  problem.slopes.data = context.scratch->allocate_array<C>(problem.slopes.count());
  problem.along_channels = lanes_of(input) == Lanes::kChannels;
  launch("sum_slopes", sum_slopes_kernel<T>, problem.blocks.count(), kThreads, context.stream,
         problem);
  const int64_t count =
      grad_offset.sizes[0] * grad_offset.sizes[1] * grad_offset.sizes[2] * grad_offset.sizes[3];
  launch("sum_parts", sum_parts_kernel<T>, divide_up(count, kThreads), kThreads, context.stream,
         problem.slopes, grad_offset, count);
}

#define DEFORMOPS_INSTANTIATE(T)                                                        \
  template void roi_grad_offset<T>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                   View<const T, 4>, View<T, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

// grad_input, gathered: no atomics, the same bits every time.
//
// A block has a tile of pixels of an image and some channels that one group of bins reads. It looks
// through the boxes for those that touch the tile, 256 candidates at a time, and takes these in
// their order, some at once: a candidate is a grid of up to 8 x 8 bins that share rows and columns
// (one bin, if offsets move it). What the bins weigh the rows and columns of the tile, and the
// gradients of their means, go to shared memory; then each thread sums, for its pixel,
//     sum over the bins that touch its row, sum over those that touch its column,
//         weight * weight * gradient[channel].
//
// Bytes: the gradient of the output once for each tile that a box covers, mostly from the
// second-level cache; the gradient of the input once. Where this makes too few blocks, the boxes
// are dealt to shares, whose sums in scratch are added in their order: 4 bytes (double: 8) for each
// element of the gradient and share, at most 64 MiB.
#include <algorithm>

#include "core/context.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/roi_backward.cuh"
#include "kernels/cuda/roi_blocks.cuh"
#include "kernels/cuda/roi_taps.cuh"
#include "kernels/cuda/sums.cuh"

namespace deformops::cuda {
namespace {

constexpr int kTileThreads = 256;                 // a pixel of the tile each
constexpr int kTileWidth = 32, kTileHeight = 64;  // at most
constexpr int kGrid = 8;                          // bins on an axis of a candidate, at most
constexpr int64_t kFewBlocks = 512;
constexpr int64_t kLeastBoxes = 32;  // of a share
constexpr int64_t kShareBytes = int64_t{64} << 20;

template <class T>
struct GradInputShape {
  using C = compute_t<T>;
  static constexpr int kBlocks = sizeof(C) == 8 ? 2 : 3;     // on a multiprocessor
  static constexpr int kChannels = sizeof(C) == 8 ? 8 : 16;  // sums of a thread
  static constexpr int kPitch = kChannels + 16 / sizeof(C);  // of gradients: 16 bytes of padding
  static constexpr int kBins = sizeof(C) == 8 ? 128 : 192;   // of the candidates taken at once
  static constexpr int kWeights = sizeof(C) == 8 ? 1024 : 1536;  // theirs, of rows and columns
  static_assert(kWeights >= kGrid * (kTileWidth + kTileHeight), "one candidate at least");
};

template <class T>
struct GradInput {
  using C = compute_t<T>;

  RoiBins<T> bins;
  const RoiBox<C>* boxes;  // [K]
  View<const T, 4> grad_output;
  View<T, 4> grad_input;
  View<C, 4> sums;  // of the first share; undefined: there is but one
  int64_t share_stride, shares;

  int tile_y, tile_x, tiles_y, tiles_x;                     // pixels
  int grid_y, grid_x;                                       // bins of a candidate
  int candidates_y, candidates_x;                           // of a box, group and class
  int batch;                                                // candidates taken at once
  int64_t classes, class_channels, chunk_channels, chunks;  // of output channels
  bool vectors;

  int64_t blocks() const {
    return shares * grad_input.sizes[0] * bins.groups_y * bins.groups_x * classes * chunks *
           tiles_y * tiles_x;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    locate_boxes_kernel(const RoiBins<T> bins, int64_t batch, RoiBox<compute_t<T>>* boxes) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= bins.boxes.sizes[0]) return;
  RoiBox<compute_t<T>> box = bins.box(k);
  box.image = image_of(bins, k, batch);
  boxes[k] = box;
}

// Bins [first_y, first_y + grid_y) x [first_x, first_x + grid_x) of a box.
struct alignas(16) Candidate {
  int64_t k;
  int first_y, first_x;
};

// What a block has, and what its threads work out for each other.
template <class T>
struct GradInputMemory {
  using C = compute_t<T>;
  using Shape = GradInputShape<T>;

  int64_t image, cls, group_y, group_x, share, first_channel;
  int channels;
  int first_y, first_x, height, width;                 // the tile
  int first_bin_y, end_bin_y, first_bin_x, end_bin_x;  // those of the group

  int warp_found[kTileThreads / 32];
  Candidate found[kTileThreads];
  // Of a candidate: the lists of its grid_y rows of bins, then those of its grid_x columns.
  C weights[Shape::kWeights];       // [candidate][list][row or column of the tile]
  uint64_t touched[kTileThreads];   // [candidate][list]: which of these there are
  C divisors[kTileThreads];         // [candidate][list]
  uint8_t ranges[Shape::kWeights];  // [candidate][row, then column]: the bins that touch it
  alignas(16) C gradients[Shape::kBins * Shape::kPitch];  // [candidate][bin][channel], of the sums
};

template <class T>
__device__ __forceinline__ void open_tile(GradInputMemory<T>& memory, const GradInput<T>& problem) {
  if (threadIdx.x == 0) {
    const RoiBins<T>& bins = problem.bins;
    int64_t index = blockIdx.x;
    const auto next = [&](int64_t size) {
      const int64_t digit = index % size;
      index /= size;
      return digit;
    };
    memory.first_x = static_cast<int>(next(problem.tiles_x)) * problem.tile_x;
    memory.first_y = static_cast<int>(next(problem.tiles_y)) * problem.tile_y;
    const int64_t first = next(problem.chunks) * problem.chunk_channels;
    memory.cls = next(problem.classes);
    memory.group_x = next(bins.groups_x);
    memory.group_y = next(bins.groups_y);
    memory.image = next(problem.grad_input.sizes[0]);
    memory.share = index;
    const int64_t left = problem.class_channels - first;
    memory.first_channel = memory.cls * problem.class_channels + first;
    memory.channels =
        static_cast<int>(left < problem.chunk_channels ? left : problem.chunk_channels);
    memory.height = min(problem.tile_y, static_cast<int>(bins.height) - memory.first_y);
    memory.width = min(problem.tile_x, static_cast<int>(bins.width) - memory.first_x);
    memory.first_bin_y = first_bin(memory.group_y, bins.groups_y, bins.pooled_y);
    memory.end_bin_y = first_bin(memory.group_y + 1, bins.groups_y, bins.pooled_y);
    memory.first_bin_x = first_bin(memory.group_x, bins.groups_x, bins.pooled_x);
    memory.end_bin_x = first_bin(memory.group_x + 1, bins.groups_x, bins.pooled_x);
  }
  __syncthreads();
}

// Whether bins [first, end) of an axis may touch [begin, begin + size) of the map. True too often
// costs time only.
template <class T>
__device__ __forceinline__ bool may_touch(const RoiBins<T>& bins, const BinAxis<compute_t<T>>& axis,
                                          int end, int begin, int size) {
  using C = compute_t<T>;
  if (bins.convention.points == RoiPoints::kPixels) {
    return bins.pixels(axis.axis, end - 1, axis.size).end > begin &&
           bins.pixels(axis.axis, axis.bin, axis.size).first < begin + size;
  }
  if (axis.axis.samples == 0) return false;
  const C a = bins.position(axis.axis, axis.bin, 0, axis.move);
  const C b = bins.position(axis.axis, end - 1, axis.axis.samples - 1, axis.move);
  const C least = a < b ? a : b, most = a < b ? b : a;
  // A sample touches what is less than a pixel away, and no margin is wider.
  return most >= static_cast<C>(begin - 1) && least <= static_cast<C>(begin + size);
}

template <class T>
__device__ __forceinline__ bool may_touch(const GradInput<T>& problem,
                                          const GradInputMemory<T>& memory,
                                          const Candidate& candidate) {
  const RoiBins<T>& bins = problem.bins;
  const RoiBox<compute_t<T>>& box = problem.boxes[candidate.k];
  if (box.image != memory.image || box.state != RoiState::kUsable) return false;
  const int end_y = min(candidate.first_y + problem.grid_y, memory.end_bin_y);
  const int end_x = min(candidate.first_x + problem.grid_x, memory.end_bin_x);
  if (candidate.first_y >= end_y || candidate.first_x >= end_x) return false;
  const auto axis = [&](bool is_y) {
    return bin_axis(bins, box, is_y, candidate.k, memory.cls, candidate.first_y, candidate.first_x);
  };
  return may_touch(bins, axis(true), end_y, memory.first_y, memory.height) &&
         may_touch(bins, axis(false), end_x, memory.first_x, memory.width);
}

// Finds those of 256 candidates that may touch the tile, in their order: the ones that follow
// candidate `first` of box k.
template <class T>
__device__ __forceinline__ int find_candidates(const GradInput<T>& problem,
                                               GradInputMemory<T>& memory, int64_t k, int first,
                                               int64_t end_k) {
  const int thread = threadIdx.x, warp = thread / 32;
  const int index = first + thread;
  const int box_candidates = problem.candidates_y * problem.candidates_x;
  const int number = index % box_candidates;
  const Candidate candidate = {k + index / box_candidates,
                               memory.first_bin_y + number / problem.candidates_x * problem.grid_y,
                               memory.first_bin_x + number % problem.candidates_x * problem.grid_x};
  const bool touches = candidate.k < end_k && may_touch(problem, memory, candidate);
  const unsigned touching = __ballot_sync(~0u, touches);
  if (thread % 32 == 0) memory.warp_found[warp] = __popc(touching);
  __syncthreads();
  int before = 0, total = 0;
  for (int w = 0; w < kTileThreads / 32; ++w) {
    if (w == warp) before = total;
    total += memory.warp_found[w];
  }
  if (touches) memory.found[before + __popc(touching & ((1u << thread % 32) - 1))] = candidate;
  __syncthreads();
  return total;
}

template <class T>
__device__ __forceinline__ int weight_of(const GradInput<T>& problem, int candidate, int list,
                                         int i) {
  const int rows = problem.grid_y * problem.tile_y;
  return candidate * (rows + problem.grid_x * problem.tile_x) + i +
         (list < problem.grid_y ? list * problem.tile_y
                                : rows + (list - problem.grid_y) * problem.tile_x);
}

// What the bins of some candidates weigh the rows and columns of the tile: a list for each thread.
template <class T>
__device__ __forceinline__ void weigh_tile(const GradInput<T>& problem, GradInputMemory<T>& memory,
                                           const Candidate* candidates, int count) {
  using C = compute_t<T>;
  const int lists = problem.grid_y + problem.grid_x;
  if (static_cast<int>(threadIdx.x) >= count * lists) return;
  const RoiBins<T>& bins = problem.bins;
  const int number = threadIdx.x / lists, list = threadIdx.x % lists;
  const Candidate& candidate = candidates[number];
  const bool is_y = list < problem.grid_y;
  const int bin_y = candidate.first_y + (is_y ? list : 0);
  const int bin_x = candidate.first_x + (is_y ? 0 : list - problem.grid_y);
  uint64_t touched = 0;
  C divisor = C(1);
  if (bin_y < memory.end_bin_y && bin_x < memory.end_bin_x) {
    const RoiBox<C>& box = problem.boxes[candidate.k];
    const BinAxis<C> axis = bin_axis(bins, box, is_y, candidate.k, memory.cls, bin_y, bin_x);
    const BinReach reach = reach_of(bins, box.state, axis);
    const int begin = is_y ? memory.first_y : memory.first_x;
    const int size = is_y ? memory.height : memory.width;
    C* const weights = memory.weights + weight_of(problem, number, list, 0);
    for_each_tap<1>(bins, axis, reach.first, reach.count, [&](int index, const C(&weight)[1]) {
      const int i = index - begin;
      if (i < 0 || i >= size) return;
      const bool is_new = (touched >> i & 1) == 0;
      weights[i] = (is_new ? C(0) : weights[i]) + weight[0];
      touched |= uint64_t{1} << i;
    });
    divisor = divisor_of(bins, axis.axis, reach);
  }
  memory.touched[threadIdx.x] = touched;
  memory.divisors[threadIdx.x] = divisor;
}

// Which bins touch each row and column of the tile: neighbours, if any.
template <class T>
__device__ __forceinline__ void find_ranges(const GradInput<T>& problem, GradInputMemory<T>& memory,
                                            int count) {
  const int lines = problem.tile_y + problem.tile_x;
  const int lists = problem.grid_y + problem.grid_x;
  for (int i = threadIdx.x; i < count * lines; i += kTileThreads) {
    const int number = i / lines, line = i % lines;
    const bool is_y = line < problem.tile_y;
    const int bit = is_y ? line : line - problem.tile_y;
    const int bins = is_y ? problem.grid_y : problem.grid_x;
    const uint64_t* const touched = memory.touched + number * lists + (is_y ? 0 : problem.grid_y);
    int first = 0, end = 0;
    for (int bin = 0; bin < bins; ++bin) {
      if ((touched[bin] >> bit & 1) == 0) continue;
      if (end == 0) first = bin;
      end = bin + 1;
    }
    memory.ranges[i] = static_cast<uint8_t>(first | end << 4);
  }
}

// The gradients of the sums over bins: a bin for each thread.
template <class T>
__device__ __forceinline__ void load_gradients(const GradInput<T>& problem,
                                               GradInputMemory<T>& memory,
                                               const Candidate* candidates, int count) {
  using C = compute_t<T>;
  using Shape = GradInputShape<T>;
  const int grid = problem.grid_y * problem.grid_x;
  if (static_cast<int>(threadIdx.x) >= count * grid) return;
  const int number = threadIdx.x / grid;
  const int y = threadIdx.x % grid / problem.grid_x, x = threadIdx.x % grid % problem.grid_x;
  const Candidate& candidate = candidates[number];
  const int bin_y = candidate.first_y + y, bin_x = candidate.first_x + x;
  if (bin_y >= memory.end_bin_y || bin_x >= memory.end_bin_x) return;

  const int64_t stride = problem.grad_output.strides[1];
  const T* const from =
      problem.grad_output.pointer(candidate.k, memory.first_channel, bin_y, bin_x);
  T gradients[Shape::kChannels];
  if (problem.vectors && memory.channels == Shape::kChannels) {
    load_run(gradients, from);
  } else {
#pragma unroll
    for (int c = 0; c < Shape::kChannels; ++c) {
      gradients[c] = c < memory.channels ? from[c * stride] : T{};
    }
  }
  const C* const divisors = memory.divisors + number * (problem.grid_y + problem.grid_x);
  const C share = C(1) / (divisors[y] * divisors[problem.grid_y + x]);
  C of_sums[Shape::kChannels];
#pragma unroll
  for (int c = 0; c < Shape::kChannels; ++c) of_sums[c] = share * static_cast<C>(gradients[c]);
  store_run(memory.gradients + threadIdx.x * Shape::kPitch, of_sums);
}

// Adds what some candidates give to a pixel of the tile.
template <class T>
__device__ __forceinline__ void add_candidates(compute_t<T> (&sums)[GradInputShape<T>::kChannels],
                                               const GradInput<T>& problem,
                                               const GradInputMemory<T>& memory, int count, int row,
                                               int column) {
  using C = compute_t<T>;
  using Shape = GradInputShape<T>;
  const int lines = problem.tile_y + problem.tile_x;
#pragma unroll 1
  for (int number = 0; number < count; ++number) {
    const int rows = memory.ranges[number * lines + row];
    const int columns = memory.ranges[number * lines + problem.tile_y + column];
#pragma unroll 1
    for (int y = rows & 15; y < rows >> 4; ++y) {
      const C weight_y = memory.weights[weight_of(problem, number, y, row)];
#pragma unroll 1
      for (int x = columns & 15; x < columns >> 4; ++x) {
        const C weight =
            weight_y * memory.weights[weight_of(problem, number, problem.grid_y + x, column)];
        const int bin = (number * problem.grid_y + y) * problem.grid_x + x;
        C gradients[Shape::kChannels];
        load_run(gradients, memory.gradients + bin * Shape::kPitch);
#pragma unroll
        for (int c = 0; c < Shape::kChannels; ++c) sums[c] += weight * gradients[c];
      }
    }
  }
}

// To a run of channels of a pixel.
template <class To, int kChannels, class C>
__device__ __forceinline__ void store_sums(To* to, int64_t stride, const C (&sums)[kChannels],
                                           int channels, bool vectors) {
  To values[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) values[c] = round_to<To>(sums[c]);
  if (vectors && channels == kChannels) {
    store_run(to, values);
  } else {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (c < channels) to[c * stride] = values[c];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kTileThreads, GradInputShape<T>::kBlocks)
    roi_grad_input_kernel(const GradInput<T> problem) {
  using C = compute_t<T>;
  using Shape = GradInputShape<T>;

  __shared__ GradInputMemory<T> memory;

  open_tile(memory, problem);
  const int row = threadIdx.x / problem.tile_x, column = threadIdx.x % problem.tile_x;
  const bool inside = row < memory.height && column < memory.width;
  C sums[Shape::kChannels] = {};

  const int64_t boxes = problem.bins.boxes.sizes[0];
  const int64_t end_k = boxes * (memory.share + 1) / problem.shares;
  const int box_candidates = problem.candidates_y * problem.candidates_x;
  int64_t k = boxes * memory.share / problem.shares;
  int first = 0;  // candidate of box k
  while (k < end_k) {
    const int found = find_candidates(problem, memory, k, first, end_k);
    for (int taken = 0; taken < found; taken += problem.batch) {
      const Candidate* const candidates = memory.found + taken;
      const int count = min(problem.batch, found - taken);
      weigh_tile(problem, memory, candidates, count);
      __syncthreads();
      find_ranges(problem, memory, count);
      load_gradients(problem, memory, candidates, count);
      __syncthreads();
      if (inside) add_candidates(sums, problem, memory, count, row, column);
      __syncthreads();
    }
    first += kTileThreads;
    k += first / box_candidates;
    first %= box_candidates;
  }
  if (!inside) return;

  const RoiBins<T>& bins = problem.bins;
  const int64_t y = memory.first_y + row, x = memory.first_x + column;
  const int64_t groups = bins.groups_y * bins.groups_x;
  const int64_t channel =
      (memory.first_channel * bins.groups_y + memory.group_y) * bins.groups_x + memory.group_x;
  if (problem.sums.defined()) {
    store_sums(
        problem.sums.pointer(memory.image, channel, y, x) + memory.share * problem.share_stride,
        groups * problem.sums.strides[1], sums, memory.channels, problem.vectors);
  } else {
    store_sums(problem.grad_input.pointer(memory.image, channel, y, x),
               groups * problem.grad_input.strides[1], sums, memory.channels, problem.vectors);
  }
}

// grad_input = the sum over the shares, in their order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_box_shares_kernel(const compute_t<T>* sums, T* grad_input, int64_t count, int64_t shares) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  compute_t<T> sum = sums[i];
  for (int64_t share = 1; share < shares; ++share) sum += sums[share * count + i];
  grad_input[i] = round_to<T>(sum);
}

}  // namespace

template <class T>
void roi_grad_input(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                    View<T, 4> grad_input) {
  using C = compute_t<T>;
  using Shape = GradInputShape<T>;
  check_sizes(bins);
  GradInput<T> problem = {};
  problem.bins = bins;
  problem.grad_output = grad_output;
  problem.grad_input = grad_input;

  const int height = static_cast<int>(bins.height), width = static_cast<int>(bins.width);
  const auto divide = [](int64_t count, int64_t by) {
    return static_cast<int>(divide_up(count, by));
  };
  problem.tiles_x = divide(width, kTileWidth);
  problem.tile_x = divide(width, problem.tiles_x);
  problem.tiles_y = divide(height, std::min(kTileHeight, kTileThreads / problem.tile_x));
  problem.tile_y = divide(height, problem.tiles_y);

  const bool moved = bins.offset.defined();
  const auto split = [&](int64_t pooled, int64_t groups, int& grid, int& candidates) {
    const int group_bins = divide(pooled, groups);
    grid = moved ? 1 : divide(group_bins, divide(group_bins, kGrid));
    candidates = divide(group_bins, grid);
  };
  split(bins.pooled_y, bins.groups_y, problem.grid_y, problem.candidates_y);
  split(bins.pooled_x, bins.groups_x, problem.grid_x, problem.candidates_x);
  problem.batch = std::min(
      {Shape::kBins / (problem.grid_y * problem.grid_x),
       Shape::kWeights / (problem.grid_y * problem.tile_y + problem.grid_x * problem.tile_x),
       kTileThreads / (problem.grid_y + problem.grid_x)});

  problem.classes = bins.classes();
  problem.class_channels = bins.channels_per_class();
  problem.vectors = bins.groups_y * bins.groups_x == 1 &&
                    has_channel_vectors(grad_output, problem.class_channels) &&
                    has_channel_vectors(grad_input, problem.class_channels);
  problem.chunks = divide_up(problem.class_channels, Shape::kChannels);
  problem.chunk_channels =
      problem.vectors ? Shape::kChannels : divide_up(problem.class_channels, problem.chunks);

  if (!is_dense(grad_input)) throw std::invalid_argument("grad_input: expected a dense view");
  problem.shares = 1;
  const int64_t count = count_of(grad_input);
  const int64_t most_shares = std::min(bins.boxes.sizes[0] / kLeastBoxes,
                                       kShareBytes / (count * static_cast<int64_t>(sizeof(C))));
  problem.shares =
      std::clamp<int64_t>(kFewBlocks / problem.blocks(), 1, std::max<int64_t>(most_shares, 1));
  if (problem.shares > 1) {
    problem.share_stride = count;
    problem.sums.data = context.scratch->allocate_array<C>(problem.shares * count);
    std::copy(grad_input.sizes, grad_input.sizes + 4, problem.sums.sizes);
    std::copy(grad_input.strides, grad_input.strides + 4, problem.sums.strides);
  }
  const int64_t boxes = bins.boxes.sizes[0];
  RoiBox<C>* const located = context.scratch->allocate_array<RoiBox<C>>(boxes);
  problem.boxes = located;
  launch("locate_boxes", locate_boxes_kernel<T>, divide_up(boxes, kThreads), kThreads,
         context.stream, bins, grad_input.sizes[0], located);
  launch("roi_grad_input", roi_grad_input_kernel<T>, problem.blocks(), kTileThreads, context.stream,
         problem);
  if (problem.shares > 1) {
    launch("sum_box_shares", sum_box_shares_kernel<T>, divide_up(count, kThreads), kThreads,
           context.stream, problem.sums.data, grad_input.data, count, problem.shares);
  }
}

#define DEFORMOPS_INSTANTIATE(T) \
  template void roi_grad_input<T>(const Context&, const RoiBins<T>&, View<const T, 4>, View<T, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

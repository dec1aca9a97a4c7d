// The form M(input, grad_output; index) = <grad_output, input[index]>: gather_maxima and its
// transpose.
//
// A thread has a bin of a box and a channel. Bytes of either: index and output (or its gradient)
// once, and a sector of 32 bytes of the map for each. The transpose adds atomically; in
// deterministic mode a warp has a channel of an image and adds what it gets, box after box.
#include "core/context.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/roi_blocks.cuh"
#include "kernels/cuda/sums.cuh"
#include "kernels/roi_pooling.h"

namespace deformops::cuda {
namespace {

// Gathers from a map of const T into the pooled numbers, or scatters those into a map of sums.
template <class T, class Map, class Pooled>
struct Maxima {
  RoiBins<T> bins;
  View<Map, 4> map;
  View<Pooled, 4> pooled;
  View<const int32_t, 4> index;  // one of these two
  View<const int64_t, 4> wide_index;
  BinBlocks blocks;
  bool along_channels;

  // The largest pixel of a bin; null: there is none.
  __device__ __forceinline__ Map* maximum(int64_t image, int64_t k, int64_t channel, int bin_y,
                                          int bin_x) const {
    const int64_t at = wide_index.defined() ? wide_index(k, channel, bin_y, bin_x)
                                            : index(k, channel, bin_y, bin_x);
    if (at == -1) return nullptr;
    DEFORMOPS_REQUIRE(at >= 0 && at < map.sizes[2] * map.sizes[3],
                      "index: not the number of a pixel");
    return map.pointer(image, channel, at / map.sizes[3], at % map.sizes[3]);
  }
};

template <class T, class Map, class Pooled>
__global__ void __launch_bounds__(kThreads)
    move_maxima_kernel(const Maxima<T, Map, Pooled> problem) {
  __shared__ BinBlock block;
  problem.blocks.open(block, problem.bins, problem.map.sizes[0]);
  const BinItems items = {block.bins(), block.channels, problem.along_channels};
  for (int item = threadIdx.x; item < items.count(); item += kThreads) {
    const int bin = items.bin_of(item), bin_y = block.y_of(bin), bin_x = block.x_of(bin);
    const int64_t channel = block.first_channel + items.unit_of(item);
    Map* const pixel = problem.maximum(block.image, block.k, channel, bin_y, bin_x);
    Pooled& pooled = problem.pooled(block.k, channel, bin_y, bin_x);
    if constexpr (std::is_const_v<Map>) {
      pooled = pixel == nullptr ? T{} : *pixel;
    } else {
      if (pixel != nullptr) atomicAdd(pixel, static_cast<Map>(pooled));
    }
  }
}

// A warp has a channel of an image and takes its boxes one after the other, 32 bins at a time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_maxima_in_order_kernel(const Maxima<T, compute_t<T>, const T> problem) {
  using C = compute_t<T>;
  const int64_t channels = problem.map.sizes[1];
  const int64_t plane = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int64_t image = plane / channels, channel = plane % channels;
  if (image >= problem.map.sizes[0]) return;  // all lanes of the warp

  const int lane = threadIdx.x % 32;
  const unsigned lower_lanes = (1u << lane) - 1;
  const int64_t boxes = problem.bins.boxes.sizes[0];
  const int width = static_cast<int>(problem.bins.pooled_x);
  const int bins = static_cast<int>(problem.bins.pooled_y) * width;
  for (int64_t first = 0; first < boxes; first += 32) {
    const int64_t mine = first + lane;
    unsigned left = __ballot_sync(
        ~0u, mine < boxes && image_of(problem.bins, mine, problem.map.sizes[0]) == image);
    for (; left != 0; left &= left - 1) {
      const int64_t k = first + __ffs(static_cast<int>(left)) - 1;
      for (int first_bin = 0; first_bin < bins; first_bin += 32) {
        const int bin = first_bin + lane;
        C* pixel = nullptr;
        C value = C(0);
        if (bin < bins) {
          pixel = problem.maximum(image, k, channel, bin / width, bin % width);
          value = static_cast<C>(problem.pooled(k, channel, bin / width, bin % width));
        }
        // Bins that found the same pixel take turns.
        const unsigned same = __match_any_sync(~0u, reinterpret_cast<unsigned long long>(pixel));
        const int turn = __popc(same & lower_lanes);
        for (int now = 0; __any_sync(~0u, pixel != nullptr && turn >= now); ++now) {
          if (pixel != nullptr && turn == now) *pixel += value;
          __syncwarp();
        }
      }
    }
  }
}

template <class T, class Map, class Pooled, class Index>
Maxima<T, Map, Pooled> maxima(const RoiBins<T>& bins, const View<Map, 4>& map,
                              const View<Pooled, 4>& pooled, const View<const Index, 4>& index) {
  Maxima<T, Map, Pooled> problem = {};
  problem.bins = bins;
  problem.map = map;
  problem.pooled = pooled;
  if constexpr (sizeof(Index) == sizeof(int64_t)) {
    problem.wide_index = index;
  } else {
    problem.index = index;
  }
  problem.blocks = deal_bins(bins);
  problem.along_channels = lanes_of(pooled) == Lanes::kChannels;
  return problem;
}

}  // namespace

template <class T, class Index>
bool gather_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> input,
                   View<const Index, 4> index, View<T, 4> output) {
  const auto problem = maxima(bins, input, output, index);
  launch("gather_maxima", move_maxima_kernel<T, const T, T>, problem.blocks.count(), kThreads,
         context.stream, problem);
  return true;
}

template <class T, class Index>
bool scatter_maxima(const Context& context, const RoiBins<T>& bins, View<const T, 4> grad_output,
                    View<const Index, 4> index, View<T, 4> grad_input) {
  using C = compute_t<T>;
  const InputSums<T> sums(context, grad_input);
  const auto problem = maxima(bins, sums.view(), grad_output, index);
  if (context.deterministic) {
    const int64_t planes = grad_input.sizes[0] * grad_input.sizes[1];
    launch("add_maxima_in_order", add_maxima_in_order_kernel<T>, divide_up(planes, kWarps),
           kThreads, context.stream, problem);
  } else {
    launch("scatter_maxima", move_maxima_kernel<T, C, const T>, problem.blocks.count(), kThreads,
           context.stream, problem);
  }
  sums.finish();
  return true;
}

#define DEFORMOPS_INSTANTIATE_INDEX(T, Index)                                                 \
  template bool gather_maxima<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>,  \
                                        View<const Index, 4>, View<T, 4>);                    \
  template bool scatter_maxima<T, Index>(const Context&, const RoiBins<T>&, View<const T, 4>, \
                                         View<const Index, 4>, View<T, 4>)
#define DEFORMOPS_INSTANTIATE(T)           \
  DEFORMOPS_INSTANTIATE_INDEX(T, int32_t); \
  DEFORMOPS_INSTANTIATE_INDEX(T, int64_t)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

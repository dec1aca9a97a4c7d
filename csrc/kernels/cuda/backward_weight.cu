// The gradient of the weight: grad_weight = grad_output . (mask * gather(input))^T.
//
// A block has a tile of kM output channels x kN rows (channel, tap) and a share of the pixels of
// all images. Along the pixels it walks in steps of kK: gradients are loaded, columns are sampled
// as in the forward pass, and multiplied. Shares are there to fill the device; each leaves its sums
// in scratch, and a second kernel adds them up in order: no atomics, the same bits every time.
//
// Flops: those of the forward pass. Per step a block reads kM * kK gradients and takes kN * kK
// samples. Scratch: one number in float (or double) per share and weight, at most kShareBytes
// unless one share needs more.
#include "kernels/cuda/backward.cuh"
#include "kernels/cuda/gradient_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layout.cuh"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/sums.cuh"
#include "kernels/cuda/taps.cuh"

namespace deformops::cuda {
namespace {

constexpr int kMaxTileTaps = 4;
constexpr int64_t kShareBytes = int64_t{64} << 20;
constexpr int64_t kBlocks =
    1024;  // enough for every GPU; not asked of it, so that sums are the same

// Pixels whose stencils are worked out together, several steps at once.
template <class T>
constexpr int kSpan = 512 / sizeof(compute_t<T>);

template <class T>
struct BackwardWeight {
  using C = compute_t<T>;

  SampledWindow<T> window;
  View<const T, 4> grad_output;
  View<const T, 4> input;
  C* partial;   // [shares, taps, O, C / groups]
  Plane plane;  // of the input
  bool vectors;
  Lanes grad_output_lanes;
  RowTiling tiling;
  int64_t group_channels, group_outputs, outputs, offset_group_channels;
  int m_tiles;
  int64_t row_tiles, spans, image_spans, shares;
};

template <class M, Lanes kLanes>
__global__ void __launch_bounds__(kThreads, 3)
    backward_weight_kernel(const BackwardWeight<typename M::T> problem) {
  using T = typename M::T;
  using C = typename M::C;
  using Shape = Tile<T>;
  constexpr bool kAlongChannels = kLanes == Lanes::kChannels;
  static_assert(kSpan<T> % Shape::kK == 0, "a span is a number of steps");

  __shared__ TileMemory<T> memory;
  __shared__ TapTable<C, kMaxTileTaps, kSpan<T>> table;

  const RowTiling& tiling = problem.tiling;
  int64_t block = blockIdx.x;
  const int m_tile = static_cast<int>(block % problem.m_tiles);
  block /= problem.m_tiles;
  const int64_t row_tile = block % problem.row_tiles, share = block / problem.row_tiles;

  const int first_tap = static_cast<int>(row_tile % tiling.tap_tiles) * tiling.tile_taps;
  const int chunk = static_cast<int>(row_tile / tiling.tap_tiles % tiling.chunks);
  const int64_t segment = row_tile / tiling.tap_tiles / tiling.chunks;
  const int64_t channel = segment * tiling.segment + (chunk << tiling.shift);
  const int64_t group = channel / problem.group_channels;
  const int64_t offset_group = channel / problem.offset_group_channels;
  const int taps = min(tiling.tile_taps, tiling.taps - first_tap);
  const int channels = tiling.chunk_channels(chunk);
  const int64_t first_output = static_cast<int64_t>(m_tile) * Shape::kM;  // of the group
  const int64_t outputs = problem.group_outputs - first_output;

  Operands<T>& operands = memory.operands;
  Product<M, !kAlongChannels> product;
  product.clear();

  constexpr int kSteps = kSpan<T> / Shape::kK;
  const int64_t first = share * problem.spans / problem.shares * kSteps;
  const int64_t end = (share + 1) * problem.spans / problem.shares * kSteps;
  for (int64_t step = first; step <= end; ++step) {
    if (step < end) {
      const int64_t span = step / kSteps;
      const int offset = static_cast<int>(step % kSteps) * Shape::kK;
      const int64_t n = span / problem.image_spans;
      const int first_pixel = static_cast<int>(span % problem.image_spans) * kSpan<T>;
      T* a = operands.a[step % 2];
      T* b = operands.b[step % 2];
      if (offset == 0) {
        fill_taps(table, problem.window, n, offset_group, first_tap, taps, first_pixel);
        __syncthreads();
      }
      load_gradients<M, Shape::kM, Shape::kK, Shape::kPitchK>(
          a, problem.grad_output, problem.grad_output_lanes, n,
          group * problem.group_outputs + first_output, outputs, first_pixel + offset);
      const Source<const T> source = {problem.input.pointer(n, channel), problem.input.strides[1],
                                      problem.vectors};
      const RowTile rows = {channels, taps, 0, offset};
      if constexpr (kAlongChannels) {
        sample_along_channels<M, Shape::kN, Shape::kK, Shape::kPitchN>(b, table, source,
                                                                       problem.plane, tiling, rows);
      } else {
        sample_along_pixels<M, Shape::kN, Shape::kK, Shape::kPitchK>(b, table, source,
                                                                     problem.plane, tiling, rows);
      }
    }
    if (step > first) product.multiply(operands.a[(step - 1) % 2], operands.b[(step - 1) % 2]);
    __syncthreads();
  }

#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    product.store(memory.stage, half);
    __syncthreads();
    for (int i = threadIdx.x; i < Shape::kStageRows * Shape::kN; i += kThreads) {
      const int64_t output = half * Shape::kStageRows + i / Shape::kN;
      const int row = i % Shape::kN;
      if (output >= outputs || tiling.tap_of(row) >= taps || tiling.channel_of(row) >= channels) {
        continue;
      }
      const int64_t tap = share * tiling.taps + first_tap + tiling.tap_of(row);
      const int64_t weight = group * problem.group_outputs + first_output + output;
      problem.partial[(tap * problem.outputs + weight) * problem.group_channels +
                      channel % problem.group_channels + tiling.channel_of(row)] =
          memory.stage[i / Shape::kN * Shape::kStagePitch + row];
    }
    __syncthreads();
  }
}

// grad_weight(output, channel, tap) = sum over the shares of partial [shares, taps, O, C / groups].
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_shares_kernel(const compute_t<T>* partial, int64_t shares, View<T, 4> grad_weight) {
  const int64_t channels = grad_weight.sizes[1], outputs = grad_weight.sizes[0];
  const int64_t width = grad_weight.sizes[3];
  const int64_t count = outputs * channels * grad_weight.sizes[2] * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  compute_t<T> sum = 0;
  for (int64_t share = 0; share < shares; ++share) sum += partial[share * count + i];
  const int64_t tap = i / channels / outputs;
  grad_weight(i / channels % outputs, i % channels, tap / width, tap % width) = round_to<T>(sum);
}

template <class M>
void run(const Context& context, const SampledWindow<typename M::T>& window,
         View<const typename M::T, 4> grad_output, View<const typename M::T, 4> input,
         View<typename M::T, 4> grad_weight) {
  using T = typename M::T;
  using C = typename M::C;
  using Shape = Tile<T>;
  const Channels channels =
      split_channels(input.sizes[1], grad_weight.sizes[1], window.offset_groups);
  const RowTiling tiling = tile_rows(channels.segment, window.taps(), Shape::kN,
                                     std::max(Shape::kN / kMaxTileTaps, Shape::kVector));

  BackwardWeight<T> problem = {};
  problem.window = window;
  problem.grad_output = grad_output;
  problem.input = input;
  problem.plane = plane_of(input);
  problem.vectors = has_vectors(input, channels.segment);
  problem.grad_output_lanes = lanes_of(grad_output);
  problem.tiling = tiling;
  problem.group_channels = channels.group_channels;
  problem.outputs = grad_weight.sizes[0];
  problem.group_outputs = problem.outputs / channels.groups;
  problem.offset_group_channels = channels.offset_group_channels;
  problem.m_tiles = static_cast<int>(divide_up(problem.group_outputs, Shape::kM));
  problem.row_tiles = channels.segments() * tiling.chunks * tiling.tap_tiles;
  problem.image_spans = tile_pixels(window, kSpan<T>);
  problem.spans = input.sizes[0] * problem.image_spans;

  const int64_t weights = count_of(grad_weight);
  const int64_t tiles = problem.row_tiles * problem.m_tiles;
  problem.shares =
      std::max<int64_t>(1, std::min({divide_up(kBlocks, tiles), problem.spans,
                                     kShareBytes / (weights * static_cast<int64_t>(sizeof(C)))}));
  problem.partial = context.scratch->allocate_array<C>(problem.shares * weights);

  const auto kernel = lanes_of(input) == Lanes::kChannels
                          ? backward_weight_kernel<M, Lanes::kChannels>
                          : backward_weight_kernel<M, Lanes::kPixels>;
  launch("backward_weight", kernel, tiles * problem.shares, kThreads, context.stream, problem);
  launch("sum_shares", sum_shares_kernel<T>, divide_up(weights, kThreads), kThreads, context.stream,
         problem.partial, problem.shares, grad_weight);
}

}  // namespace

template <class T>
void backward_weight(const Context& context, const SampledWindow<T>& window,
                     View<const T, 4> grad_output, View<const T, 4> input, View<T, 4> grad_weight) {
  if (count_of(grad_weight) == 0) return;
  if constexpr (std::is_same_v<T, float>) {
    if (!context.allow_tf32) {
      return run<Math<T, false>>(context, window, grad_output, input, grad_weight);
    }
  }
  run<Math<T, !std::is_same_v<T, double>>>(context, window, grad_output, input, grad_weight);
}

#define DEFORMOPS_INSTANTIATE(T)                                                              \
  template void backward_weight<T>(const Context&, const SampledWindow<T>&, View<const T, 4>, \
                                   View<const T, 4>, View<T, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

// Forward: output = bias + W . (mask * gather(input)), in one kernel.
//
// A block computes a tile of kM output channels x kN pixels. Along the reduction it walks over
// tiles of kK rows (channel, tap): the weights come as asynchronous copies, the columns are sampled
// from the input straight into shared memory, and the product is taken while the next tiles arrive.
// Columns never exist in global memory.
//
// Per block and step, for half: 2 * 128 * 64 * 32 flops; 8 KiB of weights from the second-level
// cache; 32 * 64 samples, each 4 reads of the input and 4 multiply-adds. Taps overlap, so most of
// the reads hit the first-level cache: per block the input of its pixels comes once (plus a halo)
// from beyond. The samples are shared by 128 output channels; the coordinates and weights of a tap
// by all channels.
#include "core/context.h"
#include "kernels/convolution.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layout.cuh"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/taps.cuh"
#include "kernels/cuda/weights.cuh"

namespace deformops::cuda {
namespace {

template <class T>
struct Forward {
  SampledWindow<T> window;
  View<const T, 4> input;
  View<const T, 1> bias;
  View<T, 4> output;
  const T* weight;  // packed
  Plane plane;      // of the input
  bool vectors;
  Lanes output_lanes;
  RowTiling tiling;
  int64_t groups, group_outputs, group_segments;
  int64_t group_channels, offset_group_channels;
  int steps, m_tiles, pixel_tiles;
};

// Rows of the stage, which begin with output channel `first_output`, to the output, plus the bias.
// Lanes run along whichever of pixels and channels lies side by side.
template <class T>
__device__ __forceinline__ void store_outputs(const Forward<T>& problem, const compute_t<T>* stage,
                                              int64_t n, int64_t first_output, int64_t outputs,
                                              int first_pixel) {
  using C = compute_t<T>;
  using Shape = Tile<T>;
  const View<T, 4>& output = problem.output;
  const int width = static_cast<int>(problem.window.x.output);
  const int pixels = static_cast<int>(problem.window.pixels()) - first_pixel;
  const bool has_bias = problem.bias.defined();
  if (problem.output_lanes == Lanes::kPixels) {
    const int column = threadIdx.x % Shape::kN, pixel = first_pixel + column;
    if (column >= pixels) return;
    T* to = output.pointer(n, first_output, pixel / width, pixel % width);
#pragma unroll 4
    for (int row = threadIdx.x / Shape::kN; row < Shape::kStageRows; row += kThreads / Shape::kN) {
      if (row >= outputs) return;
      C value = stage[row * Shape::kStagePitch + column];
      if (has_bias) value += static_cast<C>(problem.bias(first_output + row));
      to[row * output.strides[1]] = round_to<T>(value);
    }
  } else {
    const int row = threadIdx.x % Shape::kStageRows;
    if (row >= outputs) return;
    T* to = output.pointer(n, first_output + row);
    const C bias = has_bias ? static_cast<C>(problem.bias(first_output + row)) : C(0);
#pragma unroll 4
    for (int column = threadIdx.x / Shape::kStageRows; column < Shape::kN;
         column += kThreads / Shape::kStageRows) {
      if (column >= pixels) return;
      const int pixel = first_pixel + column;
      to[pixel / width * output.strides[2] + pixel % width * output.strides[3]] =
          round_to<T>(stage[row * Shape::kStagePitch + column] + bias);
    }
  }
}

template <class M, Lanes kLanes>
__global__ void __launch_bounds__(kThreads, 3)
    deform_conv2d_kernel(const Forward<typename M::T> problem) {
  using T = typename M::T;
  using C = typename M::C;
  using Shape = Tile<T>;
  constexpr bool kAlongChannels = kLanes == Lanes::kChannels;

  __shared__ TileMemory<T> memory;
  __shared__ TapTable<C, RowWalk::kBlockTaps, Shape::kN> table;

  // Blocks of the same pixels run side by side: they read the same input.
  int64_t block = blockIdx.x;
  const int m_tile = static_cast<int>(block % problem.m_tiles);
  block /= problem.m_tiles;
  const int first_pixel = static_cast<int>(block % problem.pixel_tiles) * Shape::kN;
  block /= problem.pixel_tiles;
  const int64_t group = block % problem.groups, n = block / problem.groups;

  const RowTiling& tiling = problem.tiling;
  const T* image = problem.input.pointer(n, group * problem.group_channels);
  const T* packed = problem.weight + (group * problem.m_tiles + m_tile) * problem.steps *
                                         static_cast<int64_t>(Shape::kM * Shape::kK);
  Operands<T>& operands = memory.operands;
  Product<M, kAlongChannels> product;
  product.clear();

  // One barrier a step: what step s writes was last read by the product of step s - 2.
  RowWalk walk;
  for (int step = 0; step <= problem.steps; ++step) {
    if (step < problem.steps) {
      T* a = operands.a[step % 2];
      T* b = operands.b[step % 2];
      stage_weights(a, packed + static_cast<int64_t>(step) * Shape::kM * Shape::kK);
      const int64_t channel = static_cast<int64_t>(walk.segment) * tiling.segment;
      if (walk.starts_block()) {
        const int64_t offset_group =
            (group * problem.group_channels + channel) / problem.offset_group_channels;
        fill_taps(table, problem.window, n, offset_group, walk.block,
                  walk.block_end(tiling) - walk.block, first_pixel);
        __syncthreads();
      }
      const Source<const T> source = {
          image + (channel + (walk.chunk << tiling.shift)) * problem.input.strides[1],
          problem.input.strides[1], problem.vectors};
      const RowTile rows = {tiling.chunk_channels(walk.chunk), walk.tile_taps(tiling),
                            walk.tap - walk.block, 0};
      if constexpr (kAlongChannels) {
        sample_along_channels<M, Shape::kK, Shape::kN, Shape::kPitchK>(b, table, source,
                                                                       problem.plane, tiling, rows);
      } else {
        sample_along_pixels<M, Shape::kK, Shape::kN, Shape::kPitchN>(b, table, source,
                                                                     problem.plane, tiling, rows);
      }
      walk.advance(tiling);
    }
    if (step > 0) product.multiply(operands.a[(step - 1) % 2], operands.b[(step - 1) % 2]);
    copy_async_wait();
    __syncthreads();
  }

#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    product.store(memory.stage, half);
    __syncthreads();
    const int64_t first = static_cast<int64_t>(m_tile) * Shape::kM + half * Shape::kStageRows;
    store_outputs(problem, memory.stage, n, group * problem.group_outputs + first,
                  problem.group_outputs - first, first_pixel);
    __syncthreads();
  }
}

template <class M>
void run(const Context& context, const SampledWindow<typename M::T>& window,
         View<const typename M::T, 4> input, View<const typename M::T, 4> weight,
         View<const typename M::T, 1> bias, View<typename M::T, 4> output) {
  using T = typename M::T;
  using Shape = Tile<T>;
  const Channels channels = split_channels(input.sizes[1], weight.sizes[1], window.offset_groups);
  const RowTiling tiling =
      tile_rows(channels.segment, window.taps(), Shape::kK, std::max(4, Shape::kVector));

  Forward<T> problem = {};
  problem.window = window;
  problem.input = input;
  problem.bias = bias;
  problem.output = output;
  problem.plane = plane_of(input);
  problem.vectors = has_vectors(input, channels.segment);
  problem.output_lanes = lanes_of(output);
  problem.tiling = tiling;
  problem.groups = channels.groups;
  problem.group_outputs = weight.sizes[0] / channels.groups;
  problem.group_segments = channels.group_segments();
  problem.group_channels = channels.group_channels;
  problem.offset_group_channels = channels.offset_group_channels;
  problem.steps = static_cast<int>(walk_length(tiling, channels.group_segments()));
  problem.m_tiles = static_cast<int>(divide_up(problem.group_outputs, Shape::kM));
  problem.pixel_tiles = tile_pixels(window, Shape::kN);

  if (problem.steps > 0) {
    const int64_t tiles = problem.groups * problem.m_tiles;
    T* packed = context.scratch->allocate_array<T>(tiles * problem.steps * Shape::kM * Shape::kK);
    const int walkers = std::min(problem.steps, 64);
    launch("pack_weight", pack_weight_kernel<M>, tiles * walkers, kThreads, context.stream,
           WeightReader<T>{weight}, tiling, problem.steps, walkers, problem.m_tiles,
           problem.group_outputs, packed);
    problem.weight = packed;
  }
  const int64_t blocks = output.sizes[0] * problem.groups * problem.pixel_tiles * problem.m_tiles;
  const auto kernel = lanes_of(input) == Lanes::kChannels
                          ? deform_conv2d_kernel<M, Lanes::kChannels>
                          : deform_conv2d_kernel<M, Lanes::kPixels>;
  launch("deform_conv2d", kernel, blocks, kThreads, context.stream, problem);
}

}  // namespace

template <class T>
void deform_conv2d(const Context& context, const SampledWindow<T>& window, View<const T, 4> input,
                   View<const T, 4> weight, View<const T, 1> bias, View<T, 4> output) {
  if constexpr (std::is_same_v<T, float>) {
    if (!context.allow_tf32) {
      return run<Math<T, false>>(context, window, input, weight, bias, output);
    }
  }
  run<Math<T, !std::is_same_v<T, double>>>(context, window, input, weight, bias, output);
}

#define DEFORMOPS_INSTANTIATE(T)                                                            \
  template void deform_conv2d<T>(const Context&, const SampledWindow<T>&, View<const T, 4>, \
                                 View<const T, 4>, View<const T, 1>, View<T, 4>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

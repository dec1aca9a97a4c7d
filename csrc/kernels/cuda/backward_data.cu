// Gradients of input, offset and mask.
//
// With the columns' gradient d = W^T . grad_output,
//     grad_input = scatter(mask * d),   grad_mask = sum over channels of d * gather(input),
// and grad_offset = mask * (the same at one order more). A block has a tile of kN pixels and a few
// taps of one offset group. For every kM rows (channel, tap) it forms d by a product over the
// output channels, then scatters and contracts it from shared memory: d never exists in global
// memory, and the sums over channels never leave the block.
//
// Flops: those of the forward pass. Bytes per product step: as there. Per number of d: 4 reads of
// the input and 4 atomic additions, against 2 * O / groups flops.
//
// In deterministic mode d does go to global memory, a batch of tiles at a time, and is scattered in
// a fixed order (ordered_scatter.cuh).
#include "kernels/cuda/backward.cuh"
#include "kernels/cuda/contract.cuh"
#include "kernels/cuda/gradient_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layout.cuh"
#include "kernels/cuda/ordered_scatter.cuh"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/scatter.cuh"
#include "kernels/cuda/sums.cuh"
#include "kernels/cuda/weights.cuh"

namespace deformops::cuda {
namespace {

constexpr int kMaxTileTaps = 4;

template <class T>
struct BackwardData {
  using C = compute_t<T>;

  SampledWindow<T> window;
  View<const T, 4> grad_output;
  View<const T, 4> input;
  View<T, 4> grad_offset, grad_mask;  // or undefined
  View<C, 4> sums;                    // of grad_input; undefined: do not scatter
  C* columns;  // d of the tiles [channels, taps, slots]; null: do not store it
  int64_t slots;
  const T* weight;  // packed, transposed
  Plane input_plane, sums_plane;
  bool vectors;
  Lanes grad_output_lanes;
  RowTiling tiling;
  int64_t group_channels, group_outputs, offset_group_segments;
  int steps, pixel_tiles;
  int64_t first_tile, tiles;  // of this launch

  __host__ __device__ bool contracts() const {
    return grad_offset.defined() || grad_mask.defined();
  }
};

// The corners that the gradients of mask and offset read: those of the stencil or of its slopes,
// which differ where a sample lies exactly on a kink.
template <class C>
__device__ __forceinline__ AxisStencil<C> union_of(const AxisStencil<C>& a,
                                                   const AxisStencil<C>& b) {
  AxisStencil<C> both = a;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (a.index[i] < 0) both.index[i] = b.index[i];
  }
  return both;
}

template <class T>
__device__ __forceinline__ void fill_reach(int2 (&reach)[kMaxTileTaps][Tile<T>::kN],
                                           const SampledWindow<T>& window, int64_t n, int64_t group,
                                           int first_tap, int taps, int first_pixel) {
  using C = compute_t<T>;
  using Shape = Tile<T>;
  const int column = threadIdx.x % Shape::kN, pixel = first_pixel + column;
  const int width = static_cast<int>(window.x.output);
  for (int tap = threadIdx.x / Shape::kN; tap < taps; tap += kThreads / Shape::kN) {
    int2 axes = {0, 0};
    if (pixel < window.pixels()) {
      const int oy = pixel / width, ox = pixel % width;
      const TapStencil<C> value = window.stencil(n, group, first_tap + tap, oy, ox);
      const TapStencil<C> slope = window.stencil(n, group, first_tap + tap, oy, ox, 1, 1);
      axes = {pack_axis(union_of(value.y, slope.y)), pack_axis(union_of(value.x, slope.x))};
    }
    reach[tap][column] = axes;
  }
}

// From the sums over channels to the gradients of this tile's mask and offsets.
template <class T>
__device__ __forceinline__ void store_gradients(const BackwardData<T>& problem,
                                                const CornerSums<T>& sums, int64_t n, int64_t group,
                                                int first_tap, int taps, int first_pixel) {
  using C = compute_t<T>;
  using Shape = Tile<T>;
  const SampledWindow<T>& window = problem.window;
  const int column = threadIdx.x % Shape::kN, pixel = first_pixel + column;
  if (pixel >= window.pixels()) return;
  const int width = static_cast<int>(window.x.output);
  const int oy = pixel / width, ox = pixel % width;
  for (int tap = threadIdx.x / Shape::kN; tap < taps; tap += kThreads / Shape::kN) {
    const Weights<C> total = sums_of_tap(sums, problem.tiling, tap, column);
    const TapStencil<C> value = window.stencil(n, group, first_tap + tap, oy, ox);
    const int64_t channel = group * window.taps() + first_tap + tap;
    if (problem.grad_mask.defined()) {
      problem.grad_mask(n, channel, oy, ox) = round_to<T>(apply_weights(value.y, value.x, total));
    }
    if (problem.grad_offset.defined()) {
      const TapStencil<C> slope = window.stencil(n, group, first_tap + tap, oy, ox, 1, 1);
      problem.grad_offset(n, channel * 2, oy, ox) =
          round_to<T>(value.mask * apply_weights(slope.y, value.x, total));
      problem.grad_offset(n, channel * 2 + 1, oy, ox) =
          round_to<T>(value.mask * apply_weights(value.y, slope.x, total));
    }
  }
}

// Rows [first_row, first_row + kStageRows) of a tile of d to global memory.
template <class T>
__device__ __forceinline__ void store_columns(const BackwardData<T>& problem,
                                              const compute_t<T>* stage, int first_row,
                                              int64_t channel, int first_tap, int64_t first_slot,
                                              const RowTile& rows) {
  using Shape = Tile<T>;
  const int column = threadIdx.x % Shape::kN;
  for (int i = threadIdx.x / Shape::kN; i < Shape::kStageRows; i += kThreads / Shape::kN) {
    const int row = first_row + i;
    const int tap = problem.tiling.tap_of(row), tile_channel = problem.tiling.channel_of(row);
    if (tap >= rows.taps || tile_channel >= rows.channels) continue;
    const int64_t line = (channel + tile_channel) * problem.tiling.taps + first_tap + tap;
    problem.columns[line * problem.slots + first_slot + column] =
        stage[i * Shape::kStagePitch + column];
  }
}

template <class M, Lanes kLanes>
__global__ void __launch_bounds__(kThreads, 3)
    backward_data_kernel(const BackwardData<typename M::T> problem) {
  using T = typename M::T;
  using C = typename M::C;
  using Shape = Tile<T>;

  __shared__ TileMemory<T> memory;
  __shared__ TapTable<C, kMaxTileTaps, Shape::kN> table;
  __shared__ int2 reach[kMaxTileTaps][Shape::kN];
  __shared__ CornerSums<T> sums;

  // Blocks of the same pixels run side by side: they read the same gradients and input.
  const RowTiling& tiling = problem.tiling;
  const SampledWindow<T>& window = problem.window;
  int64_t block = blockIdx.x;
  const int tap_tile = static_cast<int>(block % tiling.tap_tiles);
  block /= tiling.tap_tiles;
  const int64_t group = block % window.offset_groups;
  block /= window.offset_groups;
  const int64_t tile = problem.first_tile + block, first_slot = block * Shape::kN;
  const int64_t n = tile / problem.pixel_tiles;
  const int first_pixel = static_cast<int>(tile % problem.pixel_tiles) * Shape::kN;
  const int first_tap = tap_tile * tiling.tile_taps;
  const int taps = min(tiling.tile_taps, tiling.taps - first_tap);

  fill_taps(table, window, n, group, first_tap, taps, first_pixel);
  if (problem.contracts()) {
    fill_reach<T>(reach, window, n, group, first_tap, taps, first_pixel);
    clear(sums);
  }

  // Every product ends with a barrier, and what was filled above is read after the first of them.
  Product<M, false> product;
  for (int64_t s = 0; s < problem.offset_group_segments * tiling.chunks; ++s) {
    const int64_t segment = group * problem.offset_group_segments + s / tiling.chunks;
    const int chunk = static_cast<int>(s % tiling.chunks);
    const int64_t channel = segment * tiling.segment + (chunk << tiling.shift);
    const int64_t first_output = channel / problem.group_channels * problem.group_outputs;
    const T* packed =
        problem.weight + ((segment * tiling.chunks + chunk) * tiling.tap_tiles + tap_tile) *
                             problem.steps * static_cast<int64_t>(Shape::kM * Shape::kK);
    Operands<T>& operands = memory.operands;
    product.clear();
    for (int step = 0; step <= problem.steps; ++step) {
      if (step < problem.steps) {
        stage_weights(operands.a[step % 2],
                      packed + static_cast<int64_t>(step) * Shape::kM * Shape::kK);
        load_gradients<M, Shape::kK, Shape::kN, Shape::kPitchN>(
            operands.b[step % 2], problem.grad_output, problem.grad_output_lanes, n,
            first_output + step * Shape::kK, problem.group_outputs - step * Shape::kK, first_pixel);
      }
      if (step > 0) product.multiply(operands.a[(step - 1) % 2], operands.b[(step - 1) % 2]);
      copy_async_wait();
      __syncthreads();
    }

    const RowTile rows = {tiling.chunk_channels(chunk), taps, 0, 0};
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      const int first_row = half * Shape::kStageRows;
      product.store(memory.stage, half);
      __syncthreads();
      if (problem.columns != nullptr) {
        store_columns(problem, memory.stage, first_row, channel, first_tap, first_slot, rows);
      }
      if (problem.sums.defined()) {
        const Source<C> target = {problem.sums.pointer(n, channel), problem.sums.strides[1], false};
        scatter_stage<T, kLanes>(memory.stage, first_row, table, target, problem.sums_plane, tiling,
                                 rows);
      }
      if (problem.contracts()) {
        const Source<const T> source = {problem.input.pointer(n, channel), problem.input.strides[1],
                                        problem.vectors};
        contract_stage<T, kLanes>(memory.stage, first_row, reach, source, problem.input_plane,
                                  tiling, rows, sums);
      }
      __syncthreads();
    }
  }

  if (problem.contracts()) {
    store_gradients(problem, sums, n, group, first_tap, taps, first_pixel);
  }
}

template <class M>
void run(const Context& context, const SampledWindow<typename M::T>& window,
         View<const typename M::T, 4> grad_output, View<const typename M::T, 4> input,
         View<const typename M::T, 4> weight,
         const ConvolutionGradients<typename M::T>& gradients) {
  using T = typename M::T;
  using C = typename M::C;
  using Shape = Tile<T>;
  const Channels channels = split_channels(input.sizes[1], weight.sizes[1], window.offset_groups);
  const RowTiling tiling =
      tile_rows(channels.segment, window.taps(), Shape::kM, Shape::kM / kMaxTileTaps);

  BackwardData<T> problem = {};
  problem.window = window;
  problem.grad_output = grad_output;
  problem.input = input;
  problem.grad_offset = gradients.offset;
  problem.grad_mask = gradients.mask;
  problem.input_plane = plane_of(input);
  problem.vectors = has_vectors(input, channels.segment);
  problem.grad_output_lanes = lanes_of(grad_output);
  problem.tiling = tiling;
  problem.group_channels = channels.group_channels;
  problem.group_outputs = weight.sizes[0] / channels.groups;
  problem.offset_group_segments = channels.offset_group_segments();
  problem.steps = static_cast<int>(divide_up(problem.group_outputs, Shape::kK));
  problem.pixel_tiles = tile_pixels(window, Shape::kN);

  const int64_t row_tiles = channels.segments() * tiling.chunks * tiling.tap_tiles;
  if (row_tiles * problem.steps > 0) {
    T* packed =
        context.scratch->allocate_array<T>(row_tiles * problem.steps * Shape::kM * Shape::kK);
    launch("pack_transposed_weight", pack_transposed_weight_kernel<M>, row_tiles, kThreads,
           context.stream, WeightReader<T>{weight}, tiling, channels.group_channels,
           problem.group_outputs, problem.steps, packed);
    problem.weight = packed;
  }

  const auto compute = [&](int64_t first_tile, int64_t tiles) {
    problem.first_tile = first_tile;
    problem.tiles = tiles;
    const auto kernel = lanes_of(input) == Lanes::kChannels
                            ? backward_data_kernel<M, Lanes::kChannels>
                            : backward_data_kernel<M, Lanes::kPixels>;
    launch("backward_data", kernel, tiles * window.offset_groups * tiling.tap_tiles, kThreads,
           context.stream, problem);
  };
  const int64_t tiles = input.sizes[0] * problem.pixel_tiles;
  if (!gradients.input.defined()) return compute(0, tiles);

  const InputSums<T> sums(context, gradients.input);
  if (context.deterministic) {
    const int64_t lines = channels.channels * window.taps();
    OrderedScatter<T> scatter(context, window, input.sizes[0], channels.channels,
                              lines * sizeof(C));
    problem.slots = scatter.batch_slots();
    problem.columns = context.scratch->allocate_array<C>(lines * problem.slots);
    scatter.run(SlotColumns<C>{problem.columns, window.taps() * problem.slots, problem.slots}, {},
                sums.view(), [&](const TileBatch& batch) { compute(batch.first, batch.count); });
  } else {
    problem.sums = sums.view();
    problem.sums_plane = plane_of(problem.sums);
    compute(0, tiles);
  }
  sums.finish();
}

}  // namespace

template <class T>
void backward_data(const Context& context, const SampledWindow<T>& window,
                   View<const T, 4> grad_output, View<const T, 4> input, View<const T, 4> weight,
                   const ConvolutionGradients<T>& gradients) {
  if constexpr (std::is_same_v<T, float>) {
    if (!context.allow_tf32) {
      return run<Math<T, false>>(context, window, grad_output, input, weight, gradients);
    }
  }
  run<Math<T, !std::is_same_v<T, double>>>(context, window, grad_output, input, weight, gradients);
}

#define DEFORMOPS_INSTANTIATE(T)                                                            \
  template void backward_data<T>(const Context&, const SampledWindow<T>&, View<const T, 4>, \
                                 View<const T, 4>, View<const T, 4>,                        \
                                 const ConvolutionGradients<T>&)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);
DEFORMOPS_INSTANTIATE(half);
DEFORMOPS_INSTANTIATE(bfloat16);

}  // namespace deformops::cuda

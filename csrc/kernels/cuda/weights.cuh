// The weight of a convolution, rearranged: the tiles that a block multiplies lie one behind the
// other in the order in which it takes them, padded with zeros, so that staging one is a run of
// aligned 16-byte copies whatever the strides of the weight. It costs reading and writing the
// weight once.
#pragma once

#include "core/view.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

// A weight [O, C / groups, kH, kW], read at (output channel, channel, tap), both of the group.
template <class T>
struct WeightReader {
  View<const T, 4> weight;

  __device__ __forceinline__ T at(int64_t output_channel, int64_t channel, int tap) const {
    const int width = static_cast<int>(weight.sizes[3]);
    return weight(output_channel, channel, tap / width, tap % width);
  }
};

// packed [groups][m tiles][steps][kM output channels][kK rows of a tile], steps as RowWalk takes
// them. A block packs the steps `lane, lane + walkers, ...` of one tile of output channels.
template <class M>
__global__ void __launch_bounds__(kThreads)
    pack_weight_kernel(WeightReader<typename M::T> reader, RowTiling tiling, int steps, int walkers,
                       int m_tiles, int64_t group_outputs, typename M::T* packed) {
  using T = typename M::T;
  using C = typename M::C;
  using Shape = Tile<T>;
  const int walker = blockIdx.x % walkers;
  const int m_tile = blockIdx.x / walkers % m_tiles;
  const int64_t group = blockIdx.x / walkers / m_tiles;
  T* to = packed + (group * m_tiles + m_tile) * steps * Shape::kM * Shape::kK;

  RowWalk walk;
  for (int step = 0; step < steps; ++step) {
    if (step % walkers == walker) {
      const int taps = walk.tile_taps(tiling);
      const int channels = tiling.chunk_channels(walk.chunk);
      for (int i = threadIdx.x; i < Shape::kM * Shape::kK; i += kThreads) {
        const int row = i % Shape::kK;
        const int64_t output = static_cast<int64_t>(m_tile) * Shape::kM + i / Shape::kK;
        C value = C(0);
        if (output < group_outputs && tiling.tap_of(row) < taps &&
            tiling.channel_of(row) < channels) {
          const int64_t channel = static_cast<int64_t>(walk.segment) * tiling.segment +
                                  (walk.chunk << tiling.shift) + tiling.channel_of(row);
          value = static_cast<C>(
              reader.at(group * group_outputs + output, channel, walk.tap + tiling.tap_of(row)));
        }
        to[static_cast<int64_t>(step) * Shape::kM * Shape::kK + i] = M::factor(value);
      }
    }
    walk.advance(tiling);
  }
}

// The transpose, packed [segments][chunks][tap tiles][steps][kM rows of a tile][kK output
// channels]. A block packs one tile of rows.
template <class M>
__global__ void __launch_bounds__(kThreads)
    pack_transposed_weight_kernel(WeightReader<typename M::T> reader, RowTiling tiling,
                                  int64_t group_channels, int64_t group_outputs, int steps,
                                  typename M::T* packed) {
  using T = typename M::T;
  using C = typename M::C;
  using Shape = Tile<T>;
  const int tap_tile = blockIdx.x % tiling.tap_tiles;
  const int chunk = blockIdx.x / tiling.tap_tiles % tiling.chunks;
  const int64_t segment = blockIdx.x / tiling.tap_tiles / tiling.chunks;
  const int64_t first_channel = segment * tiling.segment + (chunk << tiling.shift);
  const int64_t group = first_channel / group_channels;
  T* to = packed + static_cast<int64_t>(blockIdx.x) * steps * Shape::kM * Shape::kK;

  for (int64_t i = threadIdx.x; i < static_cast<int64_t>(steps) * Shape::kM * Shape::kK;
       i += kThreads) {
    const int row = static_cast<int>(i / Shape::kK % Shape::kM);
    const int64_t output = i / (Shape::kM * Shape::kK) * Shape::kK + i % Shape::kK;
    const int tap = tap_tile * tiling.tile_taps + tiling.tap_of(row);
    const int channel = tiling.channel_of(row);
    C value = C(0);
    if (output < group_outputs && tap < tiling.taps && channel < tiling.chunk_channels(chunk)) {
      value = static_cast<C>(
          reader.at(group * group_outputs + output, first_channel % group_channels + channel, tap));
    }
    to[i] = M::factor(value);
  }
}

// One packed tile to a[m * kPitchK + k]. The caller waits and synchronises.
template <class T>
__device__ __forceinline__ void stage_weights(T* a, const T* packed) {
  using Shape = Tile<T>;
  constexpr int kVectors = Shape::kK / Shape::kVector;  // of a row
#pragma unroll
  for (int i = threadIdx.x; i < Shape::kM * kVectors; i += kThreads) {
    copy_async(a + i / kVectors * Shape::kPitchK + i % kVectors * Shape::kVector,
               packed + i * Shape::kVector);
  }
}

}  // namespace deformops::cuda

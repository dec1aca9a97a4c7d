// Builds the lattice by sorting, as the CPU does (cpu/lattice_build.isa.cpp):
// corners by key, equal keys become a vertex, and neighbours are found among
// the sorted keys. No atomics and no hash table: numbers depend on the features
// alone. The host waits twice: for the range of the coordinates, which says how
// keys are packed, and for the number of vertices.
//
// Scratch: 24 bytes for each corner, more if keys have several words.
#include <algorithm>
#include <vector>

#include "core/context.h"
#include "kernels/cuda/lattice_simplex.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/scan.cuh"
#include "kernels/cuda/sort.cuh"
#include "kernels/lattice.h"

namespace deformops::cuda {
namespace {

constexpr int64_t kExtentThreads = 1 << 16;

// What the host wants to know, when the stream has come so far.
template <class T>
void read_back(const Context& context, const T* device, T* host, int64_t count) {
  const cudaStream_t stream = static_cast<cudaStream_t>(context.stream);
  check(cudaMemcpyAsync(host, device, static_cast<size_t>(count) * sizeof(T), cudaMemcpyDefault,
                        stream),
        "read_back");
  check(cudaStreamSynchronize(stream), "read_back");
}

// The smallest value of a block, for thread 0.
template <class T>
__device__ __forceinline__ T least_of_block(T value) {
  __shared__ T warps[kPointThreads / 32];
  for (int distance = 16; distance > 0; distance /= 2) {
    const T other = __shfl_down_sync(~0u, value, distance);
    value = other < value ? other : value;
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (int w = 1; w < kPointThreads / 32; ++w) value = warps[w] < value ? warps[w] : value;
  __syncthreads();  // the memory may be used again
  return value;
}

// Of the points of each block: the least of each lifted coordinate but the last
// one, the greatest, and whether all are usable; extents[block][2 * d + 1].
template <class T, int kFeatures>
__global__ void __launch_bounds__(kPointThreads, kPointBlocks)
    lattice_extent_kernel(const Points<T> points, T* extents) {
  const int d = features_of<T, kFeatures>(points);
  Simplex<T, kFeatures> simplex(points);
  const Simplices<T, 1> at = simplex.arrays();
  T* const low = simplex.low();
  T* const high = simplex.high();
  for (int i = 0; i <= d; ++i) low[i] = kFarthest<T>, high[i] = -kFarthest<T>;
  T usable = T(1);
  for_each_point(points, [&](int64_t p) {
    lift_point(d, points, points.features, p, at);
    for (int i = 0; i <= d; ++i) {
      const T x = at.lifted[i][0];
      if (!(x >= -kFarthest<T> && x <= kFarthest<T>)) usable = T(0);
      low[i] = x < low[i] ? x : low[i];
      high[i] = x > high[i] ? x : high[i];
    }
  });
  T* const extent = extents + static_cast<int64_t>(blockIdx.x) * (2 * d + 1);
  for (int i = 0; i < d; ++i) {
    const T block_low = least_of_block(low[i]), block_high = -least_of_block(-high[i]);
    if (threadIdx.x == 0) extent[2 * i] = block_low, extent[2 * i + 1] = block_high;
  }
  const T all_usable = least_of_block(usable);
  if (threadIdx.x == 0) extent[2 * d] = all_usable;
}

// The weights of all corners of a point, and their keys: words[w][corner].
template <class T, int kFeatures>
__global__ void __launch_bounds__(kPointThreads, kPointBlocks)
    pack_keys_kernel(const Points<T> points, const KeyLayout layout, View<T, 2> weight,
                     uint64_t* words, uint32_t* entries) {
  const int d = features_of<T, kFeatures>(points);
  const int64_t corners = points.count * (d + 1);
  Simplex<T, kFeatures> simplex(points);
  const Simplices<T, 1> at = simplex.arrays();
  for_each_point(points, [&](int64_t p) {
    lift_point(d, points, points.features, p, at);
    find_simplex(d, points.share, at);
    corner_weights(d, points.share, at, [&](int k, int, T value) { weight(p, k) = value; });
    const uint64_t image = static_cast<uint64_t>(image_of(points.features, p));
    for (int r = 0; r <= d; ++r) {
      const int64_t corner = p * (d + 1) + r;
      uint64_t word = image << layout.image_shift;
      int current = 0;
      for (int i = 0; i < d; ++i) {
        if (layout.word[i] != current) {
          words[current * corners + corner] = word;
          current = layout.word[i];
          word = 0;
        }
        const int32_t coordinate = corner_coordinate(d, at.base[i][0], at.rank[i][0], r);
        const uint32_t field = static_cast<uint32_t>(coordinate - layout.origin[i]);
        word |= static_cast<uint64_t>(field) << layout.shift[i];
      }
      words[current * corners + corner] = word;
      entries[corner] = static_cast<uint32_t>(corner);
    }
  });
}

// keys[i] = words[entries[i]].
__global__ void __launch_bounds__(kSortThreads)
    take_words_kernel(const uint64_t* words, const uint32_t* entries, int64_t size,
                      uint64_t* keys) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kSortThreads + threadIdx.x;
  if (i < size) keys[i] = words[entries[i]];
}

// The sorted corners: keys are the first words, `words` all of them, in the
// order of entries.
struct Sorted {
  const uint64_t* keys;
  const uint32_t* entries;
  int64_t size;
  const uint64_t* words;
  int count;  // of words

  // Whether a corner is the first one of its vertex.
  __device__ __forceinline__ bool begins(int64_t i) const {
    if (i == 0 || keys[i] != keys[i - 1]) return true;
    for (int w = 1; w < count; ++w) {
      if (words[w * size + entries[i]] != words[w * size + entries[i - 1]]) return true;
    }
    return false;
  }
};

// Tiles of kScanTile corners; counts[tile] of vertices.
__global__ void __launch_bounds__(kScanThreads)
    count_vertices_kernel(const Sorted sorted, uint32_t* counts) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScanTile + threadIdx.x * kScanItems;
  uint32_t count = 0;
  for (int i = 0; i < kScanItems; ++i) {
    if (first + i < sorted.size && sorted.begins(first + i)) ++count;
  }
  uint32_t total;
  sum_before(count, total);
  if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// Numbers vertices, `before` being those of earlier tiles; keys_of[w * size +
// v].
__global__ void __launch_bounds__(kScanThreads, 4)
    number_vertices_kernel(const Sorted sorted, const uint32_t* before, int32_t* vertex,
                           int32_t* entry, uint64_t* keys_of, int32_t* first_of) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScanTile + threadIdx.x * kScanItems;
  uint32_t count = 0;
  for (int i = 0; i < kScanItems; ++i) {
    if (first + i < sorted.size && sorted.begins(first + i)) ++count;
  }
  uint32_t total;
  int64_t next = static_cast<int64_t>(before[blockIdx.x]) + sum_before(count, total);
  for (int i = 0; i < kScanItems && first + i < sorted.size; ++i) {
    const uint32_t corner = sorted.entries[first + i];
    if (sorted.begins(first + i)) {
      keys_of[next] = sorted.keys[first + i];
      for (int w = 1; w < sorted.count; ++w) {
        keys_of[w * sorted.size + next] = sorted.words[w * sorted.size + corner];
      }
      first_of[next] = static_cast<int32_t>(first + i);
      ++next;
    }
    entry[first + i] = static_cast<int32_t>(corner);
    vertex[corner] = static_cast<int32_t>(next - 1);
  }
}

// A thread for each axis and vertex looks for the neighbour one step ahead, and
// tells it.
__global__ void __launch_bounds__(kPointThreads, kPointBlocks)
    find_neighbors_kernel(const uint64_t* keys, int64_t stride, int words, int64_t vertices,
                          const KeyLayout layout, View<int32_t, 3> neighbor, int32_t* start,
                          int32_t corners) {
  __shared__ uint64_t step[kMaxFeatures];
  const int64_t blocks = (vertices + kPointThreads - 1) / kPointThreads;
  const int axis = static_cast<int>(blockIdx.x / blocks);
  for (int w = threadIdx.x; w < words; w += kPointThreads) {
    step[w] = neighbor_step(layout, w, axis, 1);
  }
  __syncthreads();
  const int64_t v = blockIdx.x % blocks * kPointThreads + threadIdx.x;
  if (v >= vertices) return;
  if (axis == 0 && v == 0) start[vertices] = corners;
  const auto compare = [&](int64_t candidate) {  // with the neighbour's key
    for (int w = 0; w < words; ++w) {
      const uint64_t a = keys[w * stride + candidate], b = keys[w * stride + v] + step[w];
      if (a != b) return a < b ? -1 : 1;
    }
    return 0;
  };
  int64_t low = 0, high = vertices;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (compare(middle) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == vertices || compare(low) != 0) return;
  neighbor(axis, v, 1) = static_cast<int32_t>(low);
  neighbor(axis, low, 0) = static_cast<int32_t>(v);
}

}  // namespace

template <class T>
void lattice_extent(const Context& context, View<const T, 3> features, LatticeExtent& extent) {
  const int64_t d = features.sizes[2], numbers = 2 * d + 1;
  with_features(d, [&](auto number) {
    constexpr int kFeatures = decltype(number)::value;
    const Points<T> points = points_of<T, kFeatures>(context, features, kExtentThreads);
    const int64_t blocks = points.threads / kPointThreads;
    T* const extents = context.scratch->allocate_array<T>(static_cast<size_t>(blocks * numbers));
    launch("lattice_extent", lattice_extent_kernel<T, kFeatures>, blocks, kPointThreads,
           context.stream, points, extents);
    std::vector<T> host(static_cast<size_t>(blocks * numbers));
    read_back(context, extents, host.data(), blocks * numbers);
    extent.usable = true;
    for (int64_t block = 0; block < blocks; ++block) {
      const T* const of_block = host.data() + block * numbers;
      extent.usable &= of_block[2 * d] != T(0);
      for (int64_t i = 0; i < d; ++i) {
        const double low = static_cast<double>(of_block[2 * i]);
        const double high = static_cast<double>(of_block[2 * i + 1]);
        extent.low[i] = block == 0 ? low : std::min(extent.low[i], low);
        extent.high[i] = block == 0 ? high : std::max(extent.high[i], high);
      }
    }
  });
}

template <class T>
void lattice_sort(const Context& context, const KeyLayout& layout, View<const T, 3> features,
                  View<T, 2> weight, View<int32_t, 2> vertex, View<int32_t, 1> entry,
                  SortedCorners& sorted) {
  const int64_t size = entry.sizes[0];
  RadixSort<uint64_t> radix(context, size);
  uint64_t* const words =
      layout.words == 1
          ? radix.pairs.keys
          : context.scratch->allocate_array<uint64_t>(static_cast<size_t>(layout.words * size));
  with_features(features.sizes[2], [&](auto number) {
    constexpr int kFeatures = decltype(number)::value;
    const Points<T> points = points_of<T, kFeatures>(context, features);
    launch("pack_keys", pack_keys_kernel<T, kFeatures>, points.threads / kPointThreads,
           kPointThreads, context.stream, points, layout, weight, words, radix.pairs.entries);
  });
  for (int w = layout.words - 1; w >= 0; --w) {
    if (layout.words > 1) {
      launch("take_words", take_words_kernel, divide_up(size, kSortThreads), kSortThreads,
             context.stream, words + w * size, radix.pairs.entries, size, radix.pairs.keys);
    }
    radix.sort(size, layout.bits[w]);
  }

  const Sorted pairs = {radix.pairs.keys, radix.pairs.entries, size, words, layout.words};
  const int64_t tiles = divide_up(size, kScanTile);
  uint32_t* const counts =
      context.scratch->allocate_array<uint32_t>(static_cast<size_t>(tiles + 1));
  check(cudaMemsetAsync(counts + tiles, 0, sizeof(uint32_t),
                        static_cast<cudaStream_t>(context.stream)),
        "count_vertices");
  launch("count_vertices", count_vertices_kernel, tiles, kScanThreads, context.stream, pairs,
         counts);
  PrefixSum(context, tiles + 1).run(counts, tiles + 1);

  // What the sort has read last is free.
  uint64_t* const keys =
      layout.words == 1
          ? radix.other().keys
          : context.scratch->allocate_array<uint64_t>(static_cast<size_t>(layout.words * size));
  int32_t* const first = reinterpret_cast<int32_t*>(radix.other().entries);
  launch("number_vertices", number_vertices_kernel, tiles, kScanThreads, context.stream, pairs,
         counts, vertex.data, entry.data, keys, first);
  uint32_t vertices = 0;
  read_back(context, counts + tiles, &vertices, 1);
  sorted = {layout, size, vertices, keys, size, first};
}

void lattice_connect(const Context& context, const SortedCorners& sorted, View<int32_t, 1> start,
                     View<int32_t, 3> neighbor) {
  const cudaStream_t stream = static_cast<cudaStream_t>(context.stream);
  const int64_t vertices = sorted.vertices, axes = neighbor.sizes[0];
  check(cudaMemcpyAsync(start.data, sorted.first, static_cast<size_t>(vertices) * sizeof(int32_t),
                        cudaMemcpyDeviceToDevice, stream),
        "lattice_connect");
  check(cudaMemsetAsync(neighbor.data, 0xFF,  // -1
                        static_cast<size_t>(axes * vertices * 2) * sizeof(int32_t), stream),
        "lattice_connect");
  launch("find_neighbors", find_neighbors_kernel, axes * divide_up(vertices, kPointThreads),
         kPointThreads, context.stream, sorted.keys, sorted.stride, sorted.layout.words, vertices,
         sorted.layout, neighbor, start.data, sorted.corners);
}

#define DEFORMOPS_INSTANTIATE(T)                                                                \
  template void lattice_extent<T>(const Context&, View<const T, 3>, LatticeExtent&);            \
  template void lattice_sort<T>(const Context&, const KeyLayout&, View<const T, 3>, View<T, 2>, \
                                View<int32_t, 2>, View<int32_t, 1>, SortedCorners&)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);

}  // namespace deformops::cuda

// Builds the lattice by sorting: corners by key, so that equal keys, the corners of one vertex,
// come together, in the order that splatting wants. Vertices come out in the order of their keys,
// and so do their neighbours on an axis, whose keys are all larger by one number: to find them is
// to merge the list of keys with itself.
//
// Scratch: 24 bytes for each corner, more if keys have several words.
#include "kernels/cpu/lattice_isa.h"
#include "kernels/cpu/lattice_simplices.h"
#include "kernels/cpu/radix_sort.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// Simplices of d features cost about so much each.
template <class T>
Team team_for(const View<const T, 3>& features) {
  const int64_t corners = features.sizes[2] + 1;
  return Team(features.sizes[0] * features.sizes[1] * corners * (corners + 16));
}

// The keys of all corners: words[w][corner].
template <class T>
void pack_keys(const Team& team, const KeyLayout& layout, const View<const T, 3>& features,
               const View<T, 2>& weight, uint64_t* words) {
  const int64_t corners = features.sizes[0] * features.sizes[1] * (features.sizes[2] + 1);
  with_features(features.sizes[2], [&](auto number) {
    for_each_block<T, decltype(number)::value>(
        team, features, [&](auto& block, int64_t first, int64_t count, int64_t) {
          const int d = block.d();
          const int64_t images_points = features.sizes[1];
          block.find(first, count);
          const auto at = block.simplices();
          T weights[kLanes<T>];
          corner_weights(d, block.share(), at, [&](int k, int lane, T value) {
            weights[lane] = value;
            if (lane + 1 == kLanes<T>) {
              for (int64_t i = 0; i < count; ++i) weight(first + i, k) = weights[i];
            }
          });
          for (int r = 0; r <= d; ++r) {
            uint64_t word[kLanes<T>];
            for (int lane = 0; lane < kLanes<T>; ++lane) {
              const int64_t p = first + smaller(lane, count - 1);
              word[lane] = static_cast<uint64_t>(p / images_points) << layout.image_shift;
            }
            int current = 0;
            const auto flush = [&] {
              for (int64_t i = 0; i < count; ++i) {
                words[current * corners + (first + i) * (d + 1) + r] = word[i];
              }
            };
            for (int i = 0; i < d; ++i) {
              if (layout.word[i] != current) {
                flush();
                current = layout.word[i];
                for (int lane = 0; lane < kLanes<T>; ++lane) word[lane] = 0;
              }
              const int shift = layout.shift[i];
              const int32_t origin = layout.origin[i];
              for (int lane = 0; lane < kLanes<T>; ++lane) {
                const int32_t coordinate =
                    corner_coordinate(d, at.base[i][lane], at.rank[i][lane], r) - origin;
                word[lane] |= static_cast<uint64_t>(static_cast<uint32_t>(coordinate)) << shift;
              }
            }
            flush();
          }
        });
  });
}

// Sorted lists of keys of one or several words.
struct Keys {
  const uint64_t* words;  // [count, stride]
  int count;
  int64_t stride, size;

  // Whether key i comes before, is equal to (0) or comes behind key j + step.
  DEFORMOPS_INLINE int compare(int64_t i, int64_t j, const uint64_t* step) const {
    for (int w = 0; w < count; ++w) {
      const uint64_t a = words[w * stride + i], b = words[w * stride + j] + step[w];
      if (a != b) return a < b ? -1 : 1;
    }
    return 0;
  }
};

// The first key that is not before key j + step.
int64_t lower_bound(const Keys& keys, int64_t j, const uint64_t* step) {
  int64_t low = 0, high = keys.size;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys.compare(middle, j, step) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Merges vertices [v, v_end), moved by a step, with vertices [u, u_end), among which all are that
// they could meet: u is behind v if their keys are equal. What is written about a vertex before its
// turn has come is written again.
template <bool kOneWord>
void meet_neighbors(const Keys& keys, const uint64_t* step, int64_t v, int64_t v_end, int64_t u,
                    int64_t u_end, int32_t* neighbor) {
  while (v < v_end && u < u_end) {
    bool before, behind;  // key u, key v + step
    if constexpr (kOneWord) {
      const uint64_t a = keys.words[u], b = keys.words[v] + step[0];
      before = a<b, behind = a> b;
    } else {
      const int order = keys.compare(u, v, step);
      before = order < 0, behind = order > 0;
    }
    const bool meet = !before && !behind;
    neighbor[2 * u] = meet ? static_cast<int32_t>(v) : -1;
    neighbor[2 * v + 1] = meet ? static_cast<int32_t>(u) : -1;
    u += !behind;
    v += !before;
  }
  for (; u < u_end; ++u) neighbor[2 * u] = -1;
  for (; v < v_end; ++v) neighbor[2 * v + 1] = -1;
}

}  // namespace

template <class T>
void lattice_extent(const Context& context, View<const T, 3> features, LatticeExtent& extent) {
  const int64_t d = features.sizes[2];
  const int64_t tasks = divide_up(features.sizes[0] * features.sizes[1], kPointsOfTask);
  const Team team = team_for(features);
  const int64_t workers = team.workers(tasks);
  T* const lows = allocate<T>(context, workers * d);
  T* const highs = allocate<T>(context, workers * d);
  bool* const unusable = allocate<bool>(context, workers);
  for (int64_t i = 0; i < workers * d; ++i) lows[i] = kFarthest<T>, highs[i] = -kFarthest<T>;
  for (int64_t i = 0; i < workers; ++i) unusable[i] = false;

  with_features(d, [&](auto number) {
    for_each_block<T, decltype(number)::value>(
        team, features, [&](auto& block, int64_t first, int64_t count, int64_t worker) {
          block.lift_points(first, count);
          const auto at = block.simplices();
          T* const low = lows + worker * d;
          T* const high = highs + worker * d;
          bool far = false;
          for (int i = 0; i <= block.d(); ++i) {
            T least = kFarthest<T>, most = -kFarthest<T>;
            for (int lane = 0; lane < kLanes<T>; ++lane) {
              const T x = at.lifted[i][lane];
              far |= !(x <= kFarthest<T> && x >= -kFarthest<T>);
              least = x < least ? x : least;
              most = x > most ? x : most;
            }
            if (i == block.d()) break;
            low[i] = least < low[i] ? least : low[i];
            high[i] = most > high[i] ? most : high[i];
          }
          unusable[worker] |= far;
        });
  });

  extent.usable = true;
  for (int64_t w = 0; w < workers; ++w) {
    extent.usable &= !unusable[w];
    for (int64_t i = 0; i < d; ++i) {
      const double low = static_cast<double>(lows[w * d + i]);
      const double high = static_cast<double>(highs[w * d + i]);
      extent.low[i] = w == 0 || low < extent.low[i] ? low : extent.low[i];
      extent.high[i] = w == 0 || high > extent.high[i] ? high : extent.high[i];
    }
  }
}

template <class T>
void lattice_sort(const Context& context, const KeyLayout& layout, View<const T, 3> features,
                  View<T, 2> weight, View<int32_t, 2> vertex, View<int32_t, 1> entry,
                  SortedCorners& sorted) {
  const int64_t size = vertex.sizes[0] * vertex.sizes[1];
  const Team team = team_for(features);
  uint64_t* const words = allocate<uint64_t>(context, layout.words * size);
  pack_keys(team, layout, features, weight, words);

  const int64_t pieces = team.workers(size);
  const auto for_each_piece = [&](const auto& body) {
    team.for_each(pieces, [&](int64_t piece, int64_t) {
      body(piece, size * piece / pieces, size * (piece + 1) / pieces);
    });
  };

  // Stable sorts by one word after the other, the last one first, sort by all of them.
  RadixSort radix(context, team, size);
  SortPairs pairs = {layout.words == 1 ? words : allocate<uint64_t>(context, size),
                     allocate<int32_t>(context, size)};
  for_each_piece([&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) pairs.entries[i] = static_cast<int32_t>(i);
  });
  for (int w = layout.words - 1; w >= 0; --w) {
    if (layout.words > 1) {
      for_each_piece([&](int64_t, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          pairs.keys[i] = words[w * size + pairs.entries[i]];
        }
      });
    }
    pairs = radix.sort(pairs, layout.bits[w]);
  }

  // A vertex begins wherever a key differs from the one before.
  const auto begins = [&](int64_t i) {
    if (i == 0 || pairs.keys[i] != pairs.keys[i - 1]) return true;
    for (int w = 1; w < layout.words; ++w) {
      const uint64_t* const word = words + w * size;
      if (word[pairs.entries[i]] != word[pairs.entries[i - 1]]) return true;
    }
    return false;
  };
  int64_t* const counts = allocate<int64_t>(context, pieces);
  for_each_piece([&](int64_t piece, int64_t begin, int64_t end) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) count += begins(i);
    counts[piece] = count;
  });
  int64_t vertices = 0;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t count = counts[piece];
    counts[piece] = vertices;
    vertices += count;
  }
  int32_t* const first = allocate<int32_t>(context, vertices);
  uint64_t* const keys =
      layout.words == 1 ? radix.other().keys : allocate<uint64_t>(context, layout.words * vertices);
  for_each_piece([&](int64_t piece, int64_t begin, int64_t end) {
    int64_t next = counts[piece];
    for (int64_t i = begin; i < end; ++i) {
      const int32_t corner = pairs.entries[i];
      if (begins(i)) {
        first[next] = static_cast<int32_t>(i);
        keys[next] = pairs.keys[i];
        for (int w = 1; w < layout.words; ++w) keys[w * vertices + next] = words[w * size + corner];
        ++next;
      }
      entry(i) = corner;
      vertex.data[corner] = static_cast<int32_t>(next - 1);
    }
  });
  sorted = {layout, size, vertices, keys, vertices, first};
}

void lattice_connect(const Context&, const SortedCorners& sorted, View<int32_t, 1> start,
                     View<int32_t, 3> neighbor) {
  constexpr int64_t kVerticesOfTask = 1 << 13;
  const KeyLayout& layout = sorted.layout;
  const int64_t vertices = sorted.vertices;
  const Keys keys = {sorted.keys, layout.words, sorted.stride, vertices};
  const int64_t axes = neighbor.sizes[0], tasks = divide_up(vertices, kVerticesOfTask);
  const Team team(vertices * axes * 4);

  memcpy(start.data, sorted.first, static_cast<size_t>(vertices) * sizeof(int32_t));
  start(vertices) = static_cast<int32_t>(sorted.corners);
  team.for_each(tasks * axes, [&](int64_t task, int64_t) {
    const int axis = static_cast<int>(task % axes);
    const int64_t begin = task / axes * kVerticesOfTask;
    const int64_t end = smaller(vertices, begin + kVerticesOfTask);
    uint64_t step[kMaxFeatures];
    for (int w = 0; w < layout.words; ++w) step[w] = neighbor_step(layout, w, axis, 1);
    const int64_t first = begin == 0 ? 0 : lower_bound(keys, begin, step);
    const int64_t last = end == vertices ? vertices : lower_bound(keys, end, step);
    const auto meet = layout.words == 1 ? meet_neighbors<true> : meet_neighbors<false>;
    meet(keys, step, begin, end, first, last, neighbor.data + axis * neighbor.strides[0]);
  });
}

#define DEFORMOPS_INSTANTIATE(T)                                                                \
  template void lattice_extent<T>(const Context&, View<const T, 3>, LatticeExtent&);            \
  template void lattice_sort<T>(const Context&, const KeyLayout&, View<const T, 3>, View<T, 2>, \
                                View<int32_t, 2>, View<int32_t, 1>, SortedCorners&);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

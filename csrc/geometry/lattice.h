// Where a point of feature space looks: the corners of a simplex of the permutohedral lattice.
//
// A point of d features is lifted into the plane sum(x) = 0 of d + 1 dimensions, where the integer
// points with equal remainders modulo d + 1 are the vertices of the lattice (Adams, Baek, Davis,
// Fast high-dimensional filtering using the permutohedral lattice, 2010). It lies in a simplex of
// d + 1 of them, one for each remainder, and looks at these with its barycentric weights, which
// are linear in the features as long as the simplex stays the same. Features are counted in
// standard deviations of the Gaussian that splat, blur and slice make together.
//
// Simplices are found for kLanes points at a time: innermost loops over points are vectors on the
// CPU, and nothing on a GPU, where a thread has one point. Every product that is added to something
// is written as one rounding, so that all compilers find the same vertices.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/macros.h"

namespace deformops {

constexpr int kMaxFeatures = 255;

// The factors that the features are multiplied by before they are lifted: edges of the lattice are
// of such a length that linear interpolation at both ends and the blur add up to variance 1.
template <class C>
DEFORMOPS_INLINE void lattice_scales(int d, C* scales) {
  const double edge = (d + 1) * std::sqrt(2.0 / 3.0);
  for (int i = 0; i < d; ++i) {
    scales[i] = static_cast<C>(edge / std::sqrt(static_cast<double>(i + 1) * (i + 2)));
  }
}

// Beyond these, lifted coordinates are too coarse to say where in a simplex a point is.
template <class C>
constexpr C kFarthest = C(1 << 22);
template <>
inline constexpr double kFarthest<double> = 1 << 30;

// The simplices of kLanes points, each array with d + 1 coordinates.
template <class C, int kLanes>
struct Simplices {
  C (*lifted)[kLanes];
  int32_t (*base)[kLanes];  // the vertex of remainder 0
  int32_t (*rank)[kLanes];  // of coordinates by their distance from it, the farthest first
};

// lifted = E (scales * features), an isometry onto the plane: feature i raises the coordinates
// up to i and lowers coordinate i + 1 by as much as these together. feature(i, lane) reads.
template <class C, int kLanes, class Feature>
DEFORMOPS_INLINE void lift(int d, const C* scales, const Feature& feature,
                           const Simplices<C, kLanes>& at) {
  for (int lane = 0; lane < kLanes; ++lane) at.lifted[d][lane] = C(0);
  // From the last feature on, lifted[i] holds the sum of those behind it.
  for (int i = d - 1; i >= 0; --i) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const C x = feature(i, lane), behind = at.lifted[i + 1][lane];
      at.lifted[i + 1][lane] = std::fma(x, -static_cast<C>(i + 1) * scales[i], behind);
      at.lifted[i][lane] = std::fma(x, scales[i], behind);
    }
  }
}

// Its transpose, for one point: store(i, <E (scales * unit vector i), lifted>).
template <class C, class Store>
DEFORMOPS_INLINE void lift_transposed(int d, const C* scales, const C* lifted, const Store& store) {
  C before = C(0);
  for (int i = 0; i < d; ++i) {
    before += lifted[i];
    store(i, scales[i] * (before - static_cast<C>(i + 1) * lifted[i + 1]));
  }
}

// `share` is 1 / (d + 1), here and below: a division is slow on a GPU.
template <class C, int kLanes>
DEFORMOPS_INLINE void find_simplex(int d, C share, const Simplices<C, kLanes>& at) {
  const C side = static_cast<C>(d + 1), half = side / 2;
  int32_t excess[kLanes];  // how far the nearest multiples of d + 1 are from the plane, in sides
  for (int lane = 0; lane < kLanes; ++lane) excess[lane] = 0;
  for (int i = 0; i <= d; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const C x = at.lifted[i][lane];
      C sides = std::floor(std::fma(x, share, C(0.5)));
      const C rest = std::fma(-sides, side, x);
      sides += rest > half ? C(1) : rest <= -half ? C(-1) : C(0);
      const int32_t whole = static_cast<int32_t>(sides);
      at.base[i][lane] = whole * (d + 1);
      at.rank[i][lane] = 0;
      excess[lane] += whole;
    }
  }
  for (int i = 0; i <= d; ++i) {
    for (int j = i + 1; j <= d; ++j) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const C distance_i = at.lifted[i][lane] - static_cast<C>(at.base[i][lane]);
        const C distance_j = at.lifted[j][lane] - static_cast<C>(at.base[j][lane]);
        const int32_t nearer = distance_i < distance_j ? 1 : 0;
        at.rank[i][lane] += nearer;
        at.rank[j][lane] += 1 - nearer;
      }
    }
  }
  // Back into the plane: the coordinates that rounding moved most go to their other neighbour.
  for (int i = 0; i <= d; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int32_t rank = at.rank[i][lane] + excess[lane];
      const int32_t turn = rank < 0 ? d + 1 : rank > d ? -(d + 1) : 0;
      at.rank[i][lane] = rank + turn;
      at.base[i][lane] += turn;
    }
  }
}

// Coordinate i of the corner with this remainder.
DEFORMOPS_INLINE int32_t corner_coordinate(int d, int32_t base, int32_t rank, int remainder) {
  return base + (rank <= d - remainder ? remainder : remainder - (d + 1));
}

// The weight of corner k is a difference of two coordinates' distances from the base, in sides:
//     weight[k] = t(rank d - k) - t(rank d + 1 - k), and 1 more for k = 0, of ranks modulo d + 1.
template <class C, int kLanes, class Store>
DEFORMOPS_INLINE void corner_weights(int d, C share, const Simplices<C, kLanes>& at,
                                     const Store& store) {
  for (int k = 0; k <= d; ++k) {
    const int plus = d - k, minus = k == 0 ? 0 : d + 1 - k;
    C weight[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) weight[lane] = k == 0 ? C(1) : C(0);
    for (int i = 0; i <= d; ++i) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const C t = (at.lifted[i][lane] - static_cast<C>(at.base[i][lane])) * share;
        const int32_t rank = at.rank[i][lane];
        weight[lane] += (rank == plus ? t : C(0)) - (rank == minus ? t : C(0));
      }
    }
    for (int lane = 0; lane < kLanes; ++lane) store(k, lane, weight[lane]);
  }
}

// How the weights follow the lifted point, and the transpose of that, for one point: the weight of
// corner d - rank grows with a coordinate and the one before it (d + 1 - rank, around the circle)
// falls.
DEFORMOPS_INLINE int growing_corner(int d, int32_t rank) { return d - rank; }
DEFORMOPS_INLINE int falling_corner(int d, int32_t rank) { return rank == 0 ? 0 : d + 1 - rank; }

// How image and coordinates of a vertex are packed into words, so that comparing words compares
// (image, coordinates): the most significant field first, none in two words.
struct KeyLayout {
  int dimensions;
  int words;
  int image_shift;               // in word 0
  int32_t origin[kMaxFeatures];  // subtracted from coordinates
  uint8_t word[kMaxFeatures];    // where a coordinate is
  uint8_t shift[kMaxFeatures];
  uint8_t bits[kMaxFeatures];  // of each word, used
};

DEFORMOPS_INLINE int bits_for(uint64_t largest) {
  int bits = 0;
  while (largest >> bits != 0) ++bits;
  return bits;
}

// `low`, `high`: the range of the lifted coordinates of all points. Corners lie within d + 1 of
// their point, neighbours of corners d farther, and neither leave their fields.
DEFORMOPS_INLINE KeyLayout key_layout(int d, int64_t images, const double* low,
                                      const double* high) {
  KeyLayout layout;
  layout.dimensions = d;
  int free = 64;
  layout.words = 1;
  // Fields from the first on; shifts are counted from the top until the word is full.
  free -= bits_for(static_cast<uint64_t>(images - 1));
  int first = 0;
  const auto close_word = [&](int end) {
    for (int i = first; i < end; ++i) {
      layout.shift[i] = static_cast<uint8_t>(layout.shift[i] - free);
    }
    if (layout.words == 1) layout.image_shift = images > 1 ? layout.image_shift - free : 0;
    layout.bits[layout.words - 1] = static_cast<uint8_t>(64 - free);
    first = end;
  };
  layout.image_shift = free;
  for (int i = 0; i < d; ++i) {
    const int32_t margin = 2 * d + 2;
    layout.origin[i] = static_cast<int32_t>(std::floor(low[i])) - margin;
    const int64_t largest = static_cast<int64_t>(std::ceil(high[i])) + margin - layout.origin[i];
    const int bits = bits_for(static_cast<uint64_t>(largest));
    if (bits > free) {
      close_word(i);
      ++layout.words;
      free = 64;
    }
    free -= bits;
    layout.word[i] = static_cast<uint8_t>(layout.words - 1);
    layout.shift[i] = static_cast<uint8_t>(free);
  }
  close_word(d);
  return layout;
}

// What is added to the words of a vertex to get its neighbour on an axis (with step -1: the other
// one): axis j < d lowers coordinate j by d and raises the others by 1, axis d raises all.
DEFORMOPS_INLINE uint64_t neighbor_step(const KeyLayout& layout, int word, int axis, int step) {
  uint64_t sum = 0;
  for (int i = 0; i < layout.dimensions; ++i) {
    if (layout.word[i] != word) continue;
    const int64_t change = static_cast<int64_t>(step) * (i == axis ? -layout.dimensions : 1);
    sum += static_cast<uint64_t>(change) << layout.shift[i];
  }
  return sum;
}

// What the blur is multiplied by, after pydensecrf: with it a point alone gets back almost what it
// gave.
template <class C>
DEFORMOPS_INLINE C blur_scale(int d) {
  return C(1) / (C(1) + static_cast<C>(std::ldexp(1.0, -d)));
}

}  // namespace deformops

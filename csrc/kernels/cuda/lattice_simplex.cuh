// The simplex of one point for each thread, for a number of features known when compiling, or not.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/context.h"
#include "core/view.h"
#include "geometry/lattice.h"
#include "kernels/cuda/launch.cuh"

namespace deformops::cuda {

constexpr int kPointThreads = 128;
constexpr int kPointBlocks = 6;  // on a multiprocessor: leaves enough registers

// Points with any number of features share this much memory, and take turns.
constexpr int64_t kSimplexBytes = int64_t{64} << 20;

// Numbers that a thread needs for each corner: three of its simplex, two of a range.
constexpr int kArrays = 5;

// What kernels about simplices are told. `arrays` is for those whose number of features is not
// known when compiling: kArrays * (d + 1) numbers for each thread.
template <class T>
struct Points {
  View<const T, 3> features;  // [N, M, d]
  int64_t count;              // N * M
  int64_t threads;            // that share the points
  T* arrays;
  T share;  // 1 / (d + 1)
  T scales[kMaxFeatures];
};

__device__ __forceinline__ int64_t thread_number() {
  return static_cast<int64_t>(blockIdx.x) * kPointThreads + threadIdx.x;
}

// Calls body(p) for the points of a thread.
template <class T, class Body>
__device__ __forceinline__ void for_each_point(const Points<T>& points, const Body& body) {
  for (int64_t p = thread_number(); p < points.count; p += points.threads) body(p);
}

template <class T, int kFeatures>
class Simplex {
 public:
  __device__ __forceinline__ explicit Simplex(const Points<T>&) {}
  __device__ __forceinline__ Simplices<T, 1> arrays() { return {lifted_, base_, rank_}; }
  __device__ __forceinline__ T* low() { return low_; }
  __device__ __forceinline__ T* high() { return high_; }

 private:
  T low_[kFeatures + 1], high_[kFeatures + 1];
  T lifted_[kFeatures + 1][1];
  int32_t base_[kFeatures + 1][1];
  int32_t rank_[kFeatures + 1][1];
};

template <class T>
class Simplex<T, 0> {
 public:
  __device__ __forceinline__ explicit Simplex(const Points<T>& points)
      : corners_(static_cast<int>(points.features.sizes[2]) + 1),
        arrays_(points.arrays + thread_number() * kArrays * corners_) {}
  __device__ __forceinline__ Simplices<T, 1> arrays() {
    return {reinterpret_cast<T(*)[1]>(arrays_),
            reinterpret_cast<int32_t (*)[1]>(arrays_ + corners_),
            reinterpret_cast<int32_t (*)[1]>(arrays_ + 2 * corners_)};
  }
  __device__ __forceinline__ T* low() { return arrays_ + 3 * corners_; }
  __device__ __forceinline__ T* high() { return arrays_ + 4 * corners_; }

 private:
  int corners_;
  T* arrays_;
};

template <class T, int kFeatures>
__device__ __forceinline__ int features_of(const Points<T>& points) {
  return kFeatures > 0 ? kFeatures : static_cast<int>(points.features.sizes[2]);
}

// There are fewer than 2^30 points: their corners are counted with int32_t.
template <class T>
__device__ __forceinline__ int64_t image_of(const View<const T, 3>& features, int64_t p) {
  return static_cast<uint32_t>(p) / static_cast<uint32_t>(features.sizes[1]);
}

template <class T>
__device__ __forceinline__ void lift_point(int d, const Points<T>& points,
                                           const View<const T, 3>& features, int64_t p,
                                           const Simplices<T, 1>& at) {
  const int64_t image = image_of(features, p);
  const T* const row = features.pointer(image, p - image * features.sizes[1]);
  lift(d, points.scales, [&](int i, int) { return row[i * features.strides[2]]; }, at);
}

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

// Calls body(Constant<d>{}) for common numbers of features, else body(Constant<0>{}).
template <class Body>
void with_features(int64_t d, const Body& body) {
  switch (d) {
    case 2:
      return body(Constant<2>{});
    case 3:
      return body(Constant<3>{});
    case 5:
      return body(Constant<5>{});
    case 6:
      return body(Constant<6>{});
    default:
      return body(Constant<0>{});
  }
}

// `most_threads` bounds the threads, 0: a thread for each point.
template <class T, int kFeatures>
Points<T> points_of(const Context& context, const View<const T, 3>& features,
                    int64_t most_threads = 0) {
  Points<T> points = {};
  points.features = features;
  points.count = features.sizes[0] * features.sizes[1];
  const int64_t d = features.sizes[2];
  int64_t blocks = divide_up(points.count, kPointThreads);
  if (most_threads > 0) blocks = std::min(blocks, most_threads / kPointThreads);
  if (kFeatures == 0) {
    const int64_t numbers = kPointThreads * kArrays * (d + 1);
    blocks = std::min(blocks, divide_up(kSimplexBytes, numbers * static_cast<int64_t>(sizeof(T))));
    points.arrays = context.scratch->allocate_array<T>(static_cast<size_t>(blocks * numbers));
  }
  points.threads = blocks * kPointThreads;
  points.share = T(1) / static_cast<T>(d + 1);
  lattice_scales(static_cast<int>(d), points.scales);
  return points;
}

}  // namespace deformops::cuda

// Gaussian filtering on the permutohedral lattice: splat, blur, slice.
//
// All functions are partial derivatives of one multilinear form,
//     F(values, splat_weight, slice_weight, grad_output)
//         = <grad_output, slice_weight . blur(splat_weight^T . values)>,
// where the sparse matrices splat_weight and slice_weight share their places, the corners of each
// point (geometry/lattice.h), and the blur is the product over the d + 1 axes of
//     value(v) + (value(v before) + value(v behind)) / 2,
// absent neighbours counting 0, times blur_scale(d). Each factor is symmetric, so the transpose of
// the blur takes the axes in reverse order: lattice_filter is dF/dgrad_output and, in reverse,
// dF/dvalues; lattice_contract is dF/dslice_weight and, in reverse with values and grad_output
// exchanged, dF/dsplat_weight.
//
// Shapes: features [N, M, d]; P = N * M points, V vertices; values, output [P, L]; weights and
// vertex [P, d + 1]. Vertices are numbered by (image, coordinates), so numbers do not depend on
// threads or device. T is double or float.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/view.h"
#include "geometry/lattice.h"

namespace deformops {

// The range of the lifted coordinates of all points, and whether all of them are usable: neither
// NaN nor beyond kFarthest.
struct LatticeExtent {
  bool usable;
  double low[kMaxFeatures];
  double high[kMaxFeatures];
};

// What the sort of all corners by key has found, in scratch memory.
struct SortedCorners {
  KeyLayout layout;
  int64_t corners;
  int64_t vertices;
  const uint64_t* keys;  // of vertices, ascending: word w of vertex v is keys[w * stride + v]
  int64_t stride;
  const int32_t* first;  // of the sorted corners of each vertex
};

// What a built lattice is made of. start and entry list the corners p * (d + 1) + r of each vertex
// in ascending order; neighbor is -1 where there is none.
struct Lattice {
  View<const int32_t, 2> vertex;    // [P, d + 1]
  View<const int32_t, 1> start;     // [V + 1]
  View<const int32_t, 1> entry;     // [P * (d + 1)]
  View<const int32_t, 3> neighbor;  // [d + 1, V, 2]
};

// Bit-identical for any number of threads.
namespace cpu {

template <class T>
void lattice_extent(const Context& context, View<const T, 3> features, LatticeExtent& extent);

// Fills weight, vertex and entry.
template <class T>
void lattice_sort(const Context& context, const KeyLayout& layout, View<const T, 3> features,
                  View<T, 2> weight, View<int32_t, 2> vertex, View<int32_t, 1> entry,
                  SortedCorners& sorted);

// Fills start and neighbor, whose size is known by then.
void lattice_connect(const Context& context, const SortedCorners& sorted, View<int32_t, 1> start,
                     View<int32_t, 3> neighbor);

template <class T>
void lattice_filter(const Context& context, const Lattice& lattice, bool reverse,
                    View<const T, 2> values, View<const T, 2> splat_weight,
                    View<const T, 2> slice_weight, View<T, 2> output);

template <class T>
void lattice_contract(const Context& context, const Lattice& lattice, bool reverse,
                      View<const T, 2> grad_output, View<const T, 2> values,
                      View<const T, 2> splat_weight, View<T, 2> grad_weight);

// How the weights change with the features inside their simplex, and the transpose of that.
template <class T>
void lattice_weights_forward(const Context& context, View<const T, 3> tangent,
                             View<const T, 3> features, View<T, 2> change);

template <class T>
void lattice_weights_backward(const Context& context, View<const T, 2> grad_weight,
                              View<const T, 3> features, View<T, 3> grad_features);

}  // namespace cpu

// The same on the current device and context.stream, with the same bits every time. The host waits
// for lattice_extent and lattice_sort, which tell it how much memory comes next.
namespace cuda {

template <class T>
void lattice_extent(const Context& context, View<const T, 3> features, LatticeExtent& extent);

template <class T>
void lattice_sort(const Context& context, const KeyLayout& layout, View<const T, 3> features,
                  View<T, 2> weight, View<int32_t, 2> vertex, View<int32_t, 1> entry,
                  SortedCorners& sorted);

void lattice_connect(const Context& context, const SortedCorners& sorted, View<int32_t, 1> start,
                     View<int32_t, 3> neighbor);

template <class T>
void lattice_filter(const Context& context, const Lattice& lattice, bool reverse,
                    View<const T, 2> values, View<const T, 2> splat_weight,
                    View<const T, 2> slice_weight, View<T, 2> output);

template <class T>
void lattice_contract(const Context& context, const Lattice& lattice, bool reverse,
                      View<const T, 2> grad_output, View<const T, 2> values,
                      View<const T, 2> splat_weight, View<T, 2> grad_weight);

template <class T>
void lattice_weights_forward(const Context& context, View<const T, 3> tangent,
                             View<const T, 3> features, View<T, 2> change);

template <class T>
void lattice_weights_backward(const Context& context, View<const T, 2> grad_weight,
                              View<const T, 3> features, View<T, 3> grad_features);

}  // namespace cuda

}  // namespace deformops

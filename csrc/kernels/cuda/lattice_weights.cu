// How barycentric weights change with the features, and the transpose of that; a thread has a
// point.
#include "core/context.h"
#include "kernels/cuda/lattice_simplex.cuh"
#include "kernels/lattice.h"

namespace deformops::cuda {
namespace {

template <class T, int kFeatures>
__global__ void __launch_bounds__(kPointThreads, kPointBlocks)
    weights_forward_kernel(const Points<T> points, const View<const T, 3> tangent,
                           const View<T, 2> change) {
  const int d = features_of<T, kFeatures>(points);
  Simplex<T, kFeatures> simplex(points);
  const Simplices<T, 1> at = simplex.arrays();
  for_each_point(points, [&](int64_t p) {
    lift_point(d, points, points.features, p, at);
    find_simplex(d, points.share, at);
    lift_point(d, points, tangent, p, at);  // where it goes, instead of where it is
    for (int r = 0; r <= d; ++r) change(p, r) = T(0);
    for (int i = 0; i <= d; ++i) {
      const int32_t rank = at.rank[i][0];
      const T t = at.lifted[i][0] * points.share;
      change(p, growing_corner(d, rank)) += t;
      change(p, falling_corner(d, rank)) -= t;
    }
  });
}

template <class T, int kFeatures>
__global__ void __launch_bounds__(kPointThreads, kPointBlocks)
    weights_backward_kernel(const Points<T> points, const View<const T, 2> grad_weight,
                            const View<T, 3> grad_features) {
  const int d = features_of<T, kFeatures>(points);
  Simplex<T, kFeatures> simplex(points);
  const Simplices<T, 1> at = simplex.arrays();
  T* const lifted = at.lifted[0];
  for_each_point(points, [&](int64_t p) {
    lift_point(d, points, points.features, p, at);
    find_simplex(d, points.share, at);
    for (int i = 0; i <= d; ++i) {
      const int32_t rank = at.rank[i][0];
      lifted[i] =
          (grad_weight(p, growing_corner(d, rank)) - grad_weight(p, falling_corner(d, rank))) *
          points.share;
    }
    const int64_t image = image_of(points.features, p);
    const int64_t pixel = p - image * points.features.sizes[1];
    lift_transposed(d, points.scales, lifted,
                    [&](int i, T grad) { grad_features(image, pixel, i) = grad; });
  });
}

}  // namespace

template <class T>
void lattice_weights_forward(const Context& context, View<const T, 3> tangent,
                             View<const T, 3> features, View<T, 2> change) {
  with_features(features.sizes[2], [&](auto number) {
    constexpr int kFeatures = decltype(number)::value;
    const Points<T> points = points_of<T, kFeatures>(context, features);
    launch("weights_forward", weights_forward_kernel<T, kFeatures>, points.threads / kPointThreads,
           kPointThreads, context.stream, points, tangent, change);
  });
}

template <class T>
void lattice_weights_backward(const Context& context, View<const T, 2> grad_weight,
                              View<const T, 3> features, View<T, 3> grad_features) {
  with_features(features.sizes[2], [&](auto number) {
    constexpr int kFeatures = decltype(number)::value;
    const Points<T> points = points_of<T, kFeatures>(context, features);
    launch("weights_backward", weights_backward_kernel<T, kFeatures>,
           points.threads / kPointThreads, kPointThreads, context.stream, points, grad_weight,
           grad_features);
  });
}

#define DEFORMOPS_INSTANTIATE(T)                                                                \
  template void lattice_weights_forward<T>(const Context&, View<const T, 3>, View<const T, 3>,  \
                                           View<T, 2>);                                         \
  template void lattice_weights_backward<T>(const Context&, View<const T, 2>, View<const T, 3>, \
                                            View<T, 3>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);

}  // namespace deformops::cuda

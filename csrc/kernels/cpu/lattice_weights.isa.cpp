// How barycentric weights change with the features, and the transpose of that: constant as long as
// a point stays in its simplex.
#include "kernels/cpu/lattice_isa.h"
#include "kernels/cpu/lattice_simplices.h"

namespace deformops::cpu::DEFORMOPS_ISA {

template <class T>
void lattice_weights_forward(const Context&, View<const T, 3> tangent, View<const T, 3> features,
                             View<T, 2> change) {
  const Team team(change.sizes[0] * change.sizes[1] * (change.sizes[1] + 16));
  with_features(features.sizes[2], [&](auto number) {
    for_each_block<T, decltype(number)::value>(
        team, features, [&](auto& block, int64_t first, int64_t count, int64_t) {
          SimplexBlock<T, decltype(number)::value> tangents(tangent);
          block.find(first, count);
          tangents.lift_points(first, count);
          const int d = block.d();
          const auto at = block.simplices();
          const auto moved = tangents.simplices();
          const T share = block.share();
          for (int64_t lane = 0; lane < count; ++lane) {
            for (int r = 0; r <= d; ++r) change(first + lane, r) = T(0);
            for (int i = 0; i <= d; ++i) {
              const int32_t rank = at.rank[i][lane];
              const T t = moved.lifted[i][lane] * share;
              change(first + lane, growing_corner(d, rank)) += t;
              change(first + lane, falling_corner(d, rank)) -= t;
            }
          }
        });
  });
}

template <class T>
void lattice_weights_backward(const Context&, View<const T, 2> grad_weight,
                              View<const T, 3> features, View<T, 3> grad_features) {
  const int64_t points = features.sizes[1];
  const Team team(grad_weight.sizes[0] * grad_weight.sizes[1] * (grad_weight.sizes[1] + 16));
  with_features(features.sizes[2], [&](auto number) {
    for_each_block<T, decltype(number)::value>(
        team, features, [&](auto& block, int64_t first, int64_t count, int64_t) {
          block.find(first, count);
          const int d = block.d();
          const auto at = block.simplices();
          const T share = block.share();
          for (int64_t lane = 0; lane < count; ++lane) {
            const int64_t p = first + lane;
            T grad_lifted[kMaxFeatures + 1];
            for (int i = 0; i <= d; ++i) {
              const int32_t rank = at.rank[i][lane];
              grad_lifted[i] = (grad_weight(p, growing_corner(d, rank)) -
                                grad_weight(p, falling_corner(d, rank))) *
                               share;
            }
            lift_transposed(d, block.scales(), grad_lifted, [&](int i, T grad) {
              grad_features(p / points, p % points, i) = grad;
            });
          }
        });
  });
}

#define DEFORMOPS_INSTANTIATE(T)                                                                \
  template void lattice_weights_forward<T>(const Context&, View<const T, 3>, View<const T, 3>,  \
                                           View<T, 2>);                                         \
  template void lattice_weights_backward<T>(const Context&, View<const T, 2>, View<const T, 3>, \
                                            View<T, 3>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

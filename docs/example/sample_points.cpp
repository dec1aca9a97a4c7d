// Reads a map at any points: an op outside the package, on top of its sampling.
//
//   sample_points(input, points)[n, c, p] = sum_ij hat(y_p - i) * hat(x_p - j) * input[n, c, i, j]
//   spread_points is its transpose in input.
//
// order is that of the hat function on (y, x): 0, or 1 for its derivative.
#include <torch/csrc/stable/library.h>

#include "core/stencil.h"
#include "ops/checks.h"
#include "ops/tensors.h"

namespace {

using namespace deformops;

// Calls body(n, p, i, j, weight) for each pixel that a point looks at. Both ops are this loop: they
// cannot look at different places.
template <class T, class Body>
void for_each_pixel(const View<const T, 3>& points, int64_t height, int64_t width,
                    const Pair& order, const Body& body) {
  const auto along = [&](T position, int64_t size, int axis) {
    return axis_stencil(position, size, static_cast<int>(order[axis]), Border::kFade, Kink::kInner);
  };
  for (int64_t n = 0; n < points.sizes[0]; ++n) {
    for (int64_t p = 0; p < points.sizes[1]; ++p) {
      const auto y = along(points(n, p, 0), height, 0), x = along(points(n, p, 1), width, 1);
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
          if (y.index[i] < 0 || x.index[j] < 0) continue;
          body(n, p, y.index[i], x.index[j], y.weight[i] * x.weight[j]);
        }
      }
    }
  }
}

template <class T>
void sample(const Tensor& input, const Tensor& points, const Pair& order, const Tensor& output) {
  const auto from = view<const T, 4>(input);
  const auto to = view<T, 3>(output);
  for_each_pixel(view<const T, 3>(points), from.sizes[2], from.sizes[3], order,
                 [&](int64_t n, int64_t p, int64_t i, int64_t j, T weight) {
                   for (int64_t c = 0; c < from.sizes[1]; ++c) {
                     to(n, c, p) += weight * from(n, c, i, j);
                   }
                 });
}

template <class T>
void spread(const Tensor& values, const Tensor& points, const Pair& order, const Tensor& output) {
  const auto from = view<const T, 3>(values);
  const auto to = view<T, 4>(output);
  for_each_pixel(view<const T, 3>(points), to.sizes[2], to.sizes[3], order,
                 [&](int64_t n, int64_t p, int64_t i, int64_t j, T weight) {
                   for (int64_t c = 0; c < from.sizes[1]; ++c) {
                     to(n, c, i, j) += weight * from(n, c, p);
                   }
                 });
}

void check(const char* op, const Tensor& map, const char* name, int64_t rank, const char* layout,
           const Tensor& points) {
  const Checker check(op);
  const ScalarType type = map.scalar_type();
  check.require(type == ScalarType::Double || type == ScalarType::Float, name,
                "expected float64 or float32, got ", torch::headeronly::toString(type));
  check.rank(map, name, rank, layout);
  check.rank(points, "points", 3, "[N, P, 2]");
  check.same_kind(points, "points", map, name);
  check.shape(points, "points", {map.size(0), points.size(1), 2}, "[N, P, 2]");
}

Tensor sample_points(Tensor input, Tensor points, Pair order) {
  check("sample_points", input, "input", 4, "[N, C, H, W]", points);
  Tensor output = new_tensor(input, {input.size(0), input.size(1), points.size(1)});
  torch::stable::zero_(output);
  const bool wide = input.scalar_type() == ScalarType::Double;
  (wide ? sample<double> : sample<float>)(input, points, order, output);
  return output;
}

Tensor spread_points(Tensor values, Tensor points, Pair size, Pair order) {
  check("spread_points", values, "values", 3, "[N, C, P]", points);
  Tensor output = new_tensor(values, {values.size(0), values.size(1), size[0], size[1]});
  torch::stable::zero_(output);
  const bool wide = values.scalar_type() == ScalarType::Double;
  (wide ? spread<double> : spread<float>)(values, points, order, output);
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY(example, m) {
  m.def("sample_points(Tensor input, Tensor points, int[2] order) -> Tensor");
  m.def("spread_points(Tensor values, Tensor points, SymInt[2] size, int[2] order) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(example, CPU, m) {
  m.impl("sample_points", TORCH_BOX(&sample_points));
  m.impl("spread_points", TORCH_BOX(&spread_points));
}

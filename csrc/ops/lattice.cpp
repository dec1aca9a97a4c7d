#include "ops/lattice.h"

#include <algorithm>

#include "kernels/lattice.h"
#include "kernels/mean_field.h"
#include "ops/checks.h"

namespace deformops {
namespace {

// The kernels' T of a dtype that check_real has let through.
template <class Body>
void dispatch_real(ScalarType dtype, const Body& body) {
  if (dtype == ScalarType::Double) return body(Type<double>{});
  body(Type<float>{});
}

void check_real(const Checker& check, const Tensor& tensor, const char* argument) {
  const ScalarType dtype = tensor.scalar_type();
  check.require(dtype == ScalarType::Double || dtype == ScalarType::Float, argument,
                "expected a tensor of float64 or float32, got dtype ",
                torch::headeronly::toString(dtype));
}

void check_features(const Checker& check, const Tensor& features) {
  check.rank(features, "features", 3, "[N, M, d]");
  check_real(check, features, "features");
  const int64_t d = features.size(2);
  check.require(d >= 1 && d <= kMaxFeatures, "features", "expected 1 to ", kMaxFeatures,
                " features, got shape ", to_string(shape_of(features)));
  const int64_t points = features.size(0) * features.size(1);
  check.require(points <= kLargest / (d + 1), "features", "expected at most ", kLargest,
                " corners of simplices, (d + 1) for each point, got shape ",
                to_string(shape_of(features)));
}

// The arrays of a lattice that was built, for weights [P, d + 1].
class BuiltLattice {
 public:
  BuiltLattice(const Checker& check, const Tensor& vertex, const Tensor& start, const Tensor& entry,
               const Tensor& neighbor, const Tensor& like)
      : vertex_(vertex), start_(start), entry_(entry), neighbor_(neighbor) {
    check.rank(vertex, "vertex", 2, "[P, d + 1]");
    check.rank(start, "start", 1, "[V + 1]");
    check.require(start.size(0) >= 1, "start", "expected shape [V + 1], got [0]");
    check_index(check, vertex, "vertex", like);
    check_index(check, start, "start", like);
    check_index(check, entry, "entry", like);
    check_index(check, neighbor, "neighbor", like);
    check.shape(entry, "entry", {vertex.numel()}, "[P * (d + 1)]");
    check.shape(neighbor, "neighbor", {vertex.size(1), start.size(0) - 1, 2}, "[d + 1, V, 2]");
  }

  void check_weight(const Checker& check, const Tensor& weight, const char* argument,
                    const Tensor& values) const {
    check.same_kind(weight, argument, values, "values");
    check.shape(weight, argument, shape_of(vertex_), "[P, d + 1]");
  }

  void check_values(const Checker& check, const Tensor& values, const char* argument) const {
    check.rank(values, argument, 2, "[P, L]");
    check_real(check, values, argument);
    check.require(values.size(0) == vertex_.size(0), argument, "expected a row for each of the ",
                  vertex_.size(0), " points, got shape ", to_string(shape_of(values)));
  }

  Lattice views() const {
    return {view<const int32_t, 2>(vertex_), view<const int32_t, 1>(start_),
            view<const int32_t, 1>(entry_), view<const int32_t, 3>(neighbor_)};
  }

 private:
  static void check_index(const Checker& check, const Tensor& tensor, const char* argument,
                          const Tensor& like) {
    check.require(tensor.scalar_type() == ScalarType::Int, argument,
                  "expected a tensor of int32, got dtype ",
                  torch::headeronly::toString(tensor.scalar_type()));
    check.require(tensor.device() == like.device(), argument,
                  "expected a tensor on the device of values, got one on another device");
    check.require(tensor.is_contiguous(), argument, "expected a contiguous tensor");
  }

  Tensor vertex_, start_, entry_, neighbor_;
};

}  // namespace

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lattice_build(Tensor features) {
  const Checker check("lattice_build");
  check_features(check, features);
  const int64_t images = features.size(0), points = images * features.size(1);
  const int64_t d = features.size(2), corners = d + 1;

  const auto index = [&](const std::vector<int64_t>& sizes) {
    return new_tensor(features, sizes, false, ScalarType::Int);
  };
  Tensor vertex = index({points, corners});
  Tensor weight = new_tensor(features, {points, corners});
  Tensor entry = index({points * corners});
  Tensor start = index({1}), neighbor = index({corners, 0, 2});
  if (points == 0) return {vertex, weight, torch::stable::zero_(start), entry, neighbor};

  Call call(check.op(), features);
  dispatch_real(features.scalar_type(), [&]<class T>(Type<T>) {
    const auto seen = view<const T, 3>(features);
    const Context context = call.context(true);
    LatticeExtent extent;
    DEFORMOPS_RUN(Device, lattice_extent<T>(context, seen, extent));
    check.require(extent.usable, "features",
                  "expected finite numbers of standard deviations that lie within ",
                  static_cast<int64_t>(kFarthest<T>),
                  " after lifting to the lattice (a bandwidth may be too small), got NaN, infinity "
                  "or a larger one");
    const KeyLayout layout = key_layout(static_cast<int>(d), images, extent.low, extent.high);
    SortedCorners sorted;
    DEFORMOPS_RUN(
        Device, lattice_sort<T>(context, layout, seen, view<T, 2>(weight), view<int32_t, 2>(vertex),
                                view<int32_t, 1>(entry), sorted));
    start = index({sorted.vertices + 1});
    neighbor = index({corners, sorted.vertices, 2});
    DEFORMOPS_RUN(Device, lattice_connect(context, sorted, view<int32_t, 1>(start),
                                          view<int32_t, 3>(neighbor)));
  });
  return {vertex, weight, start, entry, neighbor};
}

template <class Device>
Tensor lattice_filter(Tensor values, Tensor splat_weight, Tensor slice_weight, Tensor vertex,
                      Tensor start, Tensor entry, Tensor neighbor, bool reverse) {
  const Checker check("lattice_filter");
  const BuiltLattice lattice(check, vertex, start, entry, neighbor, values);
  lattice.check_values(check, values, "values");
  lattice.check_weight(check, splat_weight, "splat_weight", values);
  lattice.check_weight(check, slice_weight, "slice_weight", values);

  Tensor output = new_tensor(values, shape_of(values));
  if (output.numel() == 0) return output;
  Call call(check.op(), values);
  dispatch_real(values.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(Device,
                  lattice_filter<T>(call.context(true), lattice.views(), reverse,
                                    view<const T, 2>(values), view<const T, 2>(splat_weight),
                                    view<const T, 2>(slice_weight), view<T, 2>(output)));
  });
  return output;
}

template <class Device>
Tensor lattice_contract(Tensor grad_output, Tensor values, Tensor splat_weight, Tensor vertex,
                        Tensor start, Tensor entry, Tensor neighbor, bool reverse) {
  const Checker check("lattice_contract");
  const BuiltLattice lattice(check, vertex, start, entry, neighbor, values);
  lattice.check_values(check, values, "values");
  check.same_kind(grad_output, "grad_output", values, "values");
  check.shape(grad_output, "grad_output", shape_of(values), "[P, L]");
  lattice.check_weight(check, splat_weight, "splat_weight", values);

  Tensor grad_weight = new_tensor(values, shape_of(vertex));
  if (values.numel() == 0) return torch::stable::zero_(grad_weight);
  Call call(check.op(), values);
  dispatch_real(values.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(Device,
                  lattice_contract<T>(call.context(true), lattice.views(), reverse,
                                      view<const T, 2>(grad_output), view<const T, 2>(values),
                                      view<const T, 2>(splat_weight), view<T, 2>(grad_weight)));
  });
  return grad_weight;
}

template <class Device>
Tensor lattice_weights_forward(Tensor tangent, Tensor features) {
  const Checker check("lattice_weights_forward");
  check_features(check, features);
  check.same_kind(tangent, "tangent", features, "features");
  check.shape(tangent, "tangent", shape_of(features), "[N, M, d]");

  Tensor change = new_tensor(features, {features.size(0) * features.size(1), features.size(2) + 1});
  if (change.numel() == 0) return change;
  Call call(check.op(), features);
  dispatch_real(features.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(Device,
                  lattice_weights_forward<T>(call.context(true), view<const T, 3>(tangent),
                                             view<const T, 3>(features), view<T, 2>(change)));
  });
  return change;
}

template <class Device>
Tensor lattice_weights_backward(Tensor grad_weight, Tensor features) {
  const Checker check("lattice_weights_backward");
  check_features(check, features);
  check.same_kind(grad_weight, "grad_weight", features, "features");
  check.shape(grad_weight, "grad_weight",
              {features.size(0) * features.size(1), features.size(2) + 1}, "[N * M, d + 1]");

  Tensor grad_features = new_tensor(features, shape_of(features));
  if (grad_features.numel() == 0) return grad_features;
  Call call(check.op(), features);
  dispatch_real(features.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(
        Device, lattice_weights_backward<T>(call.context(true), view<const T, 2>(grad_weight),
                                            view<const T, 3>(features), view<T, 3>(grad_features)));
  });
  return grad_features;
}

namespace {

// A compatibility of any kind as a matrix [1, 1], [1, L] or [L, L].
template <class T>
View<const T, 2> compatibility_view(const Tensor& compatibility) {
  View<const T, 2> result;
  if (compatibility.dim() == 2) return view<const T, 2>(compatibility);
  if (compatibility.dim() == 1) {
    const auto vector = view<const T, 1>(compatibility);
    return {vector.data, {1, vector.sizes[0]}, {0, vector.strides[0]}};
  }
  return {view<const T, 0>(compatibility).data, {1, 1}, {0, 0}};
}

}  // namespace

template <class Device>
Tensor mean_field(Tensor unary, std::vector<Tensor> splat_weight, std::vector<Tensor> slice_weight,
                  std::vector<Tensor> vertex, std::vector<Tensor> start, std::vector<Tensor> entry,
                  std::vector<Tensor> neighbor, std::vector<Tensor> compatibility,
                  std::vector<Tensor> self_weight, OptionalTensor initial, int64_t iterations) {
  const Checker check("mean_field");
  check.rank(unary, "unary", 3, "[N, L, M]");
  check_real(check, unary, "unary");
  check.require(iterations >= 0, "iterations", "expected 0 or more, got ", iterations);
  if (initial) {
    check.same_kind(*initial, "initial", unary, "unary");
    check.shape(*initial, "initial", shape_of(unary), "[N, L, M]");
  }
  const size_t count = vertex.size();
  const auto one_each = [&](const std::vector<Tensor>& list, const char* argument) {
    check.require(list.size() == count, argument, "expected a tensor for each of the ", count,
                  " kernels, got ", list.size());
  };
  one_each(splat_weight, "splat_weight");
  one_each(slice_weight, "slice_weight");
  one_each(start, "start");
  one_each(entry, "entry");
  one_each(neighbor, "neighbor");
  one_each(compatibility, "compatibility");
  if (!self_weight.empty()) one_each(self_weight, "self_weight");

  const int64_t labels = unary.size(1), points = unary.size(0) * unary.size(2);
  std::vector<BuiltLattice> lattices;
  for (size_t k = 0; k < count; ++k) {
    const BuiltLattice& lattice =
        lattices.emplace_back(check, vertex[k], start[k], entry[k], neighbor[k], unary);
    check.require(vertex[k].size(0) == points, "vertex", "expected a row for each of the ", points,
                  " points of unary, got shape ", to_string(shape_of(vertex[k])));
    lattice.check_weight(check, splat_weight[k], "splat_weight", unary);
    lattice.check_weight(check, slice_weight[k], "slice_weight", unary);
    check.same_kind(compatibility[k], "compatibility", unary, "unary");
    const std::vector<int64_t> shape(
        static_cast<size_t>(std::min<int64_t>(compatibility[k].dim(), 2)), labels);
    check.shape(compatibility[k], "compatibility", shape, "[], [L] or [L, L]");
    if (self_weight.empty()) continue;
    check.same_kind(self_weight[k], "self_weight", unary, "unary");
    check.shape(self_weight[k], "self_weight", {points}, "[P]");
  }

  Tensor result = new_tensor(unary, shape_of(unary));
  if (result.numel() == 0) return result;
  Call call(check.op(), unary);
  dispatch_real(unary.scalar_type(), [&]<class T>(Type<T>) {
    std::vector<MessageKernel<T>> kernels(count);
    for (size_t k = 0; k < count; ++k) {
      kernels[k] = {lattices[k].views(),
                    view<const T, 2>(splat_weight[k]),
                    view<const T, 2>(slice_weight[k]),
                    static_cast<Compatibility>(compatibility[k].dim()),
                    compatibility_view<T>(compatibility[k]),
                    {}};
      if (!self_weight.empty()) kernels[k].self_weight = view<const T, 1>(self_weight[k]);
    }
    DEFORMOPS_RUN(Device, mean_field<T>(call.context(true), kernels.data(),
                                        static_cast<int64_t>(count), view<const T, 3>(unary),
                                        view<const T, 3>(initial), iterations, view<T, 3>(result)));
  });
  return result;
}

#define DEFORMOPS_INSTANTIATE(Device)                                                              \
  template std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lattice_build<Device>(Tensor);       \
  template Tensor lattice_filter<Device>(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,   \
                                         bool);                                                    \
  template Tensor lattice_contract<Device>(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, \
                                           bool);                                                  \
  template Tensor lattice_weights_forward<Device>(Tensor, Tensor);                                 \
  template Tensor lattice_weights_backward<Device>(Tensor, Tensor);                                \
  template Tensor mean_field<Device>(                                                              \
      Tensor, std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>,  \
      std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>,          \
      OptionalTensor, int64_t)

#if !defined(DEFORMOPS_SIMULATED)
DEFORMOPS_INSTANTIATE(CpuKernels);
#endif
#if defined(DEFORMOPS_WITH_CUDA) || defined(DEFORMOPS_SIMULATED)
DEFORMOPS_INSTANTIATE(CudaKernels);
#endif

}  // namespace deformops

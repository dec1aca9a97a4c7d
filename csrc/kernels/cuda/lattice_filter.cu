// Splat, blur and slice, for a block of channels at a time: memory does not grow with their number.
#include "core/context.h"
#include "kernels/cuda/lattice_blur.cuh"
#include "kernels/lattice.h"

namespace deformops::cuda {
namespace {

constexpr int64_t kBlockChannels = 64;

// output[p] = scale * sum over corners of weight * rows[vertex].
template <class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    slice_kernel(const Lattice lattice, const View<const T, 2> weight, T scale,
                 const RowShape shape, const T* rows, View<T, 2> output, int64_t first,
                 int64_t width) {
  using C = Channels<T, kWidth>;
  const int64_t p = shape.row();
  if (shape.idle() || p >= output.sizes[0]) return;
  const int64_t stride = shape.count * kWidth;
  const int corners = static_cast<int>(lattice.vertex.sizes[1]);
  for (int64_t c = shape.lane(); c < shape.count; c += shape.lanes) {
    C sum = {};
    for (int r = 0; r < corners; ++r) {
      const int64_t v = lattice.vertex(p, r);
      sum.add_product(weight(p, r), *reinterpret_cast<const C*>(rows + v * stride + c * kWidth));
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const int64_t channel = c * kWidth + i;
      if (channel < width) output(p, first + channel) = scale * sum.value[i];
    }
  }
}

constexpr int kDotLanes = 8;

// grad_weight[p][r] (+)= scale * <grad[p], rows[vertex[p][r]]>; eight threads for each.
template <class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    dot_kernel(const Lattice lattice, const PointValues<T> grad, T scale, int64_t count,
               const T* rows, View<T, 2> grad_weight, bool add) {
  using C = Channels<T, kWidth>;
  const int64_t corner = (static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x) / kDotLanes;
  const int lane = threadIdx.x % kDotLanes;
  const int64_t corners = lattice.vertex.sizes[1], size = lattice.entry.sizes[0];
  const int64_t p = (corner < size ? corner : size - 1) / corners;
  T dot = T(0);
  if (corner < size) {
    const T* const row = rows + lattice.vertex.data[corner] * count * kWidth;
    for (int64_t c = lane; c < count; c += kDotLanes) {
      const C a = grad.template load<kWidth, false>(p, c * kWidth);
      const C b = *reinterpret_cast<const C*>(row + c * kWidth);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) dot += a.value[i] * b.value[i];
    }
  }
  for (int distance = kDotLanes / 2; distance > 0; distance /= 2) {
    dot += __shfl_down_sync(~0u, dot, distance, kDotLanes);
  }
  if (lane != 0 || corner >= size) return;
  T& target = grad_weight(p, corner - p * corners);
  target = add ? target + scale * dot : scale * dot;
}

// Calls body(Width<w>{}, blurred rows, first channel, channels) for blocks of channels.
template <class T, class Body>
void for_each_block(const Context& context, const Lattice& lattice, bool reverse,
                    const View<const T, 2>& values, const View<const T, 2>& weight,
                    const Body& body) {
  const int64_t channels = values.sizes[1];
  const int64_t block = channels < kBlockChannels ? channels : kBlockChannels;
  with_width<T>(channels, [&](auto number) {
    constexpr int kWidth = decltype(number)::value;
    VertexRows<T, kWidth> rows(context, lattice, block);
    for (int64_t first = 0; first < channels; first += block) {
      const int64_t width = channels - first < block ? channels - first : block;
      const PointValues<T> points = {values.data + first * values.strides[1], values.strides[0],
                                     values.strides[1], width};
      body(number, rows.template run<false>(points, weight, reverse), first, width,
           rows.stride() / kWidth);
    }
  });
}

}  // namespace

template <class T>
void lattice_filter(const Context& context, const Lattice& lattice, bool reverse,
                    View<const T, 2> values, View<const T, 2> splat_weight,
                    View<const T, 2> slice_weight, View<T, 2> output) {
  const T scale = blur_scale<T>(static_cast<int>(lattice.vertex.sizes[1]) - 1);
  for_each_block(context, lattice, reverse, values, splat_weight,
                 [&](auto number, const T* rows, int64_t first, int64_t width, int64_t count) {
                   const RowShape shape = row_shape(count);
                   launch("slice", slice_kernel<T, decltype(number)::value>,
                          shape.blocks(output.sizes[0]), kRowThreads, context.stream, lattice,
                          slice_weight, scale, shape, rows, output, first, width);
                 });
}

template <class T>
void lattice_contract(const Context& context, const Lattice& lattice, bool reverse,
                      View<const T, 2> grad_output, View<const T, 2> values,
                      View<const T, 2> splat_weight, View<T, 2> grad_weight) {
  const T scale = blur_scale<T>(static_cast<int>(lattice.vertex.sizes[1]) - 1);
  for_each_block(
      context, lattice, reverse, values, splat_weight,
      [&](auto number, const T* rows, int64_t first, int64_t width, int64_t count) {
        const PointValues<T> grad = {grad_output.data + first * grad_output.strides[1],
                                     grad_output.strides[0], grad_output.strides[1], width};
        launch("dot", dot_kernel<T, decltype(number)::value>,
               divide_up(lattice.entry.sizes[0] * kDotLanes, kRowThreads), kRowThreads,
               context.stream, lattice, grad, scale, count, rows, grad_weight, first > 0);
      });
}

#define DEFORMOPS_INSTANTIATE(T)                                                            \
  template void lattice_filter<T>(const Context&, const Lattice&, bool, View<const T, 2>,   \
                                  View<const T, 2>, View<const T, 2>, View<T, 2>);          \
  template void lattice_contract<T>(const Context&, const Lattice&, bool, View<const T, 2>, \
                                    View<const T, 2>, View<const T, 2>, View<T, 2>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);

}  // namespace deformops::cuda

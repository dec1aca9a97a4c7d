// Mean-field inference: for each iteration splat and blur of every kernel, then one pass over
// points that slices up to kFused kernels, adds the unary energies and normalises. The
// compatibility of labels and the filter over points commute: a matrix is applied to Q before it is
// filtered.
//
// Scratch: two rows for each point (unary energies, Q), one more if there are more than kFused
// kernels, and one for each compatibility that is a matrix; two for each vertex of each kernel.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/context.h"
#include "kernels/cuda/lattice_blur.cuh"
#include "kernels/mean_field.h"

namespace deformops::cuda {
namespace {

constexpr int kFused = 4;
constexpr int kTransposeSide = 32;
constexpr int kTransposeRows = 8;  // of threads
constexpr int kTransposeThreads = kTransposeSide * kTransposeRows;

// [N, L, M], to be read or written.
template <class T, bool kToRows>
using Images = View<std::conditional_t<kToRows, const T, T>, 3>;

// rows[p][l] = factor * images[n][l][m] and, behind the labels, `behind`; or the other way round. A
// block has a square of labels and pixels.
template <class T, bool kToRows>
__global__ void __launch_bounds__(kTransposeThreads)
    transpose_kernel(const Images<T, kToRows> images, T factor, T behind, int64_t stride, T* rows) {
  __shared__ T square[kTransposeSide][kTransposeSide + 1];
  const int64_t labels = images.sizes[1], size = images.sizes[2];
  const int64_t label_tiles = (stride + kTransposeSide - 1) / kTransposeSide;
  const int64_t pixel_tiles = (size + kTransposeSide - 1) / kTransposeSide;
  int64_t block = blockIdx.x;
  const int64_t first_label = block % label_tiles * kTransposeSide;
  block /= label_tiles;
  const int64_t first_pixel = block % pixel_tiles * kTransposeSide, n = block / pixel_tiles;
  const int x = threadIdx.x % kTransposeSide;

  for (int y = threadIdx.x / kTransposeSide; y < kTransposeSide; y += kTransposeRows) {
    if constexpr (kToRows) {
      const int64_t l = first_label + y, m = first_pixel + x;
      square[y][x] = l < labels && m < size ? factor * images(n, l, m) : behind;
    } else {
      const int64_t l = first_label + x, m = first_pixel + y;
      if (l < labels && m < size) square[x][y] = rows[(n * size + m) * stride + l];
    }
  }
  __syncthreads();
  for (int y = threadIdx.x / kTransposeSide; y < kTransposeSide; y += kTransposeRows) {
    if constexpr (kToRows) {
      const int64_t l = first_label + x, m = first_pixel + y;
      if (l < stride && m < size) rows[(n * size + m) * stride + l] = square[x][y];
    } else {
      const int64_t l = first_label + y, m = first_pixel + x;
      if (l < labels && m < size) images(n, l, m) = square[y][x];
    }
  }
}

// mixed[p] = compatibility . q[p]
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    mix_labels_kernel(const View<const T, 2> compatibility, const T* q, int64_t points,
                      const RowShape shape, T* mixed) {
  const int64_t p = shape.row(), labels = compatibility.sizes[0];
  if (shape.idle() || p >= points) return;
  const T* const row = q + p * shape.count;
  for (int64_t l = shape.lane(); l < shape.count; l += shape.lanes) {
    T sum = T(0);
    if (l < labels) {
      for (int64_t from = 0; from < labels; ++from) sum += compatibility(l, from) * row[from];
    }
    mixed[p * shape.count + l] = sum;
  }
}

// A kernel's part in an update.
template <class T>
struct MessageSource {
  const T* rows;  // blurred, of vertices
  const int32_t* vertex;
  View<const T, 2> weight;
  int corners;
  T scale;                // of the blur
  View<const T, 1> gain;  // of labels; undefined: they were mixed before
  const T* self;          // Q as it was splatted, for the self weight
  View<const T, 1> self_weight;
};
template <class T>
struct MessageSources {
  MessageSource<T> source[kFused];
  int count;
};

template <class T, int kWidth>
__device__ __forceinline__ void add_messages(const MessageSources<T>& sources, int64_t p,
                                             int64_t stride, int64_t channel,
                                             Channels<T, kWidth>& scores) {
  using C = Channels<T, kWidth>;
  for (int k = 0; k < sources.count; ++k) {
    const MessageSource<T>& source = sources.source[k];
    C message = {};
    for (int r = 0; r < source.corners; ++r) {
      const int64_t v = source.vertex[p * source.corners + r];
      message.add_product(source.weight(p, r),
                          *reinterpret_cast<const C*>(source.rows + v * stride + channel));
    }
    C self = {};
    if (source.self_weight.defined()) {
      self.add_product(source.self_weight(p),
                       *reinterpret_cast<const C*>(source.self + p * stride + channel));
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const bool has_gain = source.gain.defined() && channel + i < source.gain.sizes[0];
      const T gain = has_gain ? source.gain(channel + i) : T(1);
      scores.value[i] += gain * (source.scale * message.value[i] - self.value[i]);
    }
  }
}

// scores = start + messages.
template <class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    add_messages_kernel(const MessageSources<T> sources, const T* start, int64_t points,
                        const RowShape shape, T* scores) {
  using C = Channels<T, kWidth>;
  const int64_t p = shape.row();
  if (shape.idle() || p >= points) return;
  const int64_t stride = shape.count * kWidth;
  for (int64_t c = shape.lane(); c < shape.count; c += shape.lanes) {
    const int64_t at = p * stride + c * kWidth;
    C sum = *reinterpret_cast<const C*>(start + at);
    add_messages<T, kWidth>(sources, p, stride, c * kWidth, sum);
    *reinterpret_cast<C*>(scores + at) = sum;
  }
}

template <class T, class Combine>
__device__ __forceinline__ T over_group(T value, int group, const Combine& combine) {
  for (int distance = group / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(~0u, value, distance));
  }
  return value;
}

// q = softmax(start + messages); `group` threads of a warp have a point. Where a thread has several
// pieces of the row, q holds their scores in between.
template <class T, int kWidth, bool kOnePiece>
__global__ void __launch_bounds__(kRowThreads)
    normalize_kernel(const MessageSources<T> sources, const T* start, int64_t points, int64_t count,
                     int group, T* q) {
  using C = Channels<T, kWidth>;
  const int64_t stride = count * kWidth;
  const int64_t p = (static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x) / group;
  const int lane = static_cast<int>(threadIdx.x) % group;
  // Whoever has no point takes part in the shuffles.
  const int64_t end = p < points ? count : 0;

  C scores = {};
  T largest = -static_cast<T>(INFINITY);
  for (int64_t c = lane; c < end; c += group) {
    scores = *reinterpret_cast<const C*>(start + p * stride + c * kWidth);
    add_messages<T, kWidth>(sources, p, stride, c * kWidth, scores);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      largest = scores.value[i] > largest ? scores.value[i] : largest;
    }
    if (!kOnePiece) *reinterpret_cast<C*>(q + p * stride + c * kWidth) = scores;
  }
  largest = over_group(largest, group, [](T a, T b) { return a > b ? a : b; });

  T sum = T(0);
  for (int64_t c = lane; c < end; c += group) {
    C* const at = reinterpret_cast<C*>(q + p * stride + c * kWidth);
    if (!kOnePiece) scores = *at;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      scores.value[i] = exp(scores.value[i] - largest);
      sum += scores.value[i];
    }
    if (!kOnePiece) *at = scores;
  }
  sum = over_group(sum, group, [](T a, T b) { return a + b; });
  for (int64_t c = lane; c < end; c += group) {
    C* const at = reinterpret_cast<C*>(q + p * stride + c * kWidth);
    if (!kOnePiece) scores = *at;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) scores.value[i] /= sum;
    *at = scores;
  }
}

template <class T, int kWidth>
class MeanField {
 public:
  MeanField(const Context& context, const MessageKernel<T>* kernels, int64_t count,
            const View<const T, 3>& unary)
      : context_(context),
        points_(unary.sizes[0] * unary.sizes[2]),
        labels_(unary.sizes[1]),
        shape_(row_shape(divide_up(unary.sizes[1], kWidth))),
        stride_(shape_.count * kWidth),
        start_(allocate_rows()),
        q_(allocate_rows()),
        sums_(count > kFused ? allocate_rows() : nullptr) {
    read("read_unary", unary, T(-1), -static_cast<T>(INFINITY), start_);
    for (int64_t k = 0; k < count; ++k) {
      T* const mixed = kernels[k].kind == Compatibility::kMatrix ? allocate_rows() : nullptr;
      messages_.push_back({kernels[k], {context, kernels[k].lattice, stride_}, mixed});
    }
  }

  void run(const View<const T, 3>& initial, int64_t iterations, const View<T, 3>& result) {
    if (initial.defined()) {
      read("read_initial", initial, T(1), T(0), q_);
    } else {
      normalize({}, start_);
    }
    for (int64_t i = 0; i < iterations; ++i) update();
    launch("write_result", transpose_kernel<T, false>, squares(result), kTransposeThreads,
           context_.stream, result, T(1), T(0), stride_, q_);
  }

 private:
  struct Message {
    MessageKernel<T> kernel;
    VertexRows<T, kWidth> rows;
    T* mixed;  // Q with its labels mixed, if the compatibility is a matrix
  };

  T* allocate_rows() const {
    return context_.scratch->template allocate_array<T>(static_cast<size_t>(points_ * stride_));
  }

  template <class Image>
  int64_t squares(const View<Image, 3>& images) const {
    return images.sizes[0] * divide_up(images.sizes[2], kTransposeSide) *
           divide_up(stride_, kTransposeSide);
  }

  void read(const char* name, const View<const T, 3>& images, T factor, T behind, T* rows) const {
    launch(name, transpose_kernel<T, true>, squares(images), kTransposeThreads, context_.stream,
           images, factor, behind, stride_, rows);
  }

  void normalize(const MessageSources<T>& sources, const T* start) const {
    int group = 1;
    while (group < shape_.count && group < 32) group *= 2;
    auto kernel = normalize_kernel<T, kWidth, true>;
    if constexpr (kWidth * sizeof(T) == 16) {  // narrower rows have one piece
      if (shape_.count > group) kernel = normalize_kernel<T, kWidth, false>;
    }
    launch("normalize", kernel, divide_up(points_ * group, kRowThreads), kRowThreads,
           context_.stream, sources, start, points_, shape_.count, group, q_);
  }

  MessageSource<T> send(Message& message) const {
    const MessageKernel<T>& kernel = message.kernel;
    const T* values = q_;
    View<const T, 1> gain = {
        kernel.compatibility.data, {labels_}, {kernel.compatibility.strides[1]}};
    if (message.mixed != nullptr) {
      const RowShape shape = row_shape(stride_);
      launch("mix_labels", mix_labels_kernel<T>, shape.blocks(points_), kRowThreads,
             context_.stream, kernel.compatibility, q_, points_, shape, message.mixed);
      values = message.mixed;
      gain = {};
    }
    const T* const rows =
        message.rows.template run<true>({values, stride_, 1, stride_}, kernel.splat_weight, false);
    const int corners = static_cast<int>(kernel.lattice.vertex.sizes[1]);
    return {rows,    kernel.lattice.vertex.data, kernel.slice_weight,
            corners, blur_scale<T>(corners - 1), gain,
            values,  kernel.self_weight};
  }

  // All kernels send before Q changes.
  void update() {
    MessageSources<T> sources = {};
    const T* start = start_;
    for (Message& message : messages_) {
      if (sources.count == kFused) {
        launch("add_messages", add_messages_kernel<T, kWidth>, shape_.blocks(points_), kRowThreads,
               context_.stream, sources, start, points_, shape_, sums_);
        start = sums_;
        sources.count = 0;
      }
      sources.source[sources.count++] = send(message);
    }
    normalize(sources, start);
  }

  Context context_;
  int64_t points_, labels_;
  RowShape shape_;
  int64_t stride_;
  std::vector<Message> messages_;
  T* start_;
  T* q_;
  T* sums_;
};

}  // namespace

template <class T>
void mean_field(const Context& context, const MessageKernel<T>* kernels, int64_t count,
                View<const T, 3> unary, View<const T, 3> initial, int64_t iterations,
                View<T, 3> result) {
  with_width<T>(unary.sizes[1], [&](auto number) {
    MeanField<T, decltype(number)::value>(context, kernels, count, unary)
        .run(initial, iterations, result);
  });
}

#define DEFORMOPS_INSTANTIATE(T)                                                                  \
  template void mean_field<T>(const Context&, const MessageKernel<T>*, int64_t, View<const T, 3>, \
                              View<const T, 3>, int64_t, View<T, 3>)
DEFORMOPS_INSTANTIATE(double);
DEFORMOPS_INSTANTIATE(float);

}  // namespace deformops::cuda

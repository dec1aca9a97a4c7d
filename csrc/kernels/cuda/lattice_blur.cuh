// Splat and blur: the rows of all vertices from the rows of all points.
//
// The splat is a segmented sum over the corners in the order of their vertices. Pieces of kPiece
// corners are summed by a group of threads each, however they are spread over vertices; what a
// piece has of a vertex that others share goes to a buffer, and is added in order. So the work is
// even when one vertex has all the points, and the sum does not depend on who is first.
//
// Scratch: two rows for each vertex, two for each piece.
#pragma once

#include <cstdint>
#include <utility>

#include "core/context.h"
#include "kernels/cuda/lattice_rows.cuh"
#include "kernels/lattice.h"

namespace deformops::cuda {

constexpr int kPiece = 64;

// Points [P] with `channels` values each, `width` of which are there from `first` on; they lie in
// rows of their own or in the tensor of whoever called.
template <class T>
struct PointValues {
  const T* data;
  int64_t point_stride, channel_stride;
  int64_t channels;

  // Vectors where rows are padded to them, else channel by channel, 0 behind the last.
  template <int kWidth, bool kPadded>
  __device__ __forceinline__ Channels<T, kWidth> load(int64_t p, int64_t channel) const {
    if constexpr (kPadded) {
      return *reinterpret_cast<const Channels<T, kWidth>*>(data + p * point_stride + channel);
    } else {
      Channels<T, kWidth> result;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        result.value[i] =
            channel + i < channels ? data[p * point_stride + (channel + i) * channel_stride] : T(0);
      }
      return result;
    }
  }
};

// rows[v] of the vertices that a piece has to itself; parts[piece][0] of the one that began before
// the piece, parts[piece][1] of the one that goes on behind it but began in it.
template <class T, int kWidth, bool kPadded>
__global__ void __launch_bounds__(kRowThreads)
    splat_kernel(const Lattice lattice, const PointValues<T> values, const View<const T, 2> weight,
                 const RowShape shape, T* rows, T* parts) {
  using C = Channels<T, kWidth>;
  const int64_t size = lattice.entry.sizes[0], corners = lattice.vertex.sizes[1];
  const int64_t piece = shape.row();
  const int64_t begin = piece * kPiece;
  if (shape.idle() || begin >= size) return;
  const int64_t end = begin + kPiece < size ? begin + kPiece : size;
  const int64_t stride = shape.count * kWidth;
  const int32_t* const entry = lattice.entry.data;
  const int32_t* const vertex = lattice.vertex.data;
  const int32_t* const start = lattice.start.data;
  for (int64_t c = shape.lane(); c < shape.count; c += shape.lanes) {
    C sum = {};
    int32_t v = vertex[entry[begin]];
    int64_t v_end = start[v + 1];
    bool began_before = start[v] < begin;
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t corner = static_cast<uint32_t>(entry[i]);
      const uint32_t p = corner / static_cast<uint32_t>(corners);
      const T w = weight(p, corner - p * static_cast<uint32_t>(corners));
      sum.add_product(w, values.template load<kWidth, kPadded>(p, c * kWidth));
      if (i + 1 < v_end && i + 1 < end) continue;
      T* const target = began_before    ? parts + 2 * piece * stride
                        : i + 1 < v_end ? parts + (2 * piece + 1) * stride
                                        : rows + v * stride;
      *reinterpret_cast<C*>(target + c * kWidth) = sum;
      if (i + 1 == end) break;
      sum = {};
      ++v;
      v_end = start[v + 1];
      began_before = false;
    }
  }
}

// Adds up the vertices that several pieces share.
template <class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    join_parts_kernel(const Lattice lattice, const RowShape shape, const T* parts, T* rows) {
  using C = Channels<T, kWidth>;
  const int64_t v = shape.row();
  if (shape.idle() || v >= lattice.start.sizes[0] - 1) return;
  const int64_t first = lattice.start(v) / kPiece, last = (lattice.start(v + 1) - 1) / kPiece;
  if (first == last) return;
  const int64_t stride = shape.count * kWidth;
  // A vertex that begins with a piece and fills it has its sum where vertices go on behind.
  for (int64_t c = shape.lane(); c < shape.count; c += shape.lanes) {
    C sum = *reinterpret_cast<const C*>(parts + (2 * first + 1) * stride + c * kWidth);
    for (int64_t piece = first + 1; piece <= last; ++piece) {
      sum.add_product(T(1), *reinterpret_cast<const C*>(parts + 2 * piece * stride + c * kWidth));
    }
    *reinterpret_cast<C*>(rows + v * stride + c * kWidth) = sum;
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    blur_kernel(const Lattice lattice, int64_t axis, const RowShape shape, const T* from, T* to) {
  using C = Channels<T, kWidth>;
  const int64_t v = shape.row();
  if (shape.idle() || v >= lattice.start.sizes[0] - 1) return;
  const int64_t stride = shape.count * kWidth;
  const int2 near = *reinterpret_cast<const int2*>(lattice.neighbor.data +
                                                   axis * lattice.neighbor.strides[0] + 2 * v);
  for (int64_t c = shape.lane(); c < shape.count; c += shape.lanes) {
    const T* const channel = from + c * kWidth;
    C sum = *reinterpret_cast<const C*>(channel + v * stride);
    if (near.x >= 0) {
      sum.add_product(T(0.5), *reinterpret_cast<const C*>(channel + near.x * stride));
    }
    if (near.y >= 0) {
      sum.add_product(T(0.5), *reinterpret_cast<const C*>(channel + near.y * stride));
    }
    *reinterpret_cast<C*>(to + v * stride + c * kWidth) = sum;
  }
}

// Rows of a block of channels, `width` of them or fewer.
template <class T, int kWidth>
class VertexRows {
 public:
  VertexRows(const Context& context, const Lattice& lattice, int64_t channels)
      : stream_(context.stream),
        lattice_(lattice),
        shape_(row_shape(divide_up(channels, kWidth))),
        vertices_(lattice.start.sizes[0] - 1),
        pieces_(divide_up(lattice.entry.sizes[0], kPiece)) {
    const int64_t stride = shape_.count * kWidth;
    for (T*& rows : rows_) {
      rows = context.scratch->allocate_array<T>(static_cast<size_t>(vertices_ * stride));
    }
    parts_ = context.scratch->allocate_array<T>(static_cast<size_t>(2 * pieces_ * stride));
  }

  int64_t stride() const { return shape_.count * kWidth; }

  // The blurred rows, without the scale of the blur.
  template <bool kPadded>
  const T* run(const PointValues<T>& values, const View<const T, 2>& weight, bool reverse) {
    launch("splat", splat_kernel<T, kWidth, kPadded>, shape_.blocks(pieces_), kRowThreads, stream_,
           lattice_, values, weight, shape_, rows_[0], parts_);
    launch("join_parts", join_parts_kernel<T, kWidth>, shape_.blocks(vertices_), kRowThreads,
           stream_, lattice_, shape_, parts_, rows_[0]);
    const int64_t axes = lattice_.neighbor.sizes[0];
    for (int64_t i = 0; i < axes; ++i) {
      launch("blur", blur_kernel<T, kWidth>, shape_.blocks(vertices_), kRowThreads, stream_,
             lattice_, reverse ? axes - 1 - i : i, shape_, rows_[0], rows_[1]);
      std::swap(rows_[0], rows_[1]);
    }
    return rows_[0];
  }

 private:
  void* stream_;
  Lattice lattice_;
  RowShape shape_;
  int64_t vertices_, pieces_;
  T* rows_[2];
  T* parts_;
};

// How many channels a thread takes at once: 16 bytes of them, or fewer if there are no more.
template <int kValue>
struct Width {
  static constexpr int value = kValue;
};
template <class T, class Body>
void with_width(int64_t channels, const Body& body) {
  if (channels == 1) return body(Width<1>{});
  if (sizeof(T) == 8 || channels == 2) return body(Width<2>{});
  body(Width<16 / sizeof(T)>{});
}

}  // namespace deformops::cuda

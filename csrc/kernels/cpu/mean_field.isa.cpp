// Mean-field inference: splat and blur of all kernels in one sweep, then one pass over points that
// slices, applies the compatibility, adds the unary energies and normalises.
//
// Scratch: a row of channels for each point, one and some for each vertex of each kernel, the
// weights of each kernel in the order of the vertices. More than kMaxWidth labels go through the
// lattice in blocks, and take a second row for each point.
#include <new>

#include "kernels/cpu/lattice_blur.h"
#include "kernels/cpu/lattice_isa.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// Points between two transpositions: rows of 32 labels fill an eighth of a first-level cache.
constexpr int64_t kTile = 32;

// [N, L, M] as points with one row of channels each.
template <class T>
class Images {
 public:
  Images() = default;
  explicit Images(const View<T, 3>& view) : view_(view) {}

  bool defined() const { return view_.defined(); }

  // Calls body(points, rows, count) for runs of points [begin, end) of one image each.
  template <class Body>
  DEFORMOPS_INLINE void for_each_run(int64_t begin, int64_t end, const Body& body) const {
    const int64_t size = view_.sizes[2];
    for (int64_t p = begin; p < end;) {
      const int64_t stop = smaller(end, (p / size + 1) * size);
      body(view_.pointer(p / size, 0, p % size), p - begin, stop - p);
      p = stop;
    }
  }
  // To and from rows with this stride.
  template <class C>
  DEFORMOPS_INLINE void read(int64_t begin, int64_t end, C* rows, int64_t stride) const {
    for_each_run(begin, end, [&](T* points, int64_t first, int64_t count) {
      rearrange<C>(points, strides(), view_.sizes[1], count, rows + first * stride, {1, stride});
    });
  }
  template <class C>
  DEFORMOPS_INLINE void write(int64_t begin, int64_t end, const C* rows, int64_t stride) const {
    for_each_run(begin, end, [&](T* points, int64_t first, int64_t count) {
      rearrange<C>(rows + first * stride, {1, stride}, view_.sizes[1], count, points, strides());
    });
  }

 private:
  Strides strides() const { return {view_.strides[1], view_.strides[2]}; }

  View<T, 3> view_;
};

// What a kernel needs in every iteration.
template <class T, int kWidth>
class Message {
 public:
  Message(const Context& context, const Team& team, const MessageKernel<T>& kernel, int64_t labels,
          int64_t stride)
      : kernel_(kernel),
        corners_(kernel.lattice.vertex.sizes[1]),
        scale_(blur_scale<T>(static_cast<int>(corners_) - 1)),
        point_of_(corners_),
        rows_(context, kernel.lattice, false, team.workers(kernel.lattice.entry.sizes[0])),
        weights_(allocate<T>(context, kernel.lattice.entry.sizes[0])) {
    for_each_range(team, kernel.lattice.entry.sizes[0], kPointsOfTask,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       const int32_t entry = kernel.lattice.entry(i);
                       const int64_t p = point_of_(entry);
                       weights_[i] = kernel.splat_weight(p, entry - p * corners_);
                     }
                   });
    // Column l of the compatibility, times the scale of the blur, is row l here.
    const bool matrix = kernel.kind == Compatibility::kMatrix;
    const int64_t columns = matrix ? labels : 1;
    columns_ = allocate<T>(context, columns * stride);
    for (int64_t l = 0; l < columns; ++l) {
      for (int64_t c = 0; c < stride; ++c) {
        const bool scalar = kernel.kind == Compatibility::kScalar;
        const T value = c < labels ? kernel.compatibility(matrix ? c : 0, matrix   ? l
                                                                          : scalar ? 0
                                                                                   : c)
                                   : T(0);
        columns_[l * stride + c] = scale_ * value;
      }
    }
  }

  VertexRows<T, kWidth>& rows() { return rows_; }

  // A task of `rows`: splat channels [first, first + kWidth) of rows with `stride` channels.
  DEFORMOPS_INLINE void run(int64_t task, const T* q, int64_t stride, int64_t first) const {
    rows_.run(task, [&](int64_t begin, int64_t end, T* rows) {
      splat(q + first, stride, begin, end, rows);
    });
  }

  DEFORMOPS_INLINE void prefetch_vertices(int64_t p) const {
    const int32_t* const vertex = kernel_.lattice.vertex.pointer(p);
    for (int64_t r = 0; r < corners_; ++r) {
      prefetch<kWidth * sizeof(T)>(rows_.blurred() + static_cast<int64_t>(vertex[r]) * kWidth);
    }
  }

  // What a point hears, before the compatibility and the blur's scale; `q` is what it said.
  DEFORMOPS_INLINE Row<T, kWidth> slice(int64_t p, const T* q) const {
    const int32_t* const vertex = kernel_.lattice.vertex.pointer(p);
    const T* const weight = kernel_.slice_weight.pointer(p);
    Row<T, kWidth> sum = {};
    for (int64_t r = 0; r < corners_; ++r) {
      sum.add_product(weight[r], Row<T, kWidth>::load(rows_.blurred() +
                                                      static_cast<int64_t>(vertex[r]) * kWidth));
    }
    if (kernel_.self_weight.defined()) {
      sum.add_product(-kernel_.self_weight(p) / scale_, Row<T, kWidth>::load(q));
    }
    return sum;
  }

  // scores += compatibility . message, for a message of channels [first, first + kWidth) of
  // `labels`; add(channel, row) adds to the scores.
  template <class Add>
  DEFORMOPS_INLINE void apply(const Row<T, kWidth>& message, int64_t first, int64_t labels,
                              int64_t stride, const Add& add) const {
    if (kernel_.kind != Compatibility::kMatrix) {
      return add(first, message * Row<T, kWidth>::load(columns_ + first));
    }
    T values[kWidth];
    message.store(values);
    for (int64_t block = 0; block < stride; block += kWidth) {
      Row<T, kWidth> sum = {};
      for (int64_t l = 0; l < smaller(kWidth, labels - first); ++l) {
        sum.add_product(values[l], Row<T, kWidth>::load(columns_ + (first + l) * stride + block));
      }
      add(block, sum);
    }
  }

 private:
  DEFORMOPS_INLINE void splat(const T* q, int64_t stride, int64_t begin, int64_t end,
                              T* rows) const {
    const int32_t* const start = kernel_.lattice.start.data;
    const int32_t* const entry = kernel_.lattice.entry.data;
    const int64_t last = kernel_.lattice.entry.sizes[0] - 1;
    for (int64_t v = begin; v < end; ++v) {
      Row<T, kWidth> sum = {};
      for (int64_t i = start[v]; i < start[v + 1]; ++i) {
        prefetch<kWidth * sizeof(T)>(q +
                                     point_of_(entry[smaller(i + kEntriesAhead, last)]) * stride);
        sum.add_product(weights_[i], Row<T, kWidth>::load(q + point_of_(entry[i]) * stride));
      }
      sum.store(rows + v * kWidth);
    }
  }

  MessageKernel<T> kernel_;
  int64_t corners_;
  T scale_;
  CornerToPoint point_of_;
  VertexRows<T, kWidth> rows_;
  T* weights_;  // of entries, to splat with
  T* columns_;
};

// softmax of a row in `blocks` pieces; what is behind the labels is -infinity and becomes 0.
template <class T, int kWidth>
DEFORMOPS_INLINE void normalize(const T* scores, int64_t blocks, T* q) {
  using Block = Row<T, kWidth>;
  T largest = static_cast<T>(-__builtin_inf());
  for (int64_t b = 0; b < blocks; ++b) {
    const T most = Block::load(scores + b * kWidth).largest();
    largest = most > largest ? most : largest;
  }
  T sum = T(0);
  for (int64_t b = 0; b < blocks; ++b) {
    const Block powers = Block::load(scores + b * kWidth).exponential_from(largest);
    powers.store(q + b * kWidth);
    sum += powers.sum();
  }
  for (int64_t b = 0; b < blocks; ++b) {
    Block share = {};
    share.add_product(T(1) / sum, Block::load(q + b * kWidth));
    share.store(q + b * kWidth);
  }
}

// Rows of `stride` channels, kWidth or a multiple of it: the labels, and what fills them up.
template <class T, int kWidth>
class MeanField {
 public:
  MeanField(const Context& context, const MessageKernel<T>* kernels, int64_t count,
            const View<const T, 3>& unary)
      : team_(operations(kernels, count, unary)),
        unary_(unary),
        points_(unary.sizes[0] * unary.sizes[2]),
        labels_(unary.sizes[1]),
        stride_(round_up(labels_, kWidth)),
        count_(count),
        messages_(static_cast<Message<T, kWidth>*>(
            static_cast<void*>(allocate<char>(context, count * sizeof(Message<T, kWidth>))))),
        q_(allocate<T>(context, points_ * stride_)),
        scores_(stride_ > kWidth ? allocate<T>(context, points_ * stride_) : nullptr) {
    use_huge_pages(q_, points_ * stride_ * static_cast<int64_t>(sizeof(T)));
    for (int64_t k = 0; k < count; ++k) {
      new (messages_ + k) Message<T, kWidth>(context, team_, kernels[k], labels_, stride_);
    }
  }

  void run(const View<const T, 3>& initial, int64_t iterations, const View<T, 3>& result) {
    begin(initial, iterations == 0 ? Images<T>(result) : Images<T>());
    for (int64_t i = 1; i <= iterations; ++i) {
      const Images<T> target = i == iterations ? Images<T>(result) : Images<T>();
      for (int64_t first = 0; first < stride_; first += kWidth) {
        blur(first);
        update(first, target);
      }
    }
  }

 private:
  static int64_t operations(const MessageKernel<T>* kernels, int64_t count,
                            const View<const T, 3>& unary) {
    int64_t rows = unary.sizes[0] * unary.sizes[2] * 8;
    for (int64_t k = 0; k < count; ++k) {
      const Lattice& lattice = kernels[k].lattice;
      rows +=
          2 * lattice.entry.sizes[0] + 3 * lattice.neighbor.sizes[0] * lattice.neighbor.sizes[1];
    }
    return rows * divide_up(unary.sizes[1], 16);
  }

  // Calls body(begin, end, tile) for tiles of points, `tile` having room for their rows.
  template <class Body>
  void for_each_tile(const Body& body) const {
    for_each_range(team_, points_, kPointsOfTask, [&](int64_t begin, int64_t end) {
      T tile[kTile * kWidth] = {};
      for (int64_t p = begin; p < end; p += kTile) body(p, smaller(end, p + kTile), tile);
    });
  }

  // Where the scores of a tile are kept: beyond the tile only if there are several blocks.
  T* scores_of(int64_t begin, T* tile) const {
    return scores_ == nullptr ? tile : scores_ + begin * stride_;
  }

  // scores = -unary, -infinity behind the labels.
  DEFORMOPS_INLINE void read_unary(int64_t begin, int64_t end, T* scores) const {
    unary_.read(begin, end, scores, stride_);
    for (T* row = scores; row < scores + (end - begin) * stride_; row += stride_) {
      for (int64_t c = labels_; c < stride_; ++c) row[c] = static_cast<T>(__builtin_inf());
      for (int64_t c = 0; c < stride_; c += kWidth) {
        Row<T, kWidth> negative = {};
        negative.add_product(T(-1), Row<T, kWidth>::load(row + c));
        negative.store(row + c);
      }
    }
  }

  // Q = softmax(scores), as rows or, where `target` is defined, as the result.
  DEFORMOPS_INLINE void finish(int64_t begin, int64_t end, T* scores,
                               const Images<T>& target) const {
    T* const rows = target.defined() ? scores : q_ + begin * stride_;
    for (int64_t i = 0; i < (end - begin) * stride_; i += stride_) {
      normalize<T, kWidth>(scores + i, stride_ / kWidth, rows + i);
    }
    if (target.defined()) target.write(begin, end, rows, stride_);
  }

  void begin(const View<const T, 3>& initial, const Images<T>& target) const {
    for_each_tile([&](int64_t begin, int64_t end, T* tile) {
      if (!initial.defined()) {
        T* const scores = scores_of(begin, tile);
        read_unary(begin, end, scores);
        return finish(begin, end, scores, target);
      }
      T* const rows = q_ + begin * stride_;
      memset(rows, 0, static_cast<size_t>((end - begin) * stride_) * sizeof(T));
      Images<const T>(initial).read(begin, end, rows, stride_);
      if (target.defined()) target.write(begin, end, rows, stride_);
    });
  }

  void blur(int64_t first) {
    int64_t tasks = 0;
    for (int64_t k = 0; k < count_; ++k) tasks += messages_[k].rows().begin_sweep();
    team_.for_each(tasks, [&](int64_t task, int64_t) {
      int64_t k = 0;
      for (; task >= messages_[k].rows().tasks(); ++k) task -= messages_[k].rows().tasks();
      messages_[k].run(task, q_, stride_, first);
    });
  }

  void update(int64_t first, const Images<T>& target) const {
    for_each_tile([&](int64_t begin, int64_t end, T* tile) {
      T* const scores = scores_of(begin, tile);
      if (first == 0) read_unary(begin, end, scores);
      for (int64_t p = begin; p < end; ++p) {
        T* const row = scores + (p - begin) * stride_;
        for (int64_t k = 0; k < count_; ++k) {
          messages_[k].prefetch_vertices(smaller(p + kPointsAhead, points_ - 1));
          messages_[k].apply(messages_[k].slice(p, q_ + p * stride_ + first), first, labels_,
                             stride_, [&](int64_t channel, const Row<T, kWidth>& sum) {
                               (sum + Row<T, kWidth>::load(row + channel)).store(row + channel);
                             });
        }
      }
      if (first + kWidth == stride_) finish(begin, end, scores, target);
    });
  }

  Team team_;
  Images<const T> unary_;
  int64_t points_, labels_, stride_, count_;
  Message<T, kWidth>* messages_;
  T* q_;
  T* scores_;
};

}  // namespace

template <class T>
void mean_field(const Context& context, const MessageKernel<T>* kernels, int64_t count,
                View<const T, 3> unary, View<const T, 3> initial, int64_t iterations,
                View<T, 3> result) {
  with_width(unary.sizes[1], [&](auto number) {
    MeanField<T, decltype(number)::value>(context, kernels, count, unary)
        .run(initial, iterations, result);
  });
}

#define DEFORMOPS_INSTANTIATE(T)                                                                  \
  template void mean_field<T>(const Context&, const MessageKernel<T>*, int64_t, View<const T, 3>, \
                              View<const T, 3>, int64_t, View<T, 3>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

// Splat, blur and slice, for a block of channels at a time, so that memory does not grow with their
// number: two rows of a block for each vertex.
#include "kernels/cpu/lattice_isa.h"
#include "kernels/cpu/tasks.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

constexpr int64_t kRowsOfTask = 4096;
constexpr int64_t kMaxChannels = 64;  // of a block

template <class Body>
void for_each_range(const Team& team, int64_t size, const Body& body) {
  team.for_each(divide_up(size, kRowsOfTask), [&](int64_t task, int64_t) {
    body(task * kRowsOfTask, smaller(size, (task + 1) * kRowsOfTask));
  });
}

// Rows of channels [first, first + width) for each vertex.
template <class T>
class Blur {
 public:
  Blur(const Context& context, const Lattice& lattice, int64_t channels)
      : lattice_(lattice),
        vertices_(lattice.start.sizes[0] - 1),
        axes_(lattice.neighbor.sizes[0]),
        channels_(smaller(channels, kMaxChannels)),
        team_((vertices_ * axes_ + lattice.entry.sizes[0]) * channels_),
        rows_(allocate<T>(context, vertices_ * channels_)),
        other_(allocate<T>(context, vertices_ * channels_)) {}

  int64_t block() const { return channels_; }
  const Team& team() const { return team_; }
  const T* row(int64_t v) const { return rows_ + v * channels_; }

  void run(const View<const T, 2>& values, const View<const T, 2>& weight, bool reverse,
           int64_t first, int64_t width) {
    splat(values, weight, first, width);
    for (int64_t axis = 0; axis < axes_; ++axis) blur(reverse ? axes_ - 1 - axis : axis, width);
    const T scale = blur_scale<T>(static_cast<int>(axes_) - 1);
    for_each_range(team_, vertices_, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * channels_; i < end * channels_; ++i) rows_[i] *= scale;
    });
  }

 private:
  void splat(const View<const T, 2>& values, const View<const T, 2>& weight, int64_t first,
             int64_t width) {
    for_each_range(team_, vertices_, [&](int64_t begin, int64_t end) {
      memset(rows_ + begin * channels_, 0,
             static_cast<size_t>((end - begin) * channels_) * sizeof(T));
      for (int64_t v = begin; v < end; ++v) {
        T* const row = rows_ + v * channels_;
        for (int64_t i = lattice_.start(v); i < lattice_.start(v + 1); ++i) {
          const int64_t corner = lattice_.entry(i), p = corner / axes_;
          const T w = weight(p, corner % axes_);
          for (int64_t c = 0; c < width; ++c) row[c] += w * values(p, first + c);
        }
      }
    });
  }

  void blur(int64_t axis, int64_t width) {
    for_each_range(team_, vertices_, [&](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; ++v) {
        const T* const from = rows_ + v * channels_;
        T* const to = other_ + v * channels_;
        memcpy(to, from, static_cast<size_t>(channels_) * sizeof(T));
        for (int side = 0; side < 2; ++side) {
          const int64_t n = lattice_.neighbor(axis, v, side);
          if (n < 0) continue;
          const T* const near = rows_ + n * channels_;
          for (int64_t c = 0; c < width; ++c) to[c] += T(0.5) * near[c];
        }
      }
    });
    T* const blurred = other_;
    other_ = rows_;
    rows_ = blurred;
  }

  const Lattice& lattice_;
  int64_t vertices_, axes_, channels_;
  Team team_;
  T* rows_;
  T* other_;
};

}  // namespace

template <class T>
void lattice_filter(const Context& context, const Lattice& lattice, bool reverse,
                    View<const T, 2> values, View<const T, 2> splat_weight,
                    View<const T, 2> slice_weight, View<T, 2> output) {
  const int64_t points = output.sizes[0], channels = output.sizes[1];
  const int64_t corners = lattice.vertex.sizes[1];
  Blur<T> blur(context, lattice, channels);
  for (int64_t first = 0; first < channels; first += blur.block()) {
    const int64_t width = smaller(blur.block(), channels - first);
    blur.run(values, splat_weight, reverse, first, width);
    for_each_range(blur.team(), points, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        T sums[kMaxChannels] = {};
        for (int64_t r = 0; r < corners; ++r) {
          const T* const row = blur.row(lattice.vertex(p, r));
          const T w = slice_weight(p, r);
          for (int64_t c = 0; c < width; ++c) sums[c] += w * row[c];
        }
        for (int64_t c = 0; c < width; ++c) output(p, first + c) = sums[c];
      }
    });
  }
}

template <class T>
void lattice_contract(const Context& context, const Lattice& lattice, bool reverse,
                      View<const T, 2> grad_output, View<const T, 2> values,
                      View<const T, 2> splat_weight, View<T, 2> grad_weight) {
  const int64_t points = values.sizes[0], channels = values.sizes[1];
  const int64_t corners = lattice.vertex.sizes[1];
  Blur<T> blur(context, lattice, channels);
  for (int64_t first = 0; first < channels; first += blur.block()) {
    const int64_t width = smaller(blur.block(), channels - first);
    blur.run(values, splat_weight, reverse, first, width);
    for_each_range(blur.team(), points, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        for (int64_t r = 0; r < corners; ++r) {
          const T* const row = blur.row(lattice.vertex(p, r));
          T sum = first == 0 ? T(0) : grad_weight(p, r);
          for (int64_t c = 0; c < width; ++c) sum += row[c] * grad_output(p, first + c);
          grad_weight(p, r) = sum;
        }
      }
    });
  }
}

#define DEFORMOPS_INSTANTIATE(T)                                                            \
  template void lattice_filter<T>(const Context&, const Lattice&, bool, View<const T, 2>,   \
                                  View<const T, 2>, View<const T, 2>, View<T, 2>);          \
  template void lattice_contract<T>(const Context&, const Lattice&, bool, View<const T, 2>, \
                                    View<const T, 2>, View<const T, 2>, View<T, 2>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cpu::DEFORMOPS_ISA

// Splat, blur and slice, for a block of channels at a time: memory does not grow with their number.
//
// Scratch: a row (and some) of kMaxWidth channels at most for each vertex, and for each point if
// the values are not dense in their channels.
#include "kernels/cpu/lattice_blur.h"
#include "kernels/cpu/lattice_isa.h"

namespace deformops::cpu::DEFORMOPS_ISA {
namespace {

// Splats and blurs blocks of kWidth channels of `values`.
template <class T, int kWidth>
class BlurredValues {
 public:
  BlurredValues(const Context& context, const Team& team, const Lattice& lattice, bool reverse,
                const View<const T, 2>& values, Behind behind, const View<const T, 2>& weight)
      : team_(team),
        lattice_(lattice),
        weight_(weight),
        values_(context, values, behind),
        rows_(context, lattice, reverse, team.workers(lattice.entry.sizes[0])) {}

  // The rows of all vertices, without the scale of the blur.
  const T* run(int64_t first) {
    values_.open(team_, first);
    team_.for_each(rows_.begin_sweep(), [&](int64_t task, int64_t) {
      rows_.run(task, [&](int64_t begin, int64_t end, T* rows) { splat(begin, end, rows); });
    });
    return rows_.blurred();
  }

 private:
  DEFORMOPS_INLINE void splat(int64_t begin, int64_t end, T* rows) const {
    const int64_t corners = lattice_.vertex.sizes[1], last = lattice_.entry.sizes[0] - 1;
    const int32_t* const entry = lattice_.entry.data;
    const int32_t* const start = lattice_.start.data;
    const CornerToPoint point_of(corners);
    for (int64_t v = begin; v < end; ++v) {
      Row<T, kWidth> sum = {};
      for (int64_t i = start[v]; i < start[v + 1]; ++i) {
        prefetch<kWidth * sizeof(T)>(values_[point_of(entry[smaller(i + kEntriesAhead, last)])]);
        const int64_t p = point_of(entry[i]);
        sum.add_product(weight_(p, entry[i] - p * corners), Row<T, kWidth>::load(values_[p]));
      }
      sum.store(rows + v * kWidth);
    }
  }

  const Team& team_;
  const Lattice& lattice_;
  View<const T, 2> weight_;
  PointRows<T, kWidth> values_;
  VertexRows<T, kWidth> rows_;
};

Team team_for(const Lattice& lattice, int64_t channels) {
  const int64_t accesses =
      2 * lattice.entry.sizes[0] + 3 * lattice.neighbor.sizes[0] * lattice.neighbor.sizes[1];
  return Team(accesses * divide_up(channels, 16));
}

}  // namespace

template <class T>
void lattice_filter(const Context& context, const Lattice& lattice, bool reverse,
                    View<const T, 2> values, View<const T, 2> splat_weight,
                    View<const T, 2> slice_weight, View<T, 2> output) {
  const int64_t points = output.sizes[0], corners = lattice.vertex.sizes[1];
  const T scale = blur_scale<T>(static_cast<int>(corners) - 1);
  const Team team = team_for(lattice, values.sizes[1]);
  with_blocks(values.sizes[1], [&](auto number, int64_t first, int64_t end_channel) {
    constexpr int kWidth = decltype(number)::value;
    BlurredValues<T, kWidth> blurred(context, team, lattice, reverse, values, Behind::kAnything,
                                     splat_weight);
    for (; first < end_channel; first += kWidth) {
      const T* const rows = blurred.run(first);
      for_each_range(team, points, kPointsOfTask, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
          const int32_t* const ahead =
              lattice.vertex.pointer(smaller(p + kPointsAhead, points - 1));
          for (int64_t r = 0; r < corners; ++r) {
            prefetch<kWidth * sizeof(T)>(rows + static_cast<int64_t>(ahead[r]) * kWidth);
          }
          Row<T, kWidth> sum = {};
          for (int64_t r = 0; r < corners; ++r) {
            const int64_t v = lattice.vertex(p, r);
            sum.add_product(scale * slice_weight(p, r), Row<T, kWidth>::load(rows + v * kWidth));
          }
          sum.store_first(output.pointer(p, first), smaller(kWidth, end_channel - first));
        }
      });
    }
  });
}

template <class T>
void lattice_contract(const Context& context, const Lattice& lattice, bool reverse,
                      View<const T, 2> grad_output, View<const T, 2> values,
                      View<const T, 2> splat_weight, View<T, 2> grad_weight) {
  const int64_t points = values.sizes[0], corners = lattice.vertex.sizes[1];
  const T scale = blur_scale<T>(static_cast<int>(corners) - 1);
  const Team team = team_for(lattice, values.sizes[1]);
  with_blocks(values.sizes[1], [&](auto number, int64_t first, int64_t end_channel) {
    constexpr int kWidth = decltype(number)::value;
    BlurredValues<T, kWidth> blurred(context, team, lattice, reverse, values, Behind::kZeros,
                                     splat_weight);
    PointRows<T, kWidth> grads(context, grad_output, Behind::kZeros);
    for (; first < end_channel; first += kWidth) {
      const T* const rows = blurred.run(first);
      grads.open(team, first);
      for_each_range(team, points, kPointsOfTask, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
          const Row<T, kWidth> grad = Row<T, kWidth>::load(grads[p]);
          for (int64_t r = 0; r < corners; ++r) {
            const int64_t v = lattice.vertex(p, r);
            const T dot = scale * (grad * Row<T, kWidth>::load(rows + v * kWidth)).sum();
            grad_weight(p, r) = first == 0 ? dot : grad_weight(p, r) + dot;
          }
        }
      });
    }
  });
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

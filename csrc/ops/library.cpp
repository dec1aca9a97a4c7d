// Every op and its schema: the table of contents of the library.
//
// Shapes: input [N, C, H, W], offset [N, 2 * G * K, oH, oW] with channels
// (group, tap, (y, x)), mask [N, G * K, oH, oW], columns [N, C, K, oH, oW],
// weight [O, C / groups, kH, kW], bias [O]; K = kH * kW taps, G offset groups.
// `order` is the order of the hat function on (y, x), 0 or 1.
//
// For boxes: boxes [K, 5] (image, x1, y1, x2, y2), offset [K, 2 * classes,
// part_y, part_x] with channels (class, (x, y)), index and grad_output [K, C',
// pooled_y, pooled_x].
//
// For overlaps: boxes [N, 4] (x1, y1, x2, y2), scores and idxs [N]; nms_padded
// has a batch in front of all of them.
//
// For the permutohedral lattice: P = N * M points with features [N, M, d],
// corners [P, d + 1] of their simplices, V vertices, values [P, L]; start [V +
// 1], entry [P * (d + 1)] and neighbor [d + 1, V, 2] as in kernels/lattice.h.
// For the dense CRF: unary and initial [N, L, M].
//
// The simulated device registers the same ops, with the CUDA kernels behind
// them, for CPU tensors in a namespace of its own.
#include <torch/csrc/stable/library.h>

#include "ops/build_info.h"
#include "ops/convolution.h"
#include "ops/lattice.h"
#include "ops/roi_pooling.h"
#include "ops/suppression.h"

#if defined(DEFORMOPS_SIMULATED)
#define DEFORMOPS_NAMESPACE deformops_simulated
#else
#define DEFORMOPS_NAMESPACE deformops
#endif

#define DEFORMOPS_SAMPLING                                                     \
  "int[2] stride, int[2] padding, int[2] dilation, int[2] order, str border, " \
  "str kink"

#define DEFORMOPS_BINS                                              \
  "int[2] output_size, float spatial_scale, str semantics, int[2] " \
  "group_size, "                                                    \
  "int samples_per_bin, float offset_scale, int[2] order"

#define DEFORMOPS_LATTICE "Tensor vertex, Tensor start, Tensor entry, Tensor neighbor, bool reverse"

// Expands the namespace before the registration macros make names of it.
#define DEFORMOPS_LIBRARY(ns, m) STABLE_TORCH_LIBRARY(ns, m)
#define DEFORMOPS_LIBRARY_IMPL(ns, key, m) STABLE_TORCH_LIBRARY_IMPL(ns, key, m)

DEFORMOPS_LIBRARY(DEFORMOPS_NAMESPACE, m) {
#if !defined(DEFORMOPS_SIMULATED)
  m.def("build_info() -> str");
#endif

  m.def(
      "gather_columns(Tensor input, Tensor? offset, Tensor? mask, int[2] "
      "kernel_size, "  //
      DEFORMOPS_SAMPLING ") -> Tensor");
  m.def(
      "scatter_columns(Tensor columns, Tensor? offset, Tensor? mask, "
      "SymInt[2] input_size, "
      "int[2] kernel_size, "  //
      DEFORMOPS_SAMPLING ", *, bool deterministic=False) -> Tensor");
  m.def(
      "contract_columns(Tensor input, Tensor columns, Tensor? offset, int[2] "
      "kernel_size, "  //
      DEFORMOPS_SAMPLING ", int offset_groups) -> Tensor");
  m.def(
      "deform_conv2d(Tensor input, Tensor? offset, Tensor weight, Tensor? "
      "bias, Tensor? mask, "  //
      DEFORMOPS_SAMPLING ", *, bool allow_tf32=False, bool allow_winograd=False) -> Tensor");
  m.def(
      "deform_conv2d_backward(Tensor grad_output, Tensor input, Tensor? "
      "offset, Tensor weight, "
      "Tensor? mask, "  //
      DEFORMOPS_SAMPLING
      ", bool[4] wanted, *, bool deterministic=False, bool allow_tf32=False) "
      "-> (Tensor grad_input, Tensor grad_offset, Tensor grad_weight, Tensor "
      "grad_mask)");

  m.def(
      "roi_pool(Tensor input, Tensor boxes, int[2] output_size, float "
      "spatial_scale, "
      "str semantics, *, bool want_index=True) -> (Tensor output, Tensor "
      "index)");
  m.def("gather_maxima(Tensor input, Tensor boxes, Tensor index) -> Tensor");
  m.def(
      "scatter_maxima(Tensor grad_output, Tensor boxes, Tensor index, "
      "SymInt[4] input_size, *, "
      "bool deterministic=False) -> Tensor");
  m.def("roi_average(Tensor input, Tensor boxes, Tensor? offset, "  //
        DEFORMOPS_BINS ") -> Tensor");
  m.def(
      "roi_average_backward(Tensor grad_output, Tensor input, Tensor boxes, "
      "Tensor? offset, "  //
      DEFORMOPS_BINS
      ", bool[2] wanted, *, bool deterministic=False) -> "
      "(Tensor grad_input, Tensor grad_offset)");

  m.def(
      "box_iou(Tensor boxes1, Tensor boxes2, *, bool plus_one=False) -> "
      "Tensor");
  m.def(
      "nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, *, "
      "bool plus_one=False) -> Tensor");
  m.def(
      "nms_padded(Tensor boxes, Tensor scores, Tensor? idxs, float "
      "iou_threshold, "
      "SymInt max_output, *, bool plus_one=False) -> (Tensor indices, Tensor "
      "counts)");
  m.def(
      "soft_nms(Tensor boxes, Tensor scores, float iou_threshold, *, float "
      "sigma=0.5, "
      "float min_score=0.001, str method=\"linear\", bool plus_one=False) "
      "-> (Tensor scores, Tensor indices)");

  m.def(
      "lattice_build(Tensor features) "
      "-> (Tensor vertex, Tensor weight, Tensor start, Tensor entry, Tensor "
      "neighbor)");
  m.def(
      "lattice_filter(Tensor values, Tensor splat_weight, Tensor "
      "slice_weight, "  //
      DEFORMOPS_LATTICE ") -> Tensor");
  m.def(
      "lattice_contract(Tensor grad_output, Tensor values, Tensor "
      "splat_weight, "  //
      DEFORMOPS_LATTICE ") -> Tensor");
  m.def("lattice_weights_forward(Tensor tangent, Tensor features) -> Tensor");
  m.def(
      "lattice_weights_backward(Tensor grad_weight, Tensor features) -> "
      "Tensor");
  m.def(
      "mean_field(Tensor unary, Tensor[] splat_weight, Tensor[] "
      "slice_weight, Tensor[] vertex, "
      "Tensor[] start, Tensor[] entry, Tensor[] neighbor, Tensor[] "
      "compatibility, "
      "Tensor[] self_weight, Tensor? initial, int iterations) -> Tensor");
}

#define DEFORMOPS_REGISTER(m, Device)                                                             \
  m.impl("gather_columns", TORCH_BOX(&deformops::gather_columns<deformops::Device>));             \
  m.impl("scatter_columns", TORCH_BOX(&deformops::scatter_columns<deformops::Device>));           \
  m.impl("contract_columns", TORCH_BOX(&deformops::contract_columns<deformops::Device>));         \
  m.impl("deform_conv2d", TORCH_BOX(&deformops::deform_conv2d<deformops::Device>));               \
  m.impl("deform_conv2d_backward",                                                                \
         TORCH_BOX(&deformops::deform_conv2d_backward<deformops::Device>));                       \
  m.impl("roi_pool", TORCH_BOX(&deformops::roi_pool<deformops::Device>));                         \
  m.impl("gather_maxima", TORCH_BOX(&deformops::gather_maxima<deformops::Device>));               \
  m.impl("scatter_maxima", TORCH_BOX(&deformops::scatter_maxima<deformops::Device>));             \
  m.impl("roi_average", TORCH_BOX(&deformops::roi_average<deformops::Device>));                   \
  m.impl("roi_average_backward", TORCH_BOX(&deformops::roi_average_backward<deformops::Device>)); \
  m.impl("box_iou", TORCH_BOX(&deformops::box_iou<deformops::Device>));                           \
  m.impl("nms", TORCH_BOX(&deformops::nms<deformops::Device>));                                   \
  m.impl("nms_padded", TORCH_BOX(&deformops::nms_padded<deformops::Device>));                     \
  m.impl("soft_nms", TORCH_BOX(&deformops::soft_nms<deformops::Device>));                         \
  m.impl("lattice_build", TORCH_BOX(&deformops::lattice_build<deformops::Device>));               \
  m.impl("lattice_filter", TORCH_BOX(&deformops::lattice_filter<deformops::Device>));             \
  m.impl("lattice_contract", TORCH_BOX(&deformops::lattice_contract<deformops::Device>));         \
  m.impl("lattice_weights_forward",                                                               \
         TORCH_BOX(&deformops::lattice_weights_forward<deformops::Device>));                      \
  m.impl("lattice_weights_backward",                                                              \
         TORCH_BOX(&deformops::lattice_weights_backward<deformops::Device>));                     \
  m.impl("mean_field", TORCH_BOX(&deformops::mean_field<deformops::Device>))

#if defined(DEFORMOPS_SIMULATED)
DEFORMOPS_LIBRARY_IMPL(DEFORMOPS_NAMESPACE, CPU, m) { DEFORMOPS_REGISTER(m, CudaKernels); }
#else
DEFORMOPS_LIBRARY_IMPL(DEFORMOPS_NAMESPACE, CompositeExplicitAutograd, m) {
  m.impl("build_info", TORCH_BOX(&deformops::build_info));
}
DEFORMOPS_LIBRARY_IMPL(DEFORMOPS_NAMESPACE, CPU, m) { DEFORMOPS_REGISTER(m, CpuKernels); }
#if defined(DEFORMOPS_WITH_CUDA)
DEFORMOPS_LIBRARY_IMPL(DEFORMOPS_NAMESPACE, CUDA, m) { DEFORMOPS_REGISTER(m, CudaKernels); }
#endif
#endif

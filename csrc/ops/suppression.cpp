#include "ops/suppression.h"

#include <cmath>

#include "kernels/suppression.h"
#include "ops/checks.h"

namespace deformops {
namespace {

// `layout` is [N, 4] or [B, N, 4] in words.
void check_boxes(const Checker& check, const Tensor& boxes, const char* argument,
                 const char* layout, int64_t rank) {
  check.rank(boxes, argument, rank, layout);
  check.floating(boxes, argument);
  const int64_t count = boxes.size(rank - 2);
  check.require(boxes.size(rank - 1) == 4 && count <= kLargest, argument, "expected shape ", layout,
                " with at most ", kLargest, " boxes, got ", to_string(shape_of(boxes)));
}

// A number for each box.
void check_scores(const Checker& check, const Tensor& scores, const Tensor& boxes,
                  const char* layout) {
  std::vector<int64_t> shape = shape_of(boxes);
  shape.pop_back();
  check.same_kind(scores, "scores", boxes, "boxes");
  check.shape(scores, "scores", shape, layout);
}

void check_idxs(const Checker& check, const OptionalTensor& idxs, const Tensor& scores,
                const char* layout) {
  if (!idxs) return;
  check.require(idxs->scalar_type() == ScalarType::Long, "idxs", "expected a tensor of int64, got ",
                torch::headeronly::toString(idxs->scalar_type()));
  check.require(idxs->device() == scores.device(), "idxs",
                "expected a tensor on the device of boxes, got one on another device");
  check.shape(*idxs, "idxs", shape_of(scores), layout);
}

void check_threshold(const Checker& check, double threshold) {
  check.require(threshold >= 0 && threshold <= 1, "iou_threshold",
                "expected a number from 0 to 1, got ", threshold);
}

Tensor new_integers(const Tensor& like, const std::vector<int64_t>& sizes) {
  return torch::stable::empty(sizes, ScalarType::Long, std::nullopt, like.device());
}

// The only number of a tensor; waits for the device.
int64_t value_of(const Tensor& number) {
  const torch::stable::Device host(torch::headeronly::DeviceType::CPU);
  const Tensor local = number.is_cuda() ? torch::stable::to(number, host) : number;
  return *static_cast<const int64_t*>(local.const_data_ptr());
}

// The first numbers of a list, in memory of their own.
Tensor first_of(Tensor list, int64_t count) {
  return torch::stable::clone(torch::stable::narrow(list, 0, 0, count));
}

// As a batch of one image.
template <class T, int Rank>
View<T, Rank + 1> one_image(const View<T, Rank>& image) {
  View<T, Rank + 1> batch;
  batch.data = image.data;
  batch.sizes[0] = 1;
  for (int d = 0; d < Rank; ++d) {
    batch.sizes[d + 1] = image.sizes[d];
    batch.strides[d + 1] = image.strides[d];
  }
  return batch;
}

Decay decay_of(const Checker& check, const std::string& method) {
  check.require(method == "linear" || method == "gaussian" || method == "naive", "method",
                "expected 'linear', 'gaussian' or 'naive', got '", method, "'");
  return method == "linear"     ? Decay::kLinear
         : method == "gaussian" ? Decay::kGaussian
                                : Decay::kNaive;
}

}  // namespace

template <class Device>
Tensor box_iou(Tensor boxes1, Tensor boxes2, bool plus_one) {
  const Checker check("box_iou");
  check_boxes(check, boxes1, "boxes1", "[N, 4]", 2);
  check_boxes(check, boxes2, "boxes2", "[M, 4]", 2);
  check.same_kind(boxes2, "boxes2", boxes1, "boxes1");

  Tensor overlaps = new_tensor(boxes1, {boxes1.size(0), boxes2.size(0)});
  if (overlaps.numel() == 0) return overlaps;
  Call call(check.op(), boxes1);
  dispatch(boxes1.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(Device, box_iou<T>(call.context(false), plus_one, view<const T, 2>(boxes1),
                                     view<const T, 2>(boxes2), view<T, 2>(overlaps)));
  });
  return overlaps;
}

template <class Device>
Tensor nms(Tensor boxes, Tensor scores, OptionalTensor idxs, double iou_threshold, bool plus_one) {
  const Checker check("nms");
  check_boxes(check, boxes, "boxes", "[N, 4]", 2);
  check_scores(check, scores, boxes, "[N]");
  check_idxs(check, idxs, scores, "[N]");
  check_threshold(check, iou_threshold);

  Tensor kept = new_integers(boxes, {boxes.size(0)});
  if (kept.numel() == 0) return kept;
  Tensor count = new_integers(boxes, {1});
  {
    Call call(check.op(), boxes);
    dispatch(boxes.scalar_type(), [&]<class T>(Type<T>) {
      DEFORMOPS_RUN(
          Device,
          nms<T>(call.context(false), {iou_threshold, plus_one}, one_image(view<const T, 2>(boxes)),
                 one_image(view<const T, 1>(scores)), one_image(view<const int64_t, 1>(idxs)),
                 one_image(view<int64_t, 1>(kept)), view<int64_t, 1>(count)));
    });
  }
  return first_of(kept, value_of(count));
}

template <class Device>
std::tuple<Tensor, Tensor> nms_padded(Tensor boxes, Tensor scores, OptionalTensor idxs,
                                      double iou_threshold, int64_t max_output, bool plus_one) {
  const Checker check("nms_padded");
  check_boxes(check, boxes, "boxes", "[B, N, 4]", 3);
  check_scores(check, scores, boxes, "[B, N]");
  check_idxs(check, idxs, scores, "[B, N]");
  check_threshold(check, iou_threshold);
  check.require(max_output >= 0 && max_output <= kLargest, "max_output",
                "expected an integer from 0 to ", kLargest, ", got ", max_output);

  Tensor kept = new_integers(boxes, {boxes.size(0), max_output});
  Tensor counts = new_integers(boxes, {boxes.size(0)});
  if (boxes.numel() == 0 || max_output == 0) {
    return {torch::stable::fill_(kept, -1), torch::stable::zero_(counts)};
  }
  Call call(check.op(), boxes);
  dispatch(boxes.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(Device,
                  nms<T>(call.context(false), {iou_threshold, plus_one}, view<const T, 3>(boxes),
                         view<const T, 2>(scores), view<const int64_t, 2>(idxs),
                         view<int64_t, 2>(kept), view<int64_t, 1>(counts)));
  });
  return {kept, counts};
}

template <class Device>
std::tuple<Tensor, Tensor> soft_nms(Tensor boxes, Tensor scores, double iou_threshold, double sigma,
                                    double min_score, std::string method, bool plus_one) {
  const Checker check("soft_nms");
  check_boxes(check, boxes, "boxes", "[N, 4]", 2);
  check_scores(check, scores, boxes, "[N]");
  check_threshold(check, iou_threshold);
  check.require(sigma > 0 && std::isfinite(sigma), "sigma",
                "expected a finite number above 0, got ", sigma);
  check.require(min_score >= 0 && std::isfinite(min_score), "min_score",
                "expected a finite number of at least 0, got ", min_score);
  const SoftSuppression rule = {
      {iou_threshold, plus_one}, decay_of(check, method), sigma, min_score};

  Tensor kept_scores = new_tensor(scores, {scores.size(0)});
  Tensor kept = new_integers(boxes, {boxes.size(0)});
  if (kept.numel() == 0) return {kept_scores, kept};
  Tensor count = new_integers(boxes, {1});
  {
    Call call(check.op(), boxes);
    dispatch(boxes.scalar_type(), [&]<class T>(Type<T>) {
      DEFORMOPS_RUN(Device, soft_nms<T>(call.context(false), rule, view<const T, 2>(boxes),
                                        view<const T, 1>(scores), view<T, 1>(kept_scores),
                                        view<int64_t, 1>(kept), view<int64_t, 1>(count)));
    });
  }
  const int64_t chosen = value_of(count);
  return {first_of(kept_scores, chosen), first_of(kept, chosen)};
}

#define DEFORMOPS_INSTANTIATE(Device)                                                            \
  template Tensor box_iou<Device>(Tensor, Tensor, bool);                                         \
  template Tensor nms<Device>(Tensor, Tensor, OptionalTensor, double, bool);                     \
  template std::tuple<Tensor, Tensor> nms_padded<Device>(Tensor, Tensor, OptionalTensor, double, \
                                                         int64_t, bool);                         \
  template std::tuple<Tensor, Tensor> soft_nms<Device>(Tensor, Tensor, double, double, double,   \
                                                       std::string, bool)

#if !defined(DEFORMOPS_SIMULATED)
DEFORMOPS_INSTANTIATE(CpuKernels);
#endif
#if defined(DEFORMOPS_WITH_CUDA) || defined(DEFORMOPS_SIMULATED)
DEFORMOPS_INSTANTIATE(CudaKernels);
#endif

}  // namespace deformops

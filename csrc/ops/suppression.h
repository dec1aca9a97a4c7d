// The ops of kernels/suppression.h as the dispatcher calls them; library.cpp has their schemas.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>

#include "ops/tensors.h"

namespace deformops {

template <class Device>
Tensor box_iou(Tensor boxes1, Tensor boxes2, bool plus_one);

template <class Device>
Tensor nms(Tensor boxes, Tensor scores, OptionalTensor idxs, double iou_threshold, bool plus_one);

template <class Device>
std::tuple<Tensor, Tensor> nms_padded(Tensor boxes, Tensor scores, OptionalTensor idxs,
                                      double iou_threshold, int64_t max_output, bool plus_one);

template <class Device>
std::tuple<Tensor, Tensor> soft_nms(Tensor boxes, Tensor scores, double iou_threshold, double sigma,
                                    double min_score, std::string method, bool plus_one);

}  // namespace deformops

#include "ops/convolution.h"

#include <algorithm>

#include "kernels/convolution.h"
#include "ops/checks.h"

namespace deformops {
namespace {

// The arguments that all ops of the family share, checked and brought into the kernels' form.
class Sampling {
 public:
  Sampling(const Checker& check, const Pair& kernel_size, const Pair& stride, const Pair& padding,
           const Pair& dilation, const Pair& order, const std::string& border,
           const std::string& kink)
      : check_(check) {
    check.pair(kernel_size, "kernel_size", 1);
    check.pair(stride, "stride", 1);
    check.pair(padding, "padding", 0);
    check.pair(dilation, "dilation", 1);
    check.pair(order, "order", 0);
    check.require(order[0] <= 1 && order[1] <= 1, "order", "expected 0 or 1 for each axis, got ",
                  to_string(order));
    check.require(border == "v2" || border == "v1", "border", "expected 'v2' or 'v1', got '",
                  border, "'");
    check.require(kink == "inner" || kink == "zero", "kink", "expected 'inner' or 'zero', got '",
                  kink, "'");
    y_ = {0, 0, kernel_size[0], stride[0], padding[0], dilation[0]};
    x_ = {0, 0, kernel_size[1], stride[1], padding[1], dilation[1]};
    order_y_ = static_cast<int>(order[0]);
    order_x_ = static_cast<int>(order[1]);
    border_ = border == "v2" ? Border::kFade : Border::kClip;
    kink_ = kink == "inner" ? Kink::kInner : Kink::kZero;
  }

  int64_t taps() const { return y_.taps * x_.taps; }
  int64_t output_height() const { return y_.output; }
  int64_t output_width() const { return x_.output; }
  int64_t offset_groups() const { return offset_groups_; }

  void set_input_size(int64_t height, int64_t width) {
    set_input_size(y_, height, "height");
    set_input_size(x_, width, "width");
  }

  // The number of offset groups follows from the offset's channels, else from the mask's, else
  // from `otherwise`.
  void set_offsets(const OptionalTensor& offset, const OptionalTensor& mask, const Tensor& input,
                   const char* input_name, int64_t otherwise = 1) {
    const int64_t batch = input.size(0), channels = input.size(1);
    offset_groups_ = otherwise;
    const int64_t per_group = taps();
    if (mask) {
      check_.rank(*mask, "mask", 4, "[N, offset_groups * kH * kW, oH, oW]");
      offset_groups_ = mask->size(1) / per_group;
    }
    if (offset) {
      check_.rank(*offset, "offset", 4, "[N, 2 * offset_groups * kH * kW, oH, oW]");
      offset_groups_ = offset->size(1) / (2 * per_group);
    }
    const char* source = offset ? "offset" : mask ? "mask" : "offset_groups";
    check_.require(
        offset_groups_ >= 1 && offset_groups_ <= kLargest && channels % offset_groups_ == 0, source,
        "expected a number of offset groups that divides the ", channels, " channels of ",
        input_name, ", got ", offset_groups_);
    if (offset) {
      check_.same_kind(*offset, "offset", input, input_name);
      check_.shape(*offset, "offset", {batch, 2 * offset_groups_ * per_group, y_.output, x_.output},
                   "[N, 2 * offset_groups * kH * kW, oH, oW]");
    }
    if (mask) {
      check_.same_kind(*mask, "mask", input, input_name);
      check_.shape(*mask, "mask", {batch, offset_groups_ * per_group, y_.output, x_.output},
                   "[N, offset_groups * kH * kW, oH, oW]");
    }
  }

  template <class T>
  SampledWindow<T> window(const OptionalTensor& offset, const OptionalTensor& mask) const {
    return {y_,
            x_,
            offset_groups_,
            order_y_,
            order_x_,
            border_,
            kink_,
            view<const T, 4>(offset),
            view<const T, 4>(mask)};
  }

 private:
  void set_input_size(WindowAxis& axis, int64_t size, const char* name) const {
    axis.input = size;
    const int64_t reach = axis.dilation * (axis.taps - 1) + 1;
    const int64_t room = size + 2 * axis.padding - reach;
    check_.require(room >= 0, "input", "expected a padded ", name, " of at least the kernel's ",
                   reach, " pixels, got ", size + 2 * axis.padding);
    axis.output = room / axis.stride + 1;
  }

  Checker check_;
  WindowAxis y_, x_;
  int64_t offset_groups_ = 1;
  int order_y_, order_x_;
  Border border_;
  Kink kink_;
};

void check_input(const Checker& check, const Tensor& input) {
  check.rank(input, "input", 4, "[N, C, H, W]");
  check.floating(input, "input");
}

// [N, C, taps, oH, oW].
void check_columns(const Checker& check, const Tensor& columns, const Sampling& sampling,
                   int64_t batch, int64_t channels) {
  check.shape(columns, "columns",
              {batch, channels, sampling.taps(), sampling.output_height(), sampling.output_width()},
              "[N, C, kH * kW, oH, oW]");
}

// [O, C / groups, kH, kW] for an input of C channels.
void check_weight(const Checker& check, const Tensor& weight, const Tensor& input) {
  check.rank(weight, "weight", 4, "[O, C / groups, kH, kW]");
  check.same_kind(weight, "weight", input, "input");
  const int64_t channels = input.size(1), group_channels = weight.size(1);
  check.require(group_channels >= 1 ? channels % group_channels == 0 : channels == 0, "weight",
                "expected a second dimension that divides the ", channels,
                " channels of input, got shape ", to_string(shape_of(weight)));
  const int64_t groups = group_channels >= 1 ? std::max<int64_t>(channels / group_channels, 1) : 1;
  check.require(weight.size(0) % groups == 0, "weight", "expected a multiple of the ", groups,
                " groups as first dimension, got shape ", to_string(shape_of(weight)));
}

Pair kernel_size_of(const Checker& check, const Tensor& weight) {
  check.rank(weight, "weight", 4, "[O, C / groups, kH, kW]");
  return {weight.size(2), weight.size(3)};
}

}  // namespace

template <class Device>
Tensor gather_columns(Tensor input, OptionalTensor offset, OptionalTensor mask, Pair kernel_size,
                      Pair stride, Pair padding, Pair dilation, Pair order, std::string border,
                      std::string kink) {
  const Checker check("gather_columns");
  check_input(check, input);
  Sampling sampling(check, kernel_size, stride, padding, dilation, order, border, kink);
  sampling.set_input_size(input.size(2), input.size(3));
  sampling.set_offsets(offset, mask, input, "input");

  Tensor columns = new_tensor(input, {input.size(0), input.size(1), sampling.taps(),
                                      sampling.output_height(), sampling.output_width()});
  if (columns.numel() == 0) return columns;
  Call call(check.op(), input);
  dispatch(input.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(Device, gather_columns<T>(call.context(false), sampling.window<T>(offset, mask),
                                            view<const T, 4>(input), view<T, 5>(columns)));
  });
  return columns;
}

template <class Device>
Tensor scatter_columns(Tensor columns, OptionalTensor offset, OptionalTensor mask, Pair input_size,
                       Pair kernel_size, Pair stride, Pair padding, Pair dilation, Pair order,
                       std::string border, std::string kink, bool deterministic) {
  const Checker check("scatter_columns");
  check.rank(columns, "columns", 5, "[N, C, kH * kW, oH, oW]");
  check.floating(columns, "columns");
  check.pair(input_size, "input_size", 0);
  Sampling sampling(check, kernel_size, stride, padding, dilation, order, border, kink);
  sampling.set_input_size(input_size[0], input_size[1]);
  check_columns(check, columns, sampling, columns.size(0), columns.size(1));
  sampling.set_offsets(offset, mask, columns, "columns");

  Tensor grad_input =
      new_tensor(columns, {columns.size(0), columns.size(1), input_size[0], input_size[1]});
  if (grad_input.numel() == 0) return grad_input;
  Call call(check.op(), columns);
  dispatch(columns.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(Device,
                  scatter_columns<T>(call.context(deterministic), sampling.window<T>(offset, mask),
                                     view<const T, 5>(columns), view<T, 4>(grad_input)));
  });
  return grad_input;
}

template <class Device>
Tensor contract_columns(Tensor input, Tensor columns, OptionalTensor offset, Pair kernel_size,
                        Pair stride, Pair padding, Pair dilation, Pair order, std::string border,
                        std::string kink, int64_t offset_groups) {
  const Checker check("contract_columns");
  check_input(check, input);
  check.same_kind(columns, "columns", input, "input");
  Sampling sampling(check, kernel_size, stride, padding, dilation, order, border, kink);
  sampling.set_input_size(input.size(2), input.size(3));
  check_columns(check, columns, sampling, input.size(0), input.size(1));
  sampling.set_offsets(offset, std::nullopt, input, "input", offset_groups);
  check.require(sampling.offset_groups() == offset_groups, "offset_groups",
                "expected the number of groups of offset, ", sampling.offset_groups(), ", got ",
                offset_groups);

  Tensor grad_mask = new_tensor(input, {input.size(0), offset_groups * sampling.taps(),
                                        sampling.output_height(), sampling.output_width()});
  if (grad_mask.numel() == 0) return grad_mask;
  if (input.numel() == 0) return torch::stable::zero_(grad_mask);
  Call call(check.op(), input);
  dispatch(input.scalar_type(), [&]<class T>(Type<T>) {
    DEFORMOPS_RUN(Device,
                  contract_columns<T>(call.context(false), sampling.window<T>(offset, std::nullopt),
                                      view<const T, 4>(input), view<const T, 5>(columns),
                                      view<T, 4>(grad_mask)));
  });
  return grad_mask;
}

template <class Device>
Tensor deform_conv2d(Tensor input, OptionalTensor offset, Tensor weight, OptionalTensor bias,
                     OptionalTensor mask, Pair stride, Pair padding, Pair dilation, Pair order,
                     std::string border, std::string kink, bool allow_tf32, bool allow_winograd) {
  const Checker check("deform_conv2d");
  check_input(check, input);
  Sampling sampling(check, kernel_size_of(check, weight), stride, padding, dilation, order, border,
                    kink);
  check_weight(check, weight, input);
  sampling.set_input_size(input.size(2), input.size(3));
  sampling.set_offsets(offset, mask, input, "input");
  if (bias) {
    check.same_kind(*bias, "bias", input, "input");
    check.shape(*bias, "bias", {weight.size(0)}, "[O]");
  }

  Tensor output = new_tensor(
      input, {input.size(0), weight.size(0), sampling.output_height(), sampling.output_width()},
      is_channels_last(input));
  if (output.numel() == 0) return output;
  Call call(check.op(), input);
  dispatch(input.scalar_type(), [&]<class T>(Type<T>) {
    if constexpr (!Device::kCuda) {
      const SampledWindow<T> window = sampling.window<T>(offset, mask);
      if (allow_winograd && !offset && !mask &&
          cpu::winograd_conv2d<T>(call.context(false), window.y, window.x, view<const T, 4>(input),
                                  view<const T, 4>(weight), view<const T, 1>(bias),
                                  view<T, 4>(output))) {
        return;
      }
    }
    DEFORMOPS_RUN(
        Device, deform_conv2d<T>(call.context(false, allow_tf32), sampling.window<T>(offset, mask),
                                 view<const T, 4>(input), view<const T, 4>(weight),
                                 view<const T, 1>(bias), view<T, 4>(output)));
  });
  return output;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> deform_conv2d_backward(
    Tensor grad_output, Tensor input, OptionalTensor offset, Tensor weight, OptionalTensor mask,
    Pair stride, Pair padding, Pair dilation, Pair order, std::string border, std::string kink,
    std::vector<bool> wanted, bool deterministic, bool allow_tf32) {
  const Checker check("deform_conv2d_backward");
  check_input(check, input);
  Sampling sampling(check, kernel_size_of(check, weight), stride, padding, dilation, order, border,
                    kink);
  check_weight(check, weight, input);
  sampling.set_input_size(input.size(2), input.size(3));
  sampling.set_offsets(offset, mask, input, "input");
  check.same_kind(grad_output, "grad_output", input, "input");
  check.shape(grad_output, "grad_output",
              {input.size(0), weight.size(0), sampling.output_height(), sampling.output_width()},
              "[N, O, oH, oW]");
  check.require(wanted.size() == 4, "wanted",
                "expected four flags: input, offset, weight, mask, got ", wanted.size());
  check.require(!wanted[1] || offset, "wanted", "no gradient of an absent offset");
  check.require(!wanted[3] || mask, "wanted", "no gradient of an absent mask");

  // A tensor of its own for each: results of an op must not share memory.
  const auto gradient = [&](bool is_wanted, const OptionalTensor& of, bool channels_last = false) {
    return is_wanted ? new_tensor(*of, shape_of(*of), channels_last) : new_tensor(input, {0});
  };
  Tensor grad_input = gradient(wanted[0], input, is_channels_last(input));
  Tensor grad_offset = gradient(wanted[1], offset);
  Tensor grad_weight = gradient(wanted[2], weight);
  Tensor grad_mask = gradient(wanted[3], mask);
  const auto result = [&] {
    return std::make_tuple(grad_input, grad_offset, grad_weight, grad_mask);
  };
  if (grad_output.numel() == 0 || input.numel() == 0) {
    for (Tensor* empty_sum : {&grad_input, &grad_offset, &grad_weight, &grad_mask}) {
      torch::stable::zero_(*empty_sum);
    }
    return result();
  }

  Call call(check.op(), input);
  dispatch(input.scalar_type(), [&]<class T>(Type<T>) {
    ConvolutionGradients<T> gradients;
    if (wanted[0]) gradients.input = view<T, 4>(grad_input);
    if (wanted[1]) gradients.offset = view<T, 4>(grad_offset);
    if (wanted[2]) gradients.weight = view<T, 4>(grad_weight);
    if (wanted[3]) gradients.mask = view<T, 4>(grad_mask);
    DEFORMOPS_RUN(Device, deform_conv2d_backward<T>(
                              call.context(deterministic, allow_tf32),
                              sampling.window<T>(offset, mask), view<const T, 4>(grad_output),
                              view<const T, 4>(input), view<const T, 4>(weight), gradients));
  });
  return result();
}

#define DEFORMOPS_INSTANTIATE(Device)                                                              \
  template Tensor gather_columns<Device>(Tensor, OptionalTensor, OptionalTensor, Pair, Pair, Pair, \
                                         Pair, Pair, std::string, std::string);                    \
  template Tensor scatter_columns<Device>(Tensor, OptionalTensor, OptionalTensor, Pair, Pair,      \
                                          Pair, Pair, Pair, Pair, std::string, std::string, bool); \
  template Tensor contract_columns<Device>(Tensor, Tensor, OptionalTensor, Pair, Pair, Pair, Pair, \
                                           Pair, std::string, std::string, int64_t);               \
  template Tensor deform_conv2d<Device>(Tensor, OptionalTensor, Tensor, OptionalTensor,            \
                                        OptionalTensor, Pair, Pair, Pair, Pair, std::string,       \
                                        std::string, bool, bool);                                  \
  template std::tuple<Tensor, Tensor, Tensor, Tensor> deform_conv2d_backward<Device>(              \
      Tensor, Tensor, OptionalTensor, Tensor, OptionalTensor, Pair, Pair, Pair, Pair, std::string, \
      std::string, std::vector<bool>, bool, bool)

#if !defined(DEFORMOPS_SIMULATED)
DEFORMOPS_INSTANTIATE(CpuKernels);
#endif
#if defined(DEFORMOPS_WITH_CUDA) || defined(DEFORMOPS_SIMULATED)
DEFORMOPS_INSTANTIATE(CudaKernels);
#endif

}  // namespace deformops

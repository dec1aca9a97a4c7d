#include "ops/roi_pooling.h"

#include <cmath>
#include <limits>

#include "kernels/roi_pooling.h"
#include "ops/checks.h"

namespace deformops {
namespace {

constexpr int64_t kMostSamples = 4096;  // on an axis of a bin

struct NamedConvention {
  const char* name;
  RoiConvention convention;
};

template <size_t kCount>
RoiConvention find(const Checker& check, const NamedConvention (&choices)[kCount],
                   const std::string& name) {
  std::string names;
  for (const NamedConvention& choice : choices) {
    if (name == choice.name) return choice.convention;
    names += (names.empty() ? "'" : "', '") + std::string(choice.name);
  }
  check.require(false, "semantics", "expected one of ", names, "', got '", name, "'");
  return {};
}

// The arguments that all ops of the family share, checked and brought into the kernels' form.
class Bins {
 public:
  // `like` is the input, or has its type, device and number of channels.
  Bins(const Checker& check, const Tensor& like, const char* like_argument, const Tensor& boxes)
      : check_(check), boxes_(boxes) {
    check.rank(boxes, "boxes", 2, "[K, 5]");
    check.shape(boxes, "boxes", {boxes.size(0), 5}, "[K, 5] (image, x1, y1, x2, y2)");
    const bool is_double = like.scalar_type() == ScalarType::Double;
    check.require(boxes.scalar_type() == (is_double ? ScalarType::Double : ScalarType::Float),
                  "boxes", "expected ", is_double ? "float64" : "float32", " for ", like_argument,
                  " of dtype ", torch::headeronly::toString(like.scalar_type()), ", got ",
                  torch::headeronly::toString(boxes.scalar_type()));
    check.require(boxes.device() == like.device(), "boxes", "expected a tensor on the device of ",
                  like_argument, ", got one on another device");
  }

  int64_t count() const { return boxes_.size(0); }

  void set_size(const Pair& output_size, double spatial_scale, const RoiConvention& convention) {
    check_.pair(output_size, "output_size", 1);
    check_.require(spatial_scale > 0 && std::isfinite(spatial_scale), "spatial_scale",
                   "expected a positive number, got ", spatial_scale);
    pooled_ = output_size;
    spatial_scale_ = spatial_scale;
    convention_ = convention;
  }

  void set_groups(const Pair& group_size) {
    check_.pair(group_size, "group_size", 1);
    groups_ = group_size;
  }

  void set_samples(int64_t samples_per_bin) {
    const bool samples = convention_.points != RoiPoints::kPixels;
    check_.require(samples_per_bin <= kMostSamples, "samples_per_bin", "expected at most ",
                   kMostSamples, ", got ", samples_per_bin);
    check_.require(samples ? convention_.points == RoiPoints::kCentred || samples_per_bin >= 1
                           : samples_per_bin == 0,
                   "samples_per_bin", "expected ",
                   samples ? "a positive number" : "0, since these bins are made of pixels",
                   ", got ", samples_per_bin);
    samples_ = samples_per_bin;
  }

  void set_order(const Pair& order) {
    check_.pair(order, "order", 0);
    const int64_t most = convention_.points == RoiPoints::kPixels ? 0 : 1;
    check_.require(order[0] <= most && order[1] <= most, "order", "expected at most ", most,
                   " for each axis, got ", to_string(order));
    order_ = order;
  }

  // [N, C' * groups, H, W].
  void set_input_size(const std::vector<int64_t>& size) {
    size_ = size;
    check_.require(size[0] > 0 || count() == 0, "boxes",
                   "expected none, since there are 0 images, ", "got ", count());
    const int64_t groups = groups_[0] * groups_[1];
    check_.require(size[1] % groups == 0, "input",
                   "expected a number of channels that is a multiple of the ", groups,
                   " groups, got ", size[1]);
    channels_ = size[1] / groups;
  }

  void set_offset(const OptionalTensor& offset, double offset_scale, const Tensor& input) {
    offset_scale_ = offset_scale;
    if (!offset) return;
    check_.require(std::isfinite(offset_scale), "offset_scale", "expected a finite number, got ",
                   offset_scale);
    check_.require(convention_.points != RoiPoints::kPixels, "offset",
                   "expected none, since these bins are made of pixels");
    check_.rank(*offset, "offset", 4, "[K, 2 * classes, part_y, part_x]");
    check_.same_kind(*offset, "offset", input, "input");
    const int64_t classes = offset->size(1) / 2;
    check_.require(offset->size(0) == count() && offset->size(1) % 2 == 0 && classes >= 1 &&
                       channels_ % classes == 0 && offset->size(2) >= 1 && offset->size(3) >= 1,
                   "offset", "expected shape [K, 2 * classes, part_y, part_x] with K = ", count(),
                   " boxes and a number of classes that divides the ", channels_,
                   " channels of the output, got ", to_string(shape_of(*offset)));
  }

  std::vector<int64_t> output_shape() const { return {count(), channels_, pooled_[0], pooled_[1]}; }

  template <class T>
  RoiBins<T> bins(const OptionalTensor& offset = std::nullopt) const {
    return {convention_,
            view<const compute_t<T>, 2>(boxes_),
            view<const T, 4>(offset),
            size_[2],
            size_[3],
            pooled_[0],
            pooled_[1],
            groups_[0],
            groups_[1],
            samples_,
            channels_,
            spatial_scale_,
            offset_scale_,
            static_cast<int>(order_[0]),
            static_cast<int>(order_[1])};
  }

  // On a GPU the kernels find out, without waiting for them.
  template <class Device, class T>
  void check_images(const RoiBins<T>& bins) const {
    if constexpr (!Device::kCuda) {
      for (int64_t k = 0; k < count(); ++k) {
        check_.require(bins.has_image(k, size_[0]), "boxes", "expected the number of one of the ",
                       size_[0], " images in column 0, got ", bins.boxes(k, 0), " in row ", k);
      }
    }
  }

 private:
  const Checker& check_;
  const Tensor& boxes_;
  RoiConvention convention_ = roi::kCaffe;
  std::vector<int64_t> size_ = {0, 0, 0, 0};
  Pair pooled_ = {1, 1}, groups_ = {1, 1}, order_ = {0, 0};
  int64_t samples_ = 0, channels_ = 0;
  double spatial_scale_ = 1, offset_scale_ = 0;
};

void check_input(const Checker& check, const Tensor& input) {
  check.rank(input, "input", 4, "[N, C, H, W]");
  check.floating(input, "input");
}

ScalarType index_type(int64_t pixels) {
  return pixels <= std::numeric_limits<int32_t>::max() ? ScalarType::Int : ScalarType::Long;
}

void require_pixels(const Checker& check, bool are_pixels, int64_t pixels) {
  check.require(are_pixels, "index", "expected numbers of pixels, below ", pixels,
                ", or -1, got others");
}

// Calls body(Type<Index>{}) for the index of a map.
template <class Body>
void dispatch_index(ScalarType dtype, const Body& body) {
  dtype == ScalarType::Int ? body(Type<int32_t>{}) : body(Type<int64_t>{});
}

void check_index(const Checker& check, const Tensor& index, const std::vector<int64_t>& shape,
                 int64_t pixels, const Tensor& like) {
  check.shape(index, "index", shape, "[K, C, pooled_y, pooled_x]");
  const ScalarType dtype = index_type(pixels);
  check.require(index.scalar_type() == dtype, "index", "expected dtype ",
                torch::headeronly::toString(dtype), ", got ",
                torch::headeronly::toString(index.scalar_type()));
  check.require(index.device() == like.device(), "index",
                "expected a tensor on the device of the values, got one on another device");
}

Bins average_bins(const Checker& check, const Tensor& input, const Tensor& boxes,
                  const OptionalTensor& offset, const Pair& output_size, double spatial_scale,
                  const std::string& semantics, const Pair& group_size, int64_t samples_per_bin,
                  double offset_scale, const Pair& order) {
  static constexpr NamedConvention kConventions[] = {{"rfcn", roi::kRfcn},
                                                     {"torchvision", roi::kTorchvision},
                                                     {"aligned", roi::kAligned},
                                                     {"unaligned", roi::kUnaligned},
                                                     {"dcn", roi::kDcn}};
  check_input(check, input);
  Bins bins(check, input, "input", boxes);
  bins.set_size(output_size, spatial_scale, find(check, kConventions, semantics));
  bins.set_groups(group_size);
  bins.set_samples(samples_per_bin);
  bins.set_order(order);
  bins.set_input_size(shape_of(input));
  bins.set_offset(offset, offset_scale, input);
  return bins;
}

}  // namespace

template <class Device>
std::tuple<Tensor, Tensor> roi_pool(Tensor input, Tensor boxes, Pair output_size,
                                    double spatial_scale, std::string semantics, bool want_index) {
  static constexpr NamedConvention kConventions[] = {{"caffe", roi::kCaffe}, {"mmcv", roi::kMmcv}};
  const Checker check("roi_pool");
  check_input(check, input);
  Bins bins(check, input, "input", boxes);
  bins.set_size(output_size, spatial_scale, find(check, kConventions, semantics));
  bins.set_input_size(shape_of(input));

  const bool channels_last = is_channels_last(input);
  const ScalarType index_dtype = index_type(input.size(2) * input.size(3));
  Tensor output = new_tensor(input, bins.output_shape(), channels_last);
  Tensor index = want_index ? new_tensor(input, bins.output_shape(), channels_last, index_dtype)
                            : new_tensor(input, {0}, false, index_dtype);
  const auto result = [&] { return std::make_tuple(output, index); };
  if (output.numel() == 0) return result();
  Call call(check.op(), input);
  dispatch(input.scalar_type(), [&]<class T>(Type<T>) {
    const RoiBins<T> roi_bins = bins.bins<T>();
    bins.check_images<Device>(roi_bins);
    dispatch_index(index_dtype, [&]<class Index>(Type<Index>) {
      View<Index, 4> index_view;
      if (want_index) index_view = view<Index, 4>(index);
      DEFORMOPS_RUN(Device,
                    roi_pool<T, Index>(call.context(false), roi_bins, view<const T, 4>(input),
                                       view<T, 4>(output), index_view));
    });
  });
  return result();
}

template <class Device>
Tensor gather_maxima(Tensor input, Tensor boxes, Tensor index) {
  const Checker check("gather_maxima");
  check_input(check, input);
  check.rank(index, "index", 4, "[K, C, pooled_y, pooled_x]");
  Bins bins(check, input, "input", boxes);
  bins.set_size({index.size(2), index.size(3)}, 1, roi::kCaffe);
  bins.set_input_size(shape_of(input));
  check_index(check, index, bins.output_shape(), input.size(2) * input.size(3), input);

  Tensor output = new_tensor(input, bins.output_shape(), is_channels_last(input));
  if (output.numel() == 0) return output;
  Call call(check.op(), input);
  dispatch(input.scalar_type(), [&]<class T>(Type<T>) {
    const RoiBins<T> roi_bins = bins.bins<T>();
    bins.check_images<Device>(roi_bins);
    dispatch_index(index.scalar_type(), [&]<class Index>(Type<Index>) {
      const bool are_pixels = DEFORMOPS_RUN(
          Device, gather_maxima<T, Index>(call.context(false), roi_bins, view<const T, 4>(input),
                                          view<const Index, 4>(index), view<T, 4>(output)));
      require_pixels(check, are_pixels, input.size(2) * input.size(3));
    });
  });
  return output;
}

template <class Device>
Tensor scatter_maxima(Tensor grad_output, Tensor boxes, Tensor index,
                      std::vector<int64_t> input_size, bool deterministic) {
  const Checker check("scatter_maxima");
  check.rank(grad_output, "grad_output", 4, "[K, C, pooled_y, pooled_x]");
  check.floating(grad_output, "grad_output");
  check.require(input_size.size() == 4, "input_size", "expected [N, C, H, W], got ",
                to_string(input_size));
  for (const int64_t size : input_size) {
    check.require(size >= 0, "input_size", "expected sizes >= 0, got ", to_string(input_size));
  }
  Bins bins(check, grad_output, "grad_output", boxes);
  bins.set_size({grad_output.size(2), grad_output.size(3)}, 1, roi::kCaffe);
  bins.set_input_size(input_size);
  check.shape(grad_output, "grad_output", bins.output_shape(), "[K, C, pooled_y, pooled_x]");
  check_index(check, index, bins.output_shape(), input_size[2] * input_size[3], grad_output);

  Tensor grad_input = new_tensor(grad_output, input_size, is_channels_last(grad_output));
  if (grad_input.numel() == 0) return grad_input;
  if (grad_output.numel() == 0) return torch::stable::zero_(grad_input);
  Call call(check.op(), grad_output);
  dispatch(grad_output.scalar_type(), [&]<class T>(Type<T>) {
    const RoiBins<T> roi_bins = bins.bins<T>();
    bins.check_images<Device>(roi_bins);
    dispatch_index(index.scalar_type(), [&]<class Index>(Type<Index>) {
      const bool are_pixels = DEFORMOPS_RUN(
          Device, scatter_maxima<T, Index>(call.context(deterministic), roi_bins,
                                           view<const T, 4>(grad_output),
                                           view<const Index, 4>(index), view<T, 4>(grad_input)));
      require_pixels(check, are_pixels, input_size[2] * input_size[3]);
    });
  });
  return grad_input;
}

template <class Device>
Tensor roi_average(Tensor input, Tensor boxes, OptionalTensor offset, Pair output_size,
                   double spatial_scale, std::string semantics, Pair group_size,
                   int64_t samples_per_bin, double offset_scale, Pair order) {
  const Checker check("roi_average");
  const Bins bins = average_bins(check, input, boxes, offset, output_size, spatial_scale, semantics,
                                 group_size, samples_per_bin, offset_scale, order);
  Tensor output = new_tensor(input, bins.output_shape(), is_channels_last(input));
  if (output.numel() == 0) return output;
  if (input.numel() == 0) return torch::stable::zero_(output);
  Call call(check.op(), input);
  dispatch(input.scalar_type(), [&]<class T>(Type<T>) {
    const RoiBins<T> roi_bins = bins.bins<T>(offset);
    bins.check_images<Device>(roi_bins);
    DEFORMOPS_RUN(Device, roi_average<T>(call.context(false), roi_bins, view<const T, 4>(input),
                                         view<T, 4>(output)));
  });
  return output;
}

template <class Device>
std::tuple<Tensor, Tensor> roi_average_backward(Tensor grad_output, Tensor input, Tensor boxes,
                                                OptionalTensor offset, Pair output_size,
                                                double spatial_scale, std::string semantics,
                                                Pair group_size, int64_t samples_per_bin,
                                                double offset_scale, Pair order,
                                                std::vector<bool> wanted, bool deterministic) {
  const Checker check("roi_average_backward");
  const Bins bins = average_bins(check, input, boxes, offset, output_size, spatial_scale, semantics,
                                 group_size, samples_per_bin, offset_scale, order);
  check.same_kind(grad_output, "grad_output", input, "input");
  check.shape(grad_output, "grad_output", bins.output_shape(), "[K, C', pooled_y, pooled_x]");
  check.require(wanted.size() == 2, "wanted", "expected two flags: input, offset, got ",
                wanted.size());
  check.require(!wanted[1] || offset, "wanted", "no gradient of an absent offset");

  Tensor grad_input = wanted[0] ? new_tensor(input, shape_of(input), is_channels_last(input))
                                : new_tensor(input, {0});
  Tensor grad_offset = wanted[1] ? new_tensor(*offset, shape_of(*offset)) : new_tensor(input, {0});
  const auto result = [&] { return std::make_tuple(grad_input, grad_offset); };
  if (grad_output.numel() == 0 || input.numel() == 0) {
    torch::stable::zero_(grad_input);
    torch::stable::zero_(grad_offset);
    return result();
  }
  Call call(check.op(), input);
  dispatch(input.scalar_type(), [&]<class T>(Type<T>) {
    const RoiBins<T> roi_bins = bins.bins<T>(offset);
    bins.check_images<Device>(roi_bins);
    View<T, 4> input_view, offset_view;
    if (wanted[0]) input_view = view<T, 4>(grad_input);
    if (wanted[1]) offset_view = view<T, 4>(grad_offset);
    DEFORMOPS_RUN(Device, roi_average_backward<T>(
                              call.context(deterministic), roi_bins, view<const T, 4>(grad_output),
                              view<const T, 4>(input), input_view, offset_view));
  });
  return result();
}

#define DEFORMOPS_INSTANTIATE(Device)                                                             \
  template std::tuple<Tensor, Tensor> roi_pool<Device>(Tensor, Tensor, Pair, double, std::string, \
                                                       bool);                                     \
  template Tensor gather_maxima<Device>(Tensor, Tensor, Tensor);                                  \
  template Tensor scatter_maxima<Device>(Tensor, Tensor, Tensor, std::vector<int64_t>, bool);     \
  template Tensor roi_average<Device>(Tensor, Tensor, OptionalTensor, Pair, double, std::string,  \
                                      Pair, int64_t, double, Pair);                               \
  template std::tuple<Tensor, Tensor> roi_average_backward<Device>(                               \
      Tensor, Tensor, Tensor, OptionalTensor, Pair, double, std::string, Pair, int64_t, double,   \
      Pair, std::vector<bool>, bool)

#if !defined(DEFORMOPS_SIMULATED)
DEFORMOPS_INSTANTIATE(CpuKernels);
#endif
#if defined(DEFORMOPS_WITH_CUDA) || defined(DEFORMOPS_SIMULATED)
DEFORMOPS_INSTANTIATE(CudaKernels);
#endif

}  // namespace deformops

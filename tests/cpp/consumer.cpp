// Calls deformops::deform_conv2d through the dispatcher, without Python: with offsets of zero it is
// a convolution.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdio>

int main() {
  const at::Tensor input = at::randn({2, 3, 8, 9});
  const at::Tensor weight = at::randn({4, 3, 3, 3});
  const at::Tensor bias = at::randn({4});
  const at::Tensor offset = at::zeros({2, 18, 8, 9});

  const c10::List<int64_t> one({1, 1}), zero({0, 0});
  const c10::OperatorHandle op =
      c10::Dispatcher::singleton().findSchemaOrThrow("deformops::deform_conv2d", "");
  torch::jit::Stack stack = {input,
                             offset,
                             weight,
                             bias,
                             c10::IValue(),
                             one,
                             one,
                             one,
                             zero,
                             std::string("v2"),
                             std::string("inner")};
  for (size_t i = stack.size(); i < op.schema().arguments().size(); ++i) {
    stack.push_back(*op.schema().arguments()[i].default_value());
  }
  op.callBoxed(stack);

  const double error =
      (stack.front().toTensor() - at::conv2d(input, weight, bias, 1, 1)).abs().max().item<double>();
  std::printf("largest difference to a convolution: %.1e\n", error);
  return error < 1e-4 ? 0 : 1;
}

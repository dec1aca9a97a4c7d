// What every op asks of its arguments. A message names the op, the argument, what was expected and
// what came; it reaches Python as a RuntimeError (the public functions check before, and raise
// ValueError or TypeError).
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops/tensors.h"

namespace deformops {

inline std::string to_string(const std::vector<int64_t>& values) {
  std::ostringstream text;
  text << '[';
  for (size_t i = 0; i < values.size(); ++i) text << (i ? ", " : "") << values[i];
  text << ']';
  return text.str();
}

inline std::vector<int64_t> shape_of(const Tensor& tensor) {
  return {tensor.sizes().begin(), tensor.sizes().end()};
}

// Of a stride, a dilation and their like.
constexpr int64_t kLargest = (int64_t{1} << 31) - 1;

// The arguments of one call of one op.
class Checker {
 public:
  explicit Checker(const char* op) : op_(op) {}

  const char* op() const { return op_; }

  template <class... Parts>
  void require(bool condition, const char* argument, const Parts&... parts) const {
    if (condition) return;
    std::ostringstream message;
    message << op_ << ": " << argument << ": ";
    (message << ... << parts);
    throw std::runtime_error(message.str());
  }

  // A dtype the kernels have.
  void floating(const Tensor& tensor, const char* argument) const {
    const ScalarType dtype = tensor.scalar_type();
    require(dtype == ScalarType::Double || dtype == ScalarType::Float ||
                dtype == ScalarType::Half || dtype == ScalarType::BFloat16,
            argument, "expected a tensor of float64, float32, float16 or bfloat16, got dtype ",
            torch::headeronly::toString(dtype));
  }

  void same_kind(const Tensor& tensor, const char* argument, const Tensor& like,
                 const char* like_argument) const {
    require(tensor.scalar_type() == like.scalar_type(), argument, "expected the dtype of ",
            like_argument, ", ", torch::headeronly::toString(like.scalar_type()), ", got ",
            torch::headeronly::toString(tensor.scalar_type()));
    require(tensor.device() == like.device(), argument, "expected a tensor on the device of ",
            like_argument, ", got one on another device");
  }

  // `layout` says in words what the numbers of `expected` are.
  void shape(const Tensor& tensor, const char* argument, const std::vector<int64_t>& expected,
             const char* layout) const {
    const std::vector<int64_t> actual = shape_of(tensor);
    require(actual == expected, argument, "expected shape ", layout, " = ", to_string(expected),
            ", got ", to_string(actual));
  }

  void rank(const Tensor& tensor, const char* argument, int64_t expected,
            const char* layout) const {
    require(tensor.dim() == expected, argument, "expected ", expected, " dimensions ", layout,
            ", got shape ", to_string(shape_of(tensor)));
  }

  // Two integers; far below what the products of two of them and a size would need to overflow.
  void pair(const std::vector<int64_t>& values, const char* argument, int64_t minimum) const {
    const auto fits = [&](int64_t value) { return value >= minimum && value <= kLargest; };
    require(values.size() == 2 && fits(values[0]) && fits(values[1]), argument,
            "expected two integers from ", minimum, " to ", kLargest, ", got ", to_string(values));
  }

 private:
  const char* op_;
};

}  // namespace deformops

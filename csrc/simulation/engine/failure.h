// What went wrong in a kernel, and where.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "simulation/device/vector_types.h"
#include "simulation/engine/symbols.h"

namespace deformops::simulation {

struct Failure {
  std::string kind;     // a few words by which tests and people know it, as "race" or "barrier"
  std::string message;  // what happened, in a sentence
  std::string op;       // whose memory scope it was in; may be empty
  std::string kernel;   // empty when no kernel was involved
  bool in_thread = false;
  uint3 block = {0, 0, 0};
  uint3 thread = {0, 0, 0};
  std::vector<Place> stack;  // innermost first; may be empty
  uint64_t seed = 0;         // seed and launch number name the schedule that led there
  uint64_t launch = 0;

  std::string text() const;
};

class __attribute__((visibility("default"))) KernelError : public std::runtime_error {
 public:
  explicit KernelError(Failure failure)
      : std::runtime_error(failure.text()), failure_(std::move(failure)) {}
  const Failure& failure() const { return failure_; }

 private:
  Failure failure_;
};

DEFORMOPS_SIMULATION_API std::string to_string(uint3 index);  // "(1, 0, 0)"

}  // namespace deformops::simulation

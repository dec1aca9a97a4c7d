// From program counters back to source lines, by the debug information that kernels are compiled
// with.
#pragma once

#include <string>
#include <vector>

#include "simulation/device/engine.h"

namespace deformops::simulation {

struct Place {
  std::string function;
  std::string file;
  int line = 0;
};

DEFORMOPS_SIMULATION_API std::string to_string(
    const Place& place);  // "csrc/kernels/cuda/gather.cu:42"

// The source lines at a program counter: more than one when functions were inlined, innermost
// first. Functions are named with their template arguments, without their parameters. Lines of the
// simulation's own headers are left out. Needs addr2line (GNU binutils); without it, or
// without debug information, the place is the library and an offset. Results are kept.
const std::vector<Place>& places_at(const void* program_counter);
// The same for many at once: one process instead of many.
void resolve_places(const std::vector<const void*>& program_counters);

// Name of a kernel with its template arguments, without its parameters.
std::string kernel_name(const void* kernel);

// The lines on the present stack that belong to code in [begin, end), innermost first, up to the
// function that is named `last`; at most 16.
std::vector<Place> call_stack(const void* begin, const void* end, const std::string& last);

}  // namespace deformops::simulation

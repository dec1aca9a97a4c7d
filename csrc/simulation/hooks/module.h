// The extent of the library that this is linked into.
#pragma once

#include "simulation/device/engine.h"

// Defined by the linker.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start;
extern "C" __attribute__((visibility("hidden"))) const char _end;

namespace deformops::simulation {

inline void register_this_module(bool sees_every_access) {
  register_instrumented_module(&__ehdr_start, &_end, sees_every_access);
}

}  // namespace deformops::simulation

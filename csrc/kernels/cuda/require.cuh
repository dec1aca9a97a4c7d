// What a kernel demands of values that only the device knows. Nobody waits for
// the answer: a demand that is not met ends the launch as a failed assert does,
// with this message, file and line, and is an error at the next synchronisation
// with the host.
#pragma once

#if defined(DEFORMOPS_SIMULATED)
#include "simulation/device/engine.h"
#define DEFORMOPS_REFUSE(message) \
  ::deformops::simulation::refuse_arguments(message, ::deformops::simulation::Site::here())
#else
// What assert() calls, in builds without assert() as well.
extern "C" __host__ __device__ void __assert_fail(const char* assertion, const char* file,
                                                  unsigned line, const char* function) noexcept
    __attribute__((noreturn));
#define DEFORMOPS_REFUSE(message) __assert_fail(message, __FILE__, __LINE__, __func__)
#endif

#define DEFORMOPS_REQUIRE(condition, message)    \
  do {                                           \
    if (!(condition)) DEFORMOPS_REFUSE(message); \
  } while (0)

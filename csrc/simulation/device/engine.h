// What a compiled kernel asks of the engine: the border between instrumented code (kernels, and the
// headers of this folder) and uninstrumented code (../engine). Only plain types cross it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simulation/device/vector_types.h"

#define DEFORMOPS_SIMULATION_API __attribute__((visibility("default")))

namespace deformops::simulation {

struct Site {
  const char* file = "";
  int line = 0;

  // As a default argument: where the caller stands in the source.
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// --- who am I ------------------------------------------------------------------------------------
// A thread's coordinates never change while it runs, so the compiler may call these once and keep
// the result, even across a switch to another thread.
[[gnu::const]] DEFORMOPS_SIMULATION_API uint3 thread_index() noexcept;
[[gnu::const]] DEFORMOPS_SIMULATION_API uint3 block_index() noexcept;
[[gnu::const]] DEFORMOPS_SIMULATION_API dim3 block_extent() noexcept;
[[gnu::const]] DEFORMOPS_SIMULATION_API dim3 grid_extent() noexcept;

// --- meeting the other threads -------------------------------------------------------------------
enum class BarrierResult : int { kNone, kCount, kAnd, kOr };
DEFORMOPS_SIMULATION_API int block_barrier(BarrierResult result, int predicate, Site site);

DEFORMOPS_SIMULATION_API void warp_barrier(unsigned mask, Site site);

enum class Shuffle : int { kIndex, kUp, kDown, kXor };
// Replaces value by that of another lane; bytes <= 16.
DEFORMOPS_SIMULATION_API void shuffle(Shuffle kind, unsigned mask, void* value, size_t bytes,
                                      int operand, int width, Site site);

enum class Vote : int { kBallot, kAny, kAll };
DEFORMOPS_SIMULATION_API unsigned vote(Vote kind, unsigned mask, bool predicate, Site site);
DEFORMOPS_SIMULATION_API unsigned match_any(unsigned mask, uint64_t value, Site site);

enum class Reduction : int { kAdd, kMin, kMax, kSignedMin, kSignedMax, kAnd, kOr, kXor };
DEFORMOPS_SIMULATION_API unsigned reduce(Reduction kind, unsigned mask, unsigned value, Site site);

enum class Fence : int { kBlock, kDevice };
DEFORMOPS_SIMULATION_API void memory_fence(Fence scope);

[[noreturn]] DEFORMOPS_SIMULATION_API void refuse_launch_bounds(unsigned max_threads);

// A kernel found its arguments wrong. On a GPU a failed assert ends the launch.
[[noreturn]] DEFORMOPS_SIMULATION_API void refuse_arguments(const char* message, Site site);

// --- memory --------------------------------------------------------------------------------------
// Storage of a __shared__ variable in the running block; identity tells declarations apart.
DEFORMOPS_SIMULATION_API void* static_shared(const void* identity, const char* name, size_t bytes,
                                             size_t alignment);
DEFORMOPS_SIMULATION_API void* dynamic_shared(const char* name, size_t alignment);

// To be called before an atomic read-modify-write, which then happens at once.
DEFORMOPS_SIMULATION_API void announce_atomic(void* address, size_t bytes);

// --- asynchronous copies and tensor cores (PTX) --------------------------------------------------
DEFORMOPS_SIMULATION_API void async_copy(void* shared, const void* global, int bytes,
                                         int source_bytes, Site site);
DEFORMOPS_SIMULATION_API void async_commit();
DEFORMOPS_SIMULATION_API void async_wait(int pending_groups);

DEFORMOPS_SIMULATION_API void load_matrices(uint32_t* registers, int count, bool transposed,
                                            const void* row, Site site);

enum class Multiply : int {
  kM16N8K16F16,
  kM16N8K16BF16,
  kM16N8K8F16,
  kM16N8K8BF16,
  kM16N8K8TF32,
  kM16N8K4TF32,
  kM8N8K4F64,
};
// a, b, c and d point to this lane's fragments, in the registers' order of the PTX manual.
DEFORMOPS_SIMULATION_API void multiply(Multiply shape, void* d, const void* a, const void* b,
                                       const void* c, Site site);

// --- the host's side -----------------------------------------------------------------------------
struct Launch {
  const void* kernel;  // address of the __global__ function
  dim3 grid;
  dim3 block;
  size_t dynamic_shared_bytes;
  void (*body)(void* arguments);  // calls the kernel once, as one thread
  void* arguments;
  size_t argument_bytes;
};
// Runs all blocks; returns when they are done. Throws KernelError.
DEFORMOPS_SIMULATION_API void launch(const Launch& launch);

enum class Limit : int {
  kMultiprocessors,
  kComputeMajor,
  kComputeMinor,
  kThreadsPerBlock,
  kThreadsPerMultiprocessor,
  kBlocksPerMultiprocessor,
  kSharedBytesPerBlock,  // without opting in
  kSharedBytesPerBlockOptin,
  kSharedBytesPerMultiprocessor,
  kWarpSize,
};
DEFORMOPS_SIMULATION_API int device_limit(Limit limit);
// False when it exceeds the device's limit.
DEFORMOPS_SIMULATION_API bool allow_dynamic_shared(const void* kernel, size_t bytes);
// What a stream does besides kernels: ordered with them.
DEFORMOPS_SIMULATION_API void fill_memory(void* data, int byte, size_t bytes);
DEFORMOPS_SIMULATION_API void copy_memory(void* destination, const void* source, size_t bytes);

// --- the instrumentation's side ------------------------------------------------------------------
// What hooks look at on every memory access before they bother the engine.
struct Running {
  void* thread = nullptr;   // null: host code
  uintptr_t stack_low = 0;  // the running thread's own stack
  uintptr_t stack_high = 0;
  uint64_t until_preemption = ~uint64_t{0};
};
DEFORMOPS_SIMULATION_API extern Running running;

enum class Access : uint8_t { kRead, kWrite, kVolatileRead, kVolatileWrite };
DEFORMOPS_SIMULATION_API void check_access(Access access, const void* address, size_t bytes,
                                           bool aligned, const void* program_counter);
DEFORMOPS_SIMULATION_API void preempt();
// Does not return: ends the launch, or throws where there is none.
[[noreturn]] DEFORMOPS_SIMULATION_API void refuse_undefined_behaviour(const char* message,
                                                                      Site site);
// By the library that holds the kernels: where its code and data lie, and whether it was compiled
// so that check_access is called for every access.
DEFORMOPS_SIMULATION_API void register_instrumented_module(const void* begin, const void* end,
                                                           bool sees_every_access);

}  // namespace deformops::simulation

// What the glue tells the simulated device about memory. A GPU faults when a kernel strays into a
// page that is not mapped; here every tensor has its own fence.
#pragma once

#include <cstddef>

namespace deformops::simulation {

enum class Memory {
  kReadOnly,  // writing is an error
  kReadWrite,
  kUninitialized,  // fresh outputs and scratch: filled with 0xFF bytes (NaN), and reading one
                   // before it was written is an error
};

// One on the stack of each op call. Inside it kernels may touch only what is registered inside it;
// outside any scope, memory is not fenced. Ops of several host threads take turns.
class __attribute__((visibility("default"))) MemoryScope {
 public:
  // `op` is named in errors, and kept by pointer: pass a string literal.
  explicit MemoryScope(const char* op);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  size_t outer_regions_;
  const char* outer_op_;
};

// [data, data + bytes) may be touched. Of overlapping registrations the last decides. `name` is
// kept by pointer: pass a string literal.
__attribute__((visibility("default"))) void register_memory(const void* data, size_t bytes,
                                                            Memory memory, const char* name);

}  // namespace deformops::simulation

// The compiler's -fsanitize=thread puts a call before every memory access. Linked without that
// sanitizer's library, the calls come here, and go on to a checker that knows what orders memory on
// a GPU. Part of the library that holds the kernels; the symbols stay inside it.
#include <cstring>

#include "simulation/hooks/module.h"

namespace deformops::simulation {
namespace {

[[gnu::constructor]] void register_module() { register_this_module(true); }

inline void hook(Access access, const void* address, size_t bytes, bool aligned,
                 const void* program_counter) {
  if (running.thread == nullptr) return;  // host code of the same source file
  const auto at = reinterpret_cast<uintptr_t>(address);
  if (at >= running.stack_low && at < running.stack_high) return;  // its own local variables
  if (--running.until_preemption == 0) preempt();
  check_access(access, address, bytes, aligned, program_counter);
}

}  // namespace
}  // namespace deformops::simulation

using deformops::simulation::Access;
using deformops::simulation::hook;

#define DEFORMOPS_HOOK extern "C" __attribute__((visibility("hidden"))) void
#define DEFORMOPS_CALLER __builtin_return_address(0)

#define DEFORMOPS_HOOKS(bytes)                                       \
  DEFORMOPS_HOOK __tsan_read##bytes(void* p) {                       \
    hook(Access::kRead, p, bytes, true, DEFORMOPS_CALLER);           \
  }                                                                  \
  DEFORMOPS_HOOK __tsan_write##bytes(void* p) {                      \
    hook(Access::kWrite, p, bytes, true, DEFORMOPS_CALLER);          \
  }                                                                  \
  DEFORMOPS_HOOK __tsan_unaligned_read##bytes(void* p) {             \
    hook(Access::kRead, p, bytes, false, DEFORMOPS_CALLER);          \
  }                                                                  \
  DEFORMOPS_HOOK __tsan_unaligned_write##bytes(void* p) {            \
    hook(Access::kWrite, p, bytes, false, DEFORMOPS_CALLER);         \
  }                                                                  \
  DEFORMOPS_HOOK __tsan_volatile_read##bytes(void* p) {              \
    hook(Access::kVolatileRead, p, bytes, true, DEFORMOPS_CALLER);   \
  }                                                                  \
  DEFORMOPS_HOOK __tsan_volatile_write##bytes(void* p) {             \
    hook(Access::kVolatileWrite, p, bytes, true, DEFORMOPS_CALLER);  \
  }                                                                  \
  DEFORMOPS_HOOK __tsan_unaligned_volatile_read##bytes(void* p) {    \
    hook(Access::kVolatileRead, p, bytes, false, DEFORMOPS_CALLER);  \
  }                                                                  \
  DEFORMOPS_HOOK __tsan_unaligned_volatile_write##bytes(void* p) {   \
    hook(Access::kVolatileWrite, p, bytes, false, DEFORMOPS_CALLER); \
  }

DEFORMOPS_HOOKS(1)
DEFORMOPS_HOOKS(2)
DEFORMOPS_HOOKS(4)
DEFORMOPS_HOOKS(8)
DEFORMOPS_HOOKS(16)

DEFORMOPS_HOOK __tsan_read_range(void* p, size_t bytes) {
  hook(Access::kRead, p, bytes, false, DEFORMOPS_CALLER);
}
DEFORMOPS_HOOK __tsan_write_range(void* p, size_t bytes) {
  hook(Access::kWrite, p, bytes, false, DEFORMOPS_CALLER);
}

// Calls of these are not instrumented; the linker's --wrap sends them here.
extern "C" void* __real_memcpy(void*, const void*, size_t);
extern "C" void* __real_memmove(void*, const void*, size_t);
extern "C" void* __real_memset(void*, int, size_t);

extern "C" __attribute__((visibility("hidden"))) void* __wrap_memcpy(void* target,
                                                                     const void* source,
                                                                     size_t bytes) {
  hook(Access::kRead, source, bytes, false, DEFORMOPS_CALLER);
  hook(Access::kWrite, target, bytes, false, DEFORMOPS_CALLER);
  return __real_memcpy(target, source, bytes);
}
extern "C" __attribute__((visibility("hidden"))) void* __wrap_memmove(void* target,
                                                                      const void* source,
                                                                      size_t bytes) {
  hook(Access::kRead, source, bytes, false, DEFORMOPS_CALLER);
  hook(Access::kWrite, target, bytes, false, DEFORMOPS_CALLER);
  return __real_memmove(target, source, bytes);
}
extern "C" __attribute__((visibility("hidden"))) void* __wrap_memset(void* target, int byte,
                                                                     size_t bytes) {
  hook(Access::kWrite, target, bytes, false, DEFORMOPS_CALLER);
  return __real_memset(target, byte, bytes);
}

// Of no use here: the engine unwinds the stack when it needs one.
DEFORMOPS_HOOK __tsan_init() {}
DEFORMOPS_HOOK __tsan_func_entry(void*) {}
DEFORMOPS_HOOK __tsan_func_exit() {}
DEFORMOPS_HOOK __tsan_vptr_update(void**, void*) {}
DEFORMOPS_HOOK __tsan_vptr_read(void**) {}

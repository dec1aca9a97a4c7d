#include "simulation/engine/sanitizer.h"

// Weak: null unless libasan was loaded before this library.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void**, const void*, size_t);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
__attribute__((weak)) void __asan_poison_memory_region(const volatile void*, size_t);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void*, size_t);
__attribute__((weak)) void* __asan_region_is_poisoned(void*, size_t);
__attribute__((weak)) void __asan_set_error_report_callback(void (*)(const char*));
}

namespace deformops::simulation::sanitizer {

bool active() { return __asan_poison_memory_region != nullptr; }

void start_switch(void** fake_stack, const void* next_stack_low, size_t next_stack_bytes) {
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(fake_stack, next_stack_low, next_stack_bytes);
  }
}

void finish_switch(void* fake_stack) {
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
  }
}

void poison(const void* address, size_t bytes) {
  if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(address, bytes);
}

void unpoison(const void* address, size_t bytes) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(address, bytes);
}

const void* first_poisoned(const void* address, size_t bytes) {
  if (__asan_region_is_poisoned == nullptr) return nullptr;
  return __asan_region_is_poisoned(const_cast<void*>(address), bytes);
}

void on_report(void (*report)(const char*)) {
  if (__asan_set_error_report_callback != nullptr) __asan_set_error_report_callback(report);
}

}  // namespace deformops::simulation::sanitizer

// AddressSanitizer, when the process was started with its library: the engine is not instrumented
// itself, but has to tell it of its stacks and of shared memory, and turns its reports into errors.
// Without it all of this does nothing.
#pragma once

#include <cstddef>

namespace deformops::simulation::sanitizer {

bool active();

// Round every switch of stacks. `fake_stack` is kept by the flow of control that is left; null when
// it never comes back.
void start_switch(void** fake_stack, const void* next_stack_low, size_t next_stack_bytes);
void finish_switch(void* fake_stack);

void poison(const void* address, size_t bytes);
void unpoison(const void* address, size_t bytes);
// The first byte that may not be touched, or null.
const void* first_poisoned(const void* address, size_t bytes);

// From now on reports are handed to `report` as well as printed. The sanitizer holds its locks
// then, so `report` must return.
void on_report(void (*report)(const char* text));

}  // namespace deformops::simulation::sanitizer

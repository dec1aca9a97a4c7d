// Suspending one flow of control and continuing another: all that is needed to be many threads.
#pragma once

#if !defined(__x86_64__) || defined(DEFORMOPS_SIMULATION_UCONTEXT)
#include <ucontext.h>
#endif

namespace deformops::simulation {

class Context {
 public:
  // Lets the first switch to this context call entry, which must never return, on a stack that ends
  // at stack_end (growing downwards, aligned to 16) and is `bytes` long.
  void prepare(void* stack_end, unsigned long bytes, void (*entry)());

  // Saves the present flow of control here and continues `next` where it was saved.
  void switch_to(Context& next);

 private:
#if !defined(__x86_64__) || defined(DEFORMOPS_SIMULATION_UCONTEXT)
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace deformops::simulation

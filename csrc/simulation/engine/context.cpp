#include "simulation/engine/context.h"

#include <cstdint>

namespace deformops::simulation {

#if !defined(__x86_64__) || defined(DEFORMOPS_SIMULATION_UCONTEXT)

// The portable way. It saves the signal mask too, one system call a switch, ten times slower.
void Context::prepare(void* stack_end, unsigned long bytes, void (*entry)()) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = static_cast<char*>(stack_end) - bytes;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
}

void Context::switch_to(Context& next) { swapcontext(&context_, &next.context_); }

#else

// A function call already saves what the caller needs, except for the six registers that the
// calling convention leaves to the callee. So a switch is: push those six, exchange the stack
// pointer, pop the other's six, and return to where the other one called from.
extern "C" void deformops_switch_stack(void** saved_stack_pointer, void* next_stack_pointer);
asm(R"(
  .text
  .p2align 4
  .hidden deformops_switch_stack
  .globl deformops_switch_stack
  .type deformops_switch_stack, @function
deformops_switch_stack:
  .cfi_startproc
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
  .size deformops_switch_stack, .-deformops_switch_stack
)");

void Context::prepare(void* stack_end, unsigned long, void (*entry)()) {
  // What deformops_switch_stack expects to find: six registers, then a return address. Above it
  // stands the return address of entry itself, null, so that a backtrace ends there. With it popped
  // the stack is aligned as it is after any call: to 8 bytes, not 16.
  auto** top = static_cast<void**>(stack_end);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = top;
}

void Context::switch_to(Context& next) {
  deformops_switch_stack(&stack_pointer_, next.stack_pointer_);
}

#endif

}  // namespace deformops::simulation

#include "simulation/engine/faults.h"

#include <array>
#include <string>

#include "simulation/engine/device.h"

namespace deformops::simulation {
namespace {

constexpr std::array<int, 4> kSignals = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

std::array<struct sigaction, kSignals.size()> outer_actions;
// A full stack has no room for the handler of its own overflow.
alignas(16) std::array<char, 128 << 10> handler_stack;

std::string hexadecimal(uintptr_t value) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) {
    const auto digit = value >> shift & 15;
    if (digit != 0 || !text.empty()) text += digits[digit];
  }
  return "0x" + (text.empty() ? "0" : text);
}

void handle(int signal, siginfo_t* info, void*) {
  if (running.thread == nullptr) {
    // Not ours: restore what was there and let the instruction fault again.
    for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &outer_actions[i], nullptr);
    return;
  }
  Device& device = Device::get();
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (signal == SIGFPE) device.fail("fault", "integer division by zero");
  if (signal == SIGILL) device.fail("fault", "illegal instruction (a trap, or a failed assertion)");
  if (device.block.running_thread().stack->guard_holds(address)) {
    device.fail("fault", "the thread's stack is full (" + std::to_string(Stack::kBytes >> 10) +
                             " KiB): endless recursion, or too large local arrays");
  }
  // The processor does not say which address was misaligned: it reports address 0.
  device.fail("fault", address == 0
                           ? "access to address 0, or misaligned access of 16 bytes or more"
                           : "access to unmapped address " + hexadecimal(address) + ", " +
                                 device.regions.describe(info->si_addr));
}

}  // namespace

FaultGuard::FaultGuard() {
  stack_t stack = {};
  stack.ss_sp = handler_stack.data();
  stack.ss_size = handler_stack.size();
  sigaltstack(&stack, &outer_stack_);
  struct sigaction action = {};
  action.sa_sigaction = handle;
  // The handler leaves by switching stacks, so the signal must not stay blocked.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &outer_actions[i]);
}

FaultGuard::~FaultGuard() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &outer_actions[i], nullptr);
  sigaltstack(&outer_stack_, nullptr);
}

}  // namespace deformops::simulation

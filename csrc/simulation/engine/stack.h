// Stacks for simulated threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deformops::simulation {

// One stack with a guard page below it: running over its end is a fault, not a silent overwrite.
class Stack {
 public:
  Stack();
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  char* low() const { return memory_ + kGuard; }
  char* high() const { return memory_ + kGuard + kBytes; }
  bool guard_holds(uintptr_t address) const {
    return address - reinterpret_cast<uintptr_t>(memory_) < kGuard;
  }

  static constexpr size_t kBytes = 256 << 10;

 private:
  static constexpr size_t kGuard = 64 << 10;  // a multiple of any page size

  char* memory_;
};

// Lends stacks, the one returned last first: threads that run to their end without waiting follow
// each other on the same, cache-warm stack.
class StackPool {
 public:
  ~StackPool();
  Stack* take();
  // The caller may still be standing on it: it is lent again only after the next call.
  void give_back(Stack* stack);

 private:
  std::vector<Stack*> free_;
  Stack* retiring_ = nullptr;
};

}  // namespace deformops::simulation

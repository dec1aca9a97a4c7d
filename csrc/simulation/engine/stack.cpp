#include "simulation/engine/stack.h"

#include <sys/mman.h>

#include <new>

namespace deformops::simulation {

Stack::Stack() {
  void* memory = mmap(nullptr, kGuard + kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<char*>(memory);
  if (mprotect(memory_, kGuard, PROT_NONE) != 0) throw std::bad_alloc();
}

Stack::~Stack() { munmap(memory_, kGuard + kBytes); }

StackPool::~StackPool() {
  for (Stack* stack : free_) delete stack;
  delete retiring_;
}

Stack* StackPool::take() {
  if (free_.empty()) return new Stack;
  Stack* stack = free_.back();
  free_.pop_back();
  return stack;
}

void StackPool::give_back(Stack* stack) {
  if (retiring_ != nullptr) free_.push_back(retiring_);
  retiring_ = stack;
}

}  // namespace deformops::simulation

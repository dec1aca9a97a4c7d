// What a kernel needs of the call it runs in, besides its tensors.
#pragma once

#include <cstddef>

namespace deformops {

// Memory from the framework's allocator on the device of the call. It lives until the op returns
// (on a GPU: until the stream has passed that point) and is aligned to 64 bytes.
class Scratch {
 public:
  virtual void* allocate(size_t bytes) = 0;

  template <class T>
  T* allocate_array(size_t count) {
    return static_cast<T*>(allocate(count * sizeof(T)));
  }

 protected:
  ~Scratch() = default;
};

struct Context {
  Scratch* scratch = nullptr;
  void* stream = nullptr;      // cudaStream_t; null on the CPU
  bool deterministic = false;  // torch.use_deterministic_algorithms; the CPU always is
  bool allow_tf32 = false;     // torch.backends.cuda.matmul.allow_tf32
};

}  // namespace deformops

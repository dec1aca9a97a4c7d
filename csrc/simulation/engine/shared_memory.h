// Shared memory of the block that is being executed.
//
// On a GPU neighbouring arrays touch each other and a block finds what the one before left behind;
// both hide mistakes. Here arrays are kept apart by red zones, are aligned as declared and no
// better, and every block starts with all of it filled with 0xFF bytes: NaN as a float, -1 as an
// integer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace deformops::simulation {

class SharedMemory {
 public:
  struct Array {
    const void* identity;
    std::string name;
    uintptr_t begin;
    uintptr_t end;
    size_t alignment;
  };

  static constexpr size_t kDefaultLimit = 48 << 10;  // more has to be asked leave for

  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // `limit`: what static and dynamic arrays together may take.
  void begin_launch(size_t dynamic_bytes, size_t limit);
  void begin_block();

  // Storage of a declaration, laid out when the first thread of the launch comes by.
  void* static_array(const void* identity, const char* name, size_t bytes, size_t alignment);
  void* dynamic_array(const char* name, size_t alignment);

  bool contains(const void* address) const {
    return reinterpret_cast<uintptr_t>(address) - arena_ < kArenaBytes;
  }
  // The array in which [address, address + bytes) lies, or null.
  const Array* find(const void* address, size_t bytes) const;
  // For an address in a red zone: which array is near, and how far ("12 bytes past the end of
  // `tile`").
  std::string describe(const void* address) const;
  // The array whose red zone was written to, or null.
  const Array* overrun() const;

  size_t static_bytes() const { return static_bytes_; }
  size_t dynamic_bytes() const { return dynamic_bytes_; }

 private:
  static constexpr size_t kArenaBytes = 512 << 10;
  static constexpr size_t kZone = 128;
  static constexpr const void* kDynamic = nullptr;  // its identity

  uintptr_t place(const void* identity, const char* name, size_t bytes, size_t alignment,
                  bool exactly);

  uintptr_t arena_ = 0;
  uintptr_t used_ = 0;  // end of the last array
  std::vector<Array> arrays_;
  size_t static_bytes_ = 0;
  size_t dynamic_bytes_ = 0;
  size_t limit_ = kDefaultLimit;
};

}  // namespace deformops::simulation

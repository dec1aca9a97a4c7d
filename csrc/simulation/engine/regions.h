// The global memory that kernels may touch: what ops have registered (../memory.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "simulation/memory.h"

namespace deformops::simulation {

class Regions {
 public:
  struct Region {
    uintptr_t begin;
    uintptr_t end;
    Memory memory;
    const char* name;
    uint64_t digest;  // of the contents, when they must not change
  };

  void add(const void* data, size_t bytes, Memory memory, const char* name);
  size_t count() const { return regions_.size(); }

  // Inside a scope everything that is not registered is forbidden.
  bool fenced() const { return scopes_ > 0; }
  void enter_scope() { ++scopes_; }
  // Forgets all but the oldest `count`.
  void leave_scope(size_t count) {
    regions_.erase(regions_.begin() + static_cast<std::ptrdiff_t>(count), regions_.end());
    --scopes_;
  }

  // The latest region in which [address, address + bytes) lies, or null.
  const Region* find(const void* address, size_t bytes) const;
  // For an address in none: "4 bytes past the end of `input` (read-only, 4096 bytes)".
  std::string describe(const void* address) const;
  // A read-only region whose contents have changed since it was registered, or null.
  const Region* changed() const;

 private:
  std::vector<Region> regions_;
  int scopes_ = 0;
};

std::string describe(const Regions::Region& region);  // "`input` (read-only, 4096 bytes)"

}  // namespace deformops::simulation

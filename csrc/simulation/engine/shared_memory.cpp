#include "simulation/engine/shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "simulation/engine/device.h"
#include "simulation/engine/sanitizer.h"

namespace deformops::simulation {
namespace {

constexpr int kPoison = 0xFF;

uintptr_t round_up(uintptr_t value, size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

SharedMemory::SharedMemory() {
  void* memory = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  arena_ = reinterpret_cast<uintptr_t>(memory);
  used_ = arena_;
}

SharedMemory::~SharedMemory() { munmap(reinterpret_cast<void*>(arena_), kArenaBytes); }

void SharedMemory::begin_launch(size_t dynamic_bytes, size_t limit) {
  sanitizer::unpoison(reinterpret_cast<void*>(arena_), used_ + kZone - arena_);
  arrays_.clear();
  used_ = arena_;
  static_bytes_ = 0;
  dynamic_bytes_ = dynamic_bytes;
  limit_ = limit;
}

void SharedMemory::begin_block() {
  for (const Array& array : arrays_) {
    std::memset(reinterpret_cast<void*>(array.begin), kPoison, array.end - array.begin);
  }
}

uintptr_t SharedMemory::place(const void* identity, const char* name, size_t bytes,
                              size_t alignment, bool exactly) {
  uintptr_t begin = round_up(used_ + kZone, alignment);
  // An array that happens to be aligned better than declared would let wider accesses pass.
  if (exactly && begin % (2 * alignment) == 0) begin += alignment;
  const uintptr_t end = begin + bytes;
  const uintptr_t next_zone_end = end + kZone;
  if (next_zone_end > arena_ + kArenaBytes) {
    Device::get().fail("launch", "too much shared memory");
  }
  sanitizer::unpoison(reinterpret_cast<void*>(used_), next_zone_end - used_);
  std::memset(reinterpret_cast<void*>(used_), kPoison, next_zone_end - used_);
  sanitizer::poison(reinterpret_cast<void*>(used_), next_zone_end - used_);
  sanitizer::unpoison(reinterpret_cast<void*>(begin), bytes);
  arrays_.push_back({identity, name, begin, end, alignment});
  used_ = end;
  return begin;
}

void* SharedMemory::static_array(const void* identity, const char* name, size_t bytes,
                                 size_t alignment) {
  for (const Array& array : arrays_) {
    if (array.identity == identity) return reinterpret_cast<void*>(array.begin);
  }
  static_bytes_ = round_up(static_bytes_, alignment) + bytes;
  if (static_bytes_ > kDefaultLimit) {
    Device::get().fail("launch", "more than 48 KiB of static shared memory");
  }
  if (static_bytes_ + dynamic_bytes_ > limit_) {
    Device::get().fail("launch", std::to_string(static_bytes_) + " bytes of static and " +
                                     std::to_string(dynamic_bytes_) +
                                     " of dynamic shared memory; the kernel is allowed " +
                                     std::to_string(limit_) + " in all");
  }
  // AddressSanitizer knows whole words of 8 bytes only.
  if (sanitizer::active()) alignment = std::max<size_t>(alignment, 8);
  return reinterpret_cast<void*>(place(identity, name, bytes, alignment, true));
}

void* SharedMemory::dynamic_array(const char* name, size_t alignment) {
  for (Array& array : arrays_) {
    if (array.identity != kDynamic) continue;
    if (alignment > array.alignment && array.begin % alignment != 0) {
      Device::get().fail("launch", "dynamic shared memory `" + std::string(name) +
                                       "` is declared " +
                                       "twice, the second time with a larger alignment");
    }
    return reinterpret_cast<void*>(array.begin);
  }
  alignment = std::max<size_t>(alignment, 16);
  return reinterpret_cast<void*>(place(kDynamic, name, dynamic_bytes_, alignment, true));
}

const SharedMemory::Array* SharedMemory::find(const void* address, size_t bytes) const {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  for (const Array& array : arrays_) {
    if (begin >= array.begin && begin + bytes <= array.end) return &array;
  }
  return nullptr;
}

std::string SharedMemory::describe(const void* address) const {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const Array* nearest = nullptr;
  uintptr_t distance = ~uintptr_t{0};
  for (const Array& array : arrays_) {
    const uintptr_t away = at < array.begin ? array.begin - at
                           : at < array.end ? 0
                                            : at - array.end;
    if (away < distance) nearest = &array, distance = away;
  }
  if (nearest == nullptr) return "no shared array has been declared";
  const std::string name = " of shared `" + nearest->name + "` (" +
                           std::to_string(nearest->end - nearest->begin) + " bytes)";
  if (at < nearest->begin) return std::to_string(distance) + " bytes before the beginning" + name;
  if (at >= nearest->end) return std::to_string(distance) + " bytes past the end" + name;
  return "at byte " + std::to_string(at - nearest->begin) + name;
}

const SharedMemory::Array* SharedMemory::overrun() const {
  if (sanitizer::active()) return nullptr;  // which keeps the zones itself
  static const auto untouched = [] {
    std::array<unsigned char, kZone> zone;
    zone.fill(kPoison);
    return zone;
  }();
  for (const Array& array : arrays_) {
    if (std::memcmp(reinterpret_cast<void*>(array.begin - kZone), untouched.data(), kZone) != 0 ||
        std::memcmp(reinterpret_cast<void*>(array.end), untouched.data(), kZone) != 0) {
      return &array;
    }
  }
  return nullptr;
}

}  // namespace deformops::simulation

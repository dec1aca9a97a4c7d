// Large pages for large workspaces: rows that are read here and there would need a page table
// entry each.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Asks for them, before the memory is touched, where it pays; what the system makes of it only
// shows in the time.
DEFORMOPS_INLINE void use_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t end =
      (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace deformops::cpu::DEFORMOPS_ISA

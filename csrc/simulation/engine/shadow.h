// What the race checker remembers of every place in memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace deformops::simulation {

// Who touched a place, when, and from which instruction.
struct Stamp {
  uint32_t block = 0;   // running number; 0: nobody
  uint32_t clock = 0;   // of the thread at that moment
  int32_t place = 0;    // program counter, relative to the kernels' library
  uint16_t thread = 0;  // number in the block
  bool atomic = false;
  bool in_flight = false;  // an asynchronous copy that may still land

  bool exists() const { return block != 0; }
  bool same_thread(const Stamp& other) const {
    return block == other.block && thread == other.thread;
  }
};

// Two of each kind: the latest, and one that another thread made in no order with it, from another
// warp or block if there is one. With more than two, whoever comes later and is not ordered with
// all of them is not ordered with one of these two either (a __syncwarp of part of a warp could
// contrive an exception).
struct Cell {
  Stamp write, other_write;  // only atomic writes can be two
  Stamp read, other_read;
};

// Cells for all memory that was touched, in pages. A cell stands for 4 bytes until somebody touches
// less; then its page is split, with nothing lost.
class Shadow {
 public:
  static constexpr size_t kPageBytes = 1024;

  // Calls visit(cell, address) for the cells of [address, address + bytes).
  template <class Visit>
  void visit(const void* address, size_t bytes, const Visit& visit);

  void forget(const void* data, size_t bytes);
  void forget_everything() {
    pages_.clear();
    cache_ = {};
  }

 private:
  struct Page {
    int shift = 2;  // log2 of the bytes of a cell
    std::vector<Cell> cells = std::vector<Cell>(kPageBytes >> 2);

    void split(int finer);
  };

  Page& page(uintptr_t number);

  struct CacheLine {
    uintptr_t number = ~uintptr_t{0};
    Page* page = nullptr;
  };

  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  std::array<CacheLine, 256> cache_ = {};  // of pages_, by the low bits of the number
};

template <class Visit>
void Shadow::visit(const void* address, size_t bytes, const Visit& visit) {
  auto at = reinterpret_cast<uintptr_t>(address);
  const uintptr_t end = at + bytes;
  while (at < end) {
    Page& here = page(at / kPageBytes);
    const uintptr_t page_end = (at / kPageBytes + 1) * kPageBytes;
    const uintptr_t stop = end < page_end ? end : page_end;
    const int fits = __builtin_ctzll(at | stop | 4);  // both borders lie on multiples of 1 << fits
    if (fits < here.shift) here.split(fits);
    Cell* cell = &here.cells[(at % kPageBytes) >> here.shift];
    for (; at < stop; at += uintptr_t{1} << here.shift, ++cell) {
      visit(*cell, reinterpret_cast<const void*>(at));
    }
  }
}

}  // namespace deformops::simulation

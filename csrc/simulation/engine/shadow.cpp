#include "simulation/engine/shadow.h"

namespace deformops::simulation {

void Shadow::Page::split(int finer) {
  std::vector<Cell> split;
  split.reserve(kPageBytes >> finer);
  for (const Cell& cell : cells) split.insert(split.end(), size_t{1} << (shift - finer), cell);
  cells = std::move(split);
  shift = finer;
}

Shadow::Page& Shadow::page(uintptr_t number) {
  CacheLine& line = cache_[number % cache_.size()];
  if (line.number != number) {
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) page = std::make_unique<Page>();
    line = {number, page.get()};
  }
  return *line.page;
}

void Shadow::forget(const void* data, size_t bytes) {
  auto at = reinterpret_cast<uintptr_t>(data);
  const uintptr_t end = at + bytes;
  while (at < end) {
    const uintptr_t number = at / kPageBytes;
    const uintptr_t page_end = (number + 1) * kPageBytes;
    const uintptr_t stop = end < page_end ? end : page_end;
    const auto page = pages_.find(number);
    if (page != pages_.end()) {
      if (stop - at == kPageBytes) {
        pages_.erase(page);
        cache_[number % cache_.size()] = {};
      } else {
        visit(reinterpret_cast<void*>(at), stop - at, [](Cell& cell, const void*) { cell = {}; });
      }
    }
    at = stop;
  }
}

}  // namespace deformops::simulation

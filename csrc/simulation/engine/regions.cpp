#include "simulation/engine/regions.h"

#include <cstring>

namespace deformops::simulation {
namespace {

// A multiplicative hash of four independent lanes: as fast as memory can be read.
uint64_t digest_of(uintptr_t begin, uintptr_t end) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15u;
  uint64_t lanes[4] = {1, 2, 3, 4};
  const char* at = reinterpret_cast<const char*>(begin);
  size_t left = end - begin;
  for (; left >= sizeof(lanes); left -= sizeof(lanes), at += sizeof(lanes)) {
    uint64_t words[4];
    std::memcpy(words, at, sizeof(words));
    for (int i = 0; i < 4; ++i) lanes[i] = (lanes[i] ^ words[i]) * kOdd;
  }
  uint64_t tail[4] = {};
  std::memcpy(tail, at, left);
  uint64_t digest = 0;
  for (int i = 0; i < 4; ++i) {
    lanes[i] = (lanes[i] ^ tail[i]) * kOdd;
    digest = (digest ^ (lanes[i] >> 29)) * kOdd + lanes[i];
  }
  return digest;
}

}  // namespace

void Regions::add(const void* data, size_t bytes, Memory memory, const char* name) {
  if (data == nullptr || bytes == 0) return;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  if (memory == Memory::kUninitialized) std::memset(const_cast<void*>(data), 0xFF, bytes);
  Region region = {begin, begin + bytes, memory, name, 0};
  if (memory == Memory::kReadOnly) region.digest = digest_of(region.begin, region.end);
  regions_.push_back(region);
}

const Regions::Region* Regions::find(const void* address, size_t bytes) const {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  for (auto region = regions_.rbegin(); region != regions_.rend(); ++region) {
    if (begin >= region->begin && begin + bytes <= region->end) return &*region;
  }
  return nullptr;
}

std::string Regions::describe(const void* address) const {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const Region* nearest = nullptr;
  uintptr_t distance = 1 << 20;  // farther away it says nothing
  for (const Region& region : regions_) {
    const uintptr_t away = at < region.begin ? region.begin - at
                           : at < region.end ? 0
                                             : at - region.end;
    if (away <= distance) nearest = &region, distance = away;
  }
  if (nearest == nullptr) return "far from every registered tensor";
  const std::string name = simulation::describe(*nearest);
  if (at < nearest->begin)
    return std::to_string(distance) + " bytes before the beginning of " + name;
  if (at >= nearest->end) return std::to_string(distance) + " bytes past the end of " + name;
  return std::to_string(nearest->end - at) + " bytes before the end of " + name;
}

const Regions::Region* Regions::changed() const {
  for (size_t i = 0; i < regions_.size(); ++i) {
    const Region& region = regions_[i];
    if (region.memory != Memory::kReadOnly) continue;
    bool overlaid = false;  // by something that may be written to
    for (size_t j = i + 1; j < regions_.size(); ++j) {
      overlaid |= regions_[j].memory != Memory::kReadOnly && regions_[j].begin < region.end &&
                  regions_[j].end > region.begin;
    }
    if (!overlaid && digest_of(region.begin, region.end) != region.digest) return &region;
  }
  return nullptr;
}

std::string describe(const Regions::Region& region) {
  static const char* const kinds[] = {"read-only", "writable", "uninitialized"};
  return "`" + std::string(region.name) + "` (" + kinds[static_cast<int>(region.memory)] + ", " +
         std::to_string(region.end - region.begin) + " bytes)";
}

}  // namespace deformops::simulation

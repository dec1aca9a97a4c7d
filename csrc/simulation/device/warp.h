// Where threads meet: barriers, fences, and what the lanes of a warp do together.
#pragma once

#include <cstring>
#include <type_traits>

#include "simulation/device/language.h"

DEFORMOPS_DEVICE_FUNCTION void __syncthreads(
    deformops::simulation::Site site = deformops::simulation::Site::here()) {
  deformops::simulation::block_barrier(deformops::simulation::BarrierResult::kNone, 0, site);
}
DEFORMOPS_DEVICE_FUNCTION int __syncthreads_count(
    int predicate, deformops::simulation::Site site = deformops::simulation::Site::here()) {
  return deformops::simulation::block_barrier(deformops::simulation::BarrierResult::kCount,
                                              predicate, site);
}
DEFORMOPS_DEVICE_FUNCTION int __syncthreads_and(
    int predicate, deformops::simulation::Site site = deformops::simulation::Site::here()) {
  return deformops::simulation::block_barrier(deformops::simulation::BarrierResult::kAnd, predicate,
                                              site);
}
DEFORMOPS_DEVICE_FUNCTION int __syncthreads_or(
    int predicate, deformops::simulation::Site site = deformops::simulation::Site::here()) {
  return deformops::simulation::block_barrier(deformops::simulation::BarrierResult::kOr, predicate,
                                              site);
}
DEFORMOPS_DEVICE_FUNCTION void __syncwarp(
    unsigned mask = ~0u, deformops::simulation::Site site = deformops::simulation::Site::here()) {
  deformops::simulation::warp_barrier(mask, site);
}

DEFORMOPS_DEVICE_FUNCTION void __threadfence() {
  deformops::simulation::memory_fence(deformops::simulation::Fence::kDevice);
}
DEFORMOPS_DEVICE_FUNCTION void __threadfence_block() {
  deformops::simulation::memory_fence(deformops::simulation::Fence::kBlock);
}

namespace deformops::simulation {

template <class T>
DEFORMOPS_DEVICE_FUNCTION T shuffled(Shuffle kind, unsigned mask, T value, int operand, int width,
                                     Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 16,
                "a shuffle moves up to 16 bytes of plain data");
  shuffle(kind, mask, &value, sizeof(T), operand, width, site);
  return value;
}

}  // namespace deformops::simulation

template <class T>
DEFORMOPS_DEVICE_FUNCTION T
__shfl_sync(unsigned mask, T value, int source, int width = warpSize,
            deformops::simulation::Site site = deformops::simulation::Site::here()) {
  using namespace deformops::simulation;
  return shuffled(Shuffle::kIndex, mask, value, source, width, site);
}
template <class T>
DEFORMOPS_DEVICE_FUNCTION T
__shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
               deformops::simulation::Site site = deformops::simulation::Site::here()) {
  using namespace deformops::simulation;
  return shuffled(Shuffle::kUp, mask, value, static_cast<int>(delta), width, site);
}
template <class T>
DEFORMOPS_DEVICE_FUNCTION T
__shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 deformops::simulation::Site site = deformops::simulation::Site::here()) {
  using namespace deformops::simulation;
  return shuffled(Shuffle::kDown, mask, value, static_cast<int>(delta), width, site);
}
template <class T>
DEFORMOPS_DEVICE_FUNCTION T
__shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                deformops::simulation::Site site = deformops::simulation::Site::here()) {
  using namespace deformops::simulation;
  return shuffled(Shuffle::kXor, mask, value, lane_mask, width, site);
}

DEFORMOPS_DEVICE_FUNCTION unsigned __ballot_sync(
    unsigned mask, int predicate,
    deformops::simulation::Site site = deformops::simulation::Site::here()) {
  return deformops::simulation::vote(deformops::simulation::Vote::kBallot, mask, predicate != 0,
                                     site);
}
DEFORMOPS_DEVICE_FUNCTION int __any_sync(
    unsigned mask, int predicate,
    deformops::simulation::Site site = deformops::simulation::Site::here()) {
  return static_cast<int>(
      deformops::simulation::vote(deformops::simulation::Vote::kAny, mask, predicate != 0, site));
}
DEFORMOPS_DEVICE_FUNCTION int __all_sync(
    unsigned mask, int predicate,
    deformops::simulation::Site site = deformops::simulation::Site::here()) {
  return static_cast<int>(
      deformops::simulation::vote(deformops::simulation::Vote::kAll, mask, predicate != 0, site));
}
template <class T>
DEFORMOPS_DEVICE_FUNCTION unsigned __match_any_sync(
    unsigned mask, T value,
    deformops::simulation::Site site = deformops::simulation::Site::here()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "values of 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return deformops::simulation::match_any(mask, bits, site);
}

#define DEFORMOPS_REDUCE(name, type, kind)                                                  \
  DEFORMOPS_DEVICE_FUNCTION type name(                                                      \
      unsigned mask, type value,                                                            \
      deformops::simulation::Site site = deformops::simulation::Site::here()) {             \
    return static_cast<type>(deformops::simulation::reduce(                                 \
        deformops::simulation::Reduction::kind, mask, static_cast<unsigned>(value), site)); \
  }
DEFORMOPS_REDUCE(__reduce_add_sync, unsigned, kAdd)
DEFORMOPS_REDUCE(__reduce_add_sync, int, kAdd)
DEFORMOPS_REDUCE(__reduce_min_sync, unsigned, kMin)
DEFORMOPS_REDUCE(__reduce_min_sync, int, kSignedMin)
DEFORMOPS_REDUCE(__reduce_max_sync, unsigned, kMax)
DEFORMOPS_REDUCE(__reduce_max_sync, int, kSignedMax)
DEFORMOPS_REDUCE(__reduce_and_sync, unsigned, kAnd)
DEFORMOPS_REDUCE(__reduce_or_sync, unsigned, kOr)
DEFORMOPS_REDUCE(__reduce_xor_sync, unsigned, kXor)
#undef DEFORMOPS_REDUCE

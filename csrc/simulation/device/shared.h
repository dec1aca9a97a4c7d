// What __shared__ declarations become.
#pragma once

#include "simulation/device/language.h"

namespace deformops::simulation {

// Storage of one declaration in the running block. `identity` is the address of a static variable
// beside the declaration: of each instance of a function template there is one.
template <class T>
DEFORMOPS_DEVICE_FUNCTION T& shared_variable(const char& identity, const char* name,
                                             size_t alignment) {
  const size_t natural = alignof(T);
  return *static_cast<T*>(
      static_shared(&identity, name, sizeof(T), alignment > natural ? alignment : natural));
}

template <class T>
DEFORMOPS_DEVICE_FUNCTION T* dynamic_shared_array(const char* name, size_t alignment) {
  const size_t natural = alignof(T);
  return static_cast<T*>(dynamic_shared(name, alignment > natural ? alignment : natural));
}

}  // namespace deformops::simulation

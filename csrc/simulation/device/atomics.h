// Atomic operations. Threads take turns here, so a plain read-modify-write is atomic; the engine is
// told first, which may let others run and checks the address.
#pragma once

#include "simulation/device/language.h"

namespace deformops::simulation {

// Already checked, hence without the race checker's hooks. AddressSanitizer checks it here.
template <class T, class Change>
__attribute__((noinline, no_sanitize("thread"))) T change(T* address, Change changed) {
  const T old = *address;
  *address = changed(old);
  return old;
}

}  // namespace deformops::simulation

// One overload for each type, as in CUDA, so that arguments convert as they do there.
#define DEFORMOPS_ATOMIC(name, type, new_value)                                                  \
  DEFORMOPS_DEVICE_FUNCTION type name(type* address, type value) {                               \
    deformops::simulation::announce_atomic(address, sizeof(type));                               \
    return deformops::simulation::change(                                                        \
        address,                                                                                 \
        [value](type old) __attribute__((no_sanitize("thread"))) -> type { return new_value; }); \
  }

#define DEFORMOPS_ATOMIC_INTEGERS(name, new_value) \
  DEFORMOPS_ATOMIC(name, int, new_value)           \
  DEFORMOPS_ATOMIC(name, unsigned, new_value)      \
  DEFORMOPS_ATOMIC(name, unsigned long long, new_value)

// Signed addition wraps round on a GPU.
DEFORMOPS_ATOMIC(atomicAdd, int,
                 static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
DEFORMOPS_ATOMIC(atomicAdd, unsigned, old + value)
DEFORMOPS_ATOMIC(atomicAdd, unsigned long long, old + value)
DEFORMOPS_ATOMIC(atomicAdd, float, old + value)
DEFORMOPS_ATOMIC(atomicAdd, double, old + value)
DEFORMOPS_ATOMIC(atomicSub, int,
                 static_cast<int>(static_cast<unsigned>(old) - static_cast<unsigned>(value)))
DEFORMOPS_ATOMIC(atomicSub, unsigned, old - value)
DEFORMOPS_ATOMIC_INTEGERS(atomicMin, old < value ? old : value)
DEFORMOPS_ATOMIC(atomicMin, long long, old < value ? old : value)
DEFORMOPS_ATOMIC_INTEGERS(atomicMax, old > value ? old : value)
DEFORMOPS_ATOMIC(atomicMax, long long, old > value ? old : value)
DEFORMOPS_ATOMIC_INTEGERS(atomicAnd, old& value)
DEFORMOPS_ATOMIC_INTEGERS(atomicOr, old | value)
DEFORMOPS_ATOMIC_INTEGERS(atomicXor, old ^ value)
DEFORMOPS_ATOMIC_INTEGERS(atomicExch, (static_cast<void>(old), value))
DEFORMOPS_ATOMIC(atomicExch, float, (static_cast<void>(old), value))
DEFORMOPS_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
DEFORMOPS_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)

#define DEFORMOPS_ATOMIC_CAS(type)                                                           \
  DEFORMOPS_DEVICE_FUNCTION type atomicCAS(type* address, type compare, type value) {        \
    deformops::simulation::announce_atomic(address, sizeof(type));                           \
    return deformops::simulation::change(                                                    \
        address, [compare, value](type old) __attribute__((no_sanitize("thread"))) -> type { \
          return old == compare ? value : old;                                               \
        });                                                                                  \
  }
DEFORMOPS_ATOMIC_CAS(int)
DEFORMOPS_ATOMIC_CAS(unsigned)
DEFORMOPS_ATOMIC_CAS(unsigned long long)
DEFORMOPS_ATOMIC_CAS(unsigned short)
#undef DEFORMOPS_ATOMIC_CAS
#undef DEFORMOPS_ATOMIC_INTEGERS

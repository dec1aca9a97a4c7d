// The shapes of what a block works on, and the arithmetic it uses.
//
// A block of 128 threads multiplies an M x K by a K x N tile in shared memory, step by step along
// K, into M x N sums in registers. For every step it loads (M + N) K numbers and does 2 M N K
// flops; at 128 x 64 that is 43 flops a number, enough for the caches to keep up. The sums are 64
// registers of each thread, which leaves room for three blocks on a multiprocessor.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/scalars.h"
#include "kernels/cuda/ptx.cuh"

namespace deformops::cuda {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

// What neighbouring threads take when they read or write a map: neighbouring pixels, or the
// channels of one pixel. The former suits the layout [N, C, H, W], the latter channels_last; both
// are right for any strides, but kChannels reads `input` only if its channels lie side by side.
enum class Lanes { kPixels, kChannels };

// float without tensor cores is exact to float's rounding; with them its factors are rounded to
// tf32. Architectures without the tensor cores that were asked for multiply exactly.
template <class T_, bool kTensorCores_>
struct Math {
  using T = T_;
  using C = compute_t<T>;
  static constexpr bool kTensorCores = kTensorCores_ && kHasTensorCores<T>;

  // As a factor in shared memory.
  static __device__ __forceinline__ T factor(C value) {
    if constexpr (kTensorCores && std::is_same_v<T, float>) {
      return round_to_tf32(value);
    } else {
      return round_to<T>(value);
    }
  }
};

template <class T>
struct Tile {
  using C = compute_t<T>;

  static constexpr int kM = sizeof(T) == 8 ? 64 : 128;
  static constexpr int kN = sizeof(T) == 8 ? 32 : 64;
  static constexpr int kK = sizeof(T) == 2 ? 32 : 16;
  static constexpr int kVector = 16 / sizeof(T);  // elements of the widest load

  // Rows are padded so that the 16 bytes that 8 lanes read from 8 rows lie in different banks.
  static constexpr int kPitchK = kK + kVector;  // of rows along K
  static constexpr int kPitchN = kN + 8;        // of rows along N
  static constexpr int kElementsA = kM * kPitchK;
  static constexpr int kElementsB = kN * kPitchK > kK* kPitchN ? kN * kPitchK : kK * kPitchN;

  // The sums leave the registers through shared memory, half of the rows at a time. One column of
  // padding lets neighbouring lanes walk along rows as well as along columns.
  static constexpr int kStageRows = kM / 2;
  static constexpr int kStagePitch = kN + 1;

  // Neighbouring rows of the stage that one thread works on.
  static constexpr int kRun = kStageRows * kN / kThreads;
  static constexpr int kRuns = kM / kRun;
};

// Both operands twice, so that the next step is loaded while this one is multiplied.
template <class T>
struct Operands {
  alignas(16) T a[2][Tile<T>::kElementsA];
  alignas(16) T b[2][Tile<T>::kElementsB];
};

template <class T>
struct TileMemory {
  union {
    Operands<T> operands;
    compute_t<T> stage[Tile<T>::kStageRows * Tile<T>::kStagePitch];
  };
};

// 16 bytes, as one load.
template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(T);
  T values[kSize];
};

}  // namespace deformops::cuda

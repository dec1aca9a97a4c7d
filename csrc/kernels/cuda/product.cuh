// Reduce: the product of two tiles in shared memory, summed in the registers of a block.
//
//     sum[m, n] += sum over k of a[m, k] * b[k, n],     a[m * kPitchK + k],
//     b[k * kPitchN + n], or b[n * kPitchK + k] if kDepthOfB (whichever way the tile was written).
//
// Sums are formed in the order of k: the same bits every time.
#pragma once

#include <cstdint>

#include "kernels/cuda/tile.cuh"

namespace deformops::cuda {

template <class M, bool kDepthOfB, bool kTensorCores = M::kTensorCores>
class Product;

// With multiply-adds. Threads stand 16 x 8; each has rows y, y + 16, ... and a comb of columns.
// Both factors are read in 16 bytes (half types, here only on machines without the tensor cores for
// them: 8), so that the loads of 2 (kRows + kColumns) vectors feed kRows * kColumns * kDepth
// multiply-adds.
template <class M, bool kDepthOfB>
class Product<M, kDepthOfB, false> {
  using T = typename M::T;
  using C = typename M::C;
  using Shape = Tile<T>;
  static constexpr int kRows = Shape::kM / 16;
  static constexpr int kColumns = Shape::kN / 8;
  static constexpr int kDepth = sizeof(T) == 8 ? 2 : 4;

  struct alignas(kDepth * sizeof(T)) Piece {
    T values[kDepth];
  };

 public:
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) sum_[i][j] = C(0);
    }
  }

  __device__ __forceinline__ void multiply(const T* a, const T* b) {
#pragma unroll 1
    for (int k = 0; k < Shape::kK; k += kDepth) {
      Piece rows[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        rows[i] = *reinterpret_cast<const Piece*>(a + (y() + 16 * i) * Shape::kPitchK + k);
      }
      if constexpr (kDepthOfB) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          const Piece column =
              *reinterpret_cast<const Piece*>(b + column_of(j) * Shape::kPitchK + k);
#pragma unroll
          for (int d = 0; d < kDepth; ++d) {
#pragma unroll
            for (int i = 0; i < kRows; ++i) add(i, j, rows[i].values[d], column.values[d]);
          }
        }
      } else {
#pragma unroll
        for (int d = 0; d < kDepth; ++d) {
#pragma unroll
          for (int j = 0; j < kColumns; j += kDepth) {
            const Piece columns =
                *reinterpret_cast<const Piece*>(b + (k + d) * Shape::kPitchN + column_of(j));
#pragma unroll
            for (int l = 0; l < kDepth; ++l) {
#pragma unroll
              for (int i = 0; i < kRows; ++i) add(i, j + l, rows[i].values[d], columns.values[l]);
            }
          }
        }
      }
    }
  }

  // Rows [half * kStageRows, (half + 1) * kStageRows) of the sums to stage[row * kStagePitch + n].
  __device__ __forceinline__ void store(C* stage, int half) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (i / (kRows / 2) != half) continue;
      const int row = y() + 16 * (i % (kRows / 2));
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        stage[row * Shape::kStagePitch + column_of(j)] = sum_[i][j];
      }
    }
  }

 private:
  static __device__ __forceinline__ int y() { return threadIdx.x / 8; }

  // Neighbouring threads read neighbouring rows of b, or neighbouring pieces of one row.
  static __device__ __forceinline__ int column_of(int j) {
    const int x = threadIdx.x % 8;
    return kDepthOfB ? x + 8 * j : x * kDepth + j / kDepth * 8 * kDepth + j % kDepth;
  }

  __device__ __forceinline__ void add(int i, int j, T a, T b) {
    sum_[i][j] += static_cast<C>(a) * static_cast<C>(b);
  }

  C sum_[kRows][kColumns];
};

// With tensor cores. Warps stand 2 x 2, each with 64 x 32 sums in 4 x 4 fragments of 16 x 8. A
// fragment is 32 bytes deep (16 halves, 8 floats): its words lie alike for all types, and ldmatrix,
// which only moves words, loads floats as well as halves. Transposing is another matter.
template <class M, bool kDepthOfB>
class Product<M, kDepthOfB, true> {
  using T = typename M::T;
  using Shape = Tile<T>;
  static constexpr int kFragments = 4;
  static constexpr int kWord = 4 / sizeof(T);  // elements
  static constexpr int kDepth = 8 * kWord;
  static_assert(Shape::kM == 128 && Shape::kN == 64, "2 x 2 warps of 64 x 32");

 public:
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kFragments; ++i) {
#pragma unroll
      for (int j = 0; j < kFragments; ++j) {
#pragma unroll
        for (int l = 0; l < 4; ++l) sum_[i][j][l] = 0.0f;
      }
    }
  }

  __device__ __forceinline__ void multiply(const T* a, const T* b) {
    const int lane = threadIdx.x % 32;
    const T* rows = a + (first_row() + lane % 16) * Shape::kPitchK + lane / 16 * 4 * kWord;
#pragma unroll
    for (int k = 0; k < Shape::kK; k += kDepth) {
      uint32_t columns[kFragments][2];
#pragma unroll
      for (int j = 0; j < kFragments; j += 2) load_columns(columns[j], columns[j + 1], b, k, 8 * j);
#pragma unroll
      for (int i = 0; i < kFragments; ++i) {
        uint32_t fragment[4];
        load_matrices(fragment, rows + 16 * i * Shape::kPitchK + k);
#pragma unroll
        for (int j = 0; j < kFragments; ++j) {
          multiply_add(sum_[i][j], fragment, columns[j], T());
        }
      }
    }
  }

  __device__ __forceinline__ void store(float* stage, int half) const {
    if (first_row() / Shape::kStageRows != half) return;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kFragments; ++i) {
#pragma unroll
      for (int j = 0; j < kFragments; ++j) {
#pragma unroll
        for (int l = 0; l < 4; ++l) {
          const int row = 16 * i + lane / 4 + l / 2 * 8;
          const int column = first_column() + 8 * j + lane % 4 * 2 + l % 2;
          stage[row * Shape::kStagePitch + column] = sum_[i][j][l];
        }
      }
    }
  }

 private:
  static __device__ __forceinline__ int first_row() { return threadIdx.x / 64 * 64; }
  static __device__ __forceinline__ int first_column() { return threadIdx.x / 32 % 2 * 32; }

  // Two fragments of b, side by side: columns n to n + 7 and n + 8 to n + 15 of this warp.
  static __device__ __forceinline__ void load_columns(uint32_t (&left)[2], uint32_t (&right)[2],
                                                      const T* b, int k, int n) {
    const int lane = threadIdx.x % 32;
    const int first = first_column() + n;
    uint32_t words[4];
    if constexpr (kDepthOfB) {
      const int column = first + lane / 16 * 8 + lane % 8;
      load_matrices(words, b + column * Shape::kPitchK + k + lane / 8 % 2 * 4 * kWord);
    } else if constexpr (sizeof(T) == 2) {
      load_matrices_transposed(words, b + (k + lane % 16) * Shape::kPitchN + first + lane / 16 * 8);
    } else {
#pragma unroll
      for (int l = 0; l < 4; ++l) {
        const int depth = k + lane % 4 + l % 2 * 4;
        words[l] = bit_cast<uint32_t>(b[depth * Shape::kPitchN + first + lane / 4 + l / 2 * 8]);
      }
    }
    left[0] = words[0];
    left[1] = words[1];
    right[0] = words[2];
    right[1] = words[3];
  }

  float sum_[kFragments][kFragments][4];
};

}  // namespace deformops::cuda

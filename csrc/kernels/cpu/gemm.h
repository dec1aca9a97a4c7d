// Multiplying a tile that has just been made and is still in the cache.
//
// torch's matrix product sees a finished matrix; here the left factor is a tile of columns or of
// gradients, the right one a panel of kBlock packed columns, and the result a tile that is used at
// once. The micro-kernel keeps kTileRows x kBlock sums in registers: each step of the depth loads
// one row of the panel, broadcasts one number for every row of the tile, and the adders never wait.
#pragma once

#include <cstdint>

#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Products that are summed in registers. A panel of this depth comes from the second-level cache
// for each kTileRows rows of the tile: two lines while 2 * kTileRows vectors are multiplied, which
// costs less than to load and store the sums twice.
constexpr int64_t kDepth = 512;

// How the left factor lies in memory: element (row, step) is at row * stride + step for kRows and
// at row + step * stride for kColumns.
enum class Lies { kRows, kColumns };

// result[rows x kBlock] (+)= left[rows x depth] * panel[depth x kBlock], for any number of rows. A
// sum over more than kDepth steps is a sum of partial sums. C is float or double.
//
// Weights and sums of weights are long arrays that callers walk through from front to back, so what
// will be wanted next lies right behind and is brought into the second-level cache: the next panel
// (kRows), or the next result (kColumns).
template <class C, Lies kLies>
void multiply_panel(const C* left, int64_t stride, int64_t rows, int64_t depth, const C* panel,
                    C* result, bool accumulate);

}  // namespace deformops::cpu::DEFORMOPS_ISA

// Kernels that are right, and the same kernels with a mistake planted in them: the device has to
// tell them apart. Each file of this folder holds one group; the functions here launch them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deformops::simulation::selftest {

enum class Mistake : int {
  kNone,
  kMissingBarrier,         // shared memory is read before it is complete
  kSharedOverrun,          // one element past the end of a shared array
  kDivergentBarrier,       // only a part of the block comes to a barrier
  kTwoBarriers,            // the block splits up between two barriers
  kEarlyExit,              // a thread exits before the others' barrier
  kMissingLane,            // a lane of a shuffle's mask has exited
  kWrongMask,              // a lane names itself out of the mask
  kMismatchedCollective,   // lanes of one mask call different collectives
  kMissingWarpBarrier,     // lanes of a warp rely on running in step
  kMissingWait,            // cp.async is not waited for
  kNoBarrierAfterWait,     // other threads' copies are not waited for
  kNoBarrierBeforeRefill,  // a buffer is filled again while others still read it
  kWrongFragment,          // ldmatrix looks at the wrong rows
  kUnfinishedCopy,         // a thread exits with copies in flight
  kNotAtomic,              // += on memory that other threads add to
  kPastTheEnd,             // a read one element past the end of a tensor
  kWriteToInput,           // a write to a read-only tensor
  kUnwrittenGlobal,        // scratch memory is read before anybody wrote it
  kMisaligned,             // a vector access to an address that is not aligned to it
  kMissingFence,           // the last block reads what others wrote without a fence
  kEndlessRecursion,
  kDivisionByZero,
  kTooMuchShared,  // more dynamic shared memory than the kernel has asked leave for
};

// out[0] += sum of in[0, n): shuffles in a warp, shared memory between warps, an atomic at the end.
void block_sum(Mistake mistake, const float* in, int n, float* out);
// out[0] += sum of in[0, 256): a tree in shared memory whose lower levels stay within a warp.
void warp_tree(Mistake mistake, const float* in, float* out);
// out[i] = i-th of four collectives' results in each lane of 64 threads; out is [64, 12].
void collectives(int* out);
void groups_of_eight(Mistake mistake, const float* in, float* out);  // sums of 8 neighbours, [64]

// c = a b; a is [m, k], b [k, n], both binary16 as bits; m % 64 == n % 32 == k % 32 == 0.
void gemm(Mistake mistake, const uint16_t* a, const uint16_t* b, float* c, int m, int n, int k);
// One warp and one instruction; fragments as they lie in registers: a [32, words of a] and so on.
void multiply(int shape, const uint32_t* a, const uint32_t* b, const float* c, float* d);
void multiply_f64(const double* a, const double* b, const double* c, double* d);
// matrices [8 * count, 8] of 16 bits in shared memory -> words [32, count].
void load_matrices(int count, bool transposed, const uint16_t* matrices, uint32_t* words);

// out[index[i]] += 1 for 128 indices.
void scatter(Mistake mistake, const int* index, float* out);
// out[i] = in[i] for i < n, four at a time where possible.
void copy(Mistake mistake, const float* in, float* out, int n);
// out[i] = 2 in[i] by way of scratch[n] in global memory, in two kernels.
void through_scratch(Mistake mistake, const float* in, float* scratch, float* out, int n);
// out[0] = sum of in[0, n): partial sums, added up by the block that comes last.
void last_block_sum(Mistake mistake, const float* in, int n, float* partial, unsigned* arrived,
                    float* out);
// out[t] = 100 / in[t] by way of a recursion as deep as depth.
void divide(Mistake mistake, const int* in, int* out);

// [32, 32] floats from in to out, transposed through shared memory of `pitch` floats a row.
void transpose(const float* in, float* out, int pitch);
// out[t] = in[stride * t], for one warp.
void strided(const float* in, float* out, int stride);
// out[i] = sum of in's neighbours within `radius`: a kernel to measure speed by.
void window_sum(const float* in, float* out, int n, int radius);

}  // namespace deformops::simulation::selftest

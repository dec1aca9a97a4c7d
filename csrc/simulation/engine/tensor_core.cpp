// ldmatrix and mma.sync: what a warp's registers hold between them.
//
// A tensor core multiplies small matrices that no thread has whole: each of the 32 lanes keeps a
// few elements of A, B, C and D in its registers, its fragments. Which ones is fixed by the
// instruction. Most layouts follow one rule. With group = lane / 4 and member = lane % 4, a lane
// keeps pairs of neighbours in the direction of k (of n for C and D):
//
//     A[m][k]: rows group and group + 8,           k = 2 * member, + 1, then + 8
//     B[k][n]: column group,                       k = 2 * member, + 1, then + 8
//     C[m][n]: rows group and group + 8,           n = 2 * member, + 1
//
// and where elements are 32 bits wide k advances singly: k = member, then + 4. Registers run over
// rows first, then over k. (PTX manual, "Matrix fragments for mma.m16n8k8", "... .m16n8k16", "...
// .m8n8k4".)
#include <algorithm>
#include <cstring>

#include "core/scalars.h"
#include "simulation/engine/device.h"

namespace deformops::simulation {
namespace {

// --- ldmatrix ------------------------------------------------------------------------------------
// Lane 8 * m + r brings the address of row r (8 elements of 16 bits) of matrix m; afterwards
// register m of each lane holds the pair of matrix m that is the lane's share of an A or B
// fragment.

struct LoadArgument {
  const void* row;
  uint32_t* registers;
  int count;
  bool transposed;
};

void complete_load(unsigned, void* const* arguments) {
  const auto argument = [&](int lane) -> const LoadArgument& {
    return *static_cast<const LoadArgument*>(arguments[lane]);
  };
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const LoadArgument& mine = argument(lane);
    for (int matrix = 0; matrix < mine.count; ++matrix) {
      uint16_t pair[2];
      for (int half = 0; half < 2; ++half) {
        const int major = lane / 4, minor = lane % 4 * 2 + half;
        const int row = mine.transposed ? minor : major;
        const int column = mine.transposed ? major : minor;
        const char* source = static_cast<const char*>(argument(matrix * 8 + row).row);
        std::memcpy(&pair[half], source + 2 * column, 2);
      }
      mine.registers[matrix] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
  }
}

constexpr Meeting kLoads[] = {
    {"ldmatrix.x1", true, complete_load},       {"ldmatrix.x2", true, complete_load},
    {"ldmatrix.x4", true, complete_load},       {"ldmatrix.x1.trans", true, complete_load},
    {"ldmatrix.x2.trans", true, complete_load}, {"ldmatrix.x4.trans", true, complete_load}};

// --- mma -----------------------------------------------------------------------------------------

struct MultiplyArgument {
  const void* a;
  const void* b;
  const void* c;
  void* d;
};

float to_float(uint32_t word, int half, deformops::half) {
  deformops::half value;
  value.bits = static_cast<uint16_t>(word >> (16 * half));
  return static_cast<float>(value);
}

float to_float(uint32_t word, int half, bfloat16) {
  bfloat16 value;
  value.bits = static_cast<uint16_t>(word >> (16 * half));
  return static_cast<float>(value);
}

// The 10 bits of mantissa that the tensor core looks at.
float tf32_to_float(uint32_t word) { return bit_cast<float>(word & 0xffffe000u); }

// Collects fragments into matrices; each element carries its row and column.
struct HalfLayout {  // 16-bit elements, two to a register
  template <class T, int K, class Put>
  static void a(const uint32_t* registers, int lane, const Put& put) {
    for (int i = 0; i < K / 4; ++i) {  // registers: rows, then k by 8
      for (int half = 0; half < 2; ++half) {
        put(lane / 4 + i % 2 * 8, lane % 4 * 2 + half + i / 2 * 8,
            to_float(registers[i], half, T{}));
      }
    }
  }
  template <class T, int K, class Put>
  static void b(const uint32_t* registers, int lane, const Put& put) {
    for (int i = 0; i < K / 8; ++i) {
      for (int half = 0; half < 2; ++half) {
        put(lane % 4 * 2 + half + i * 8, lane / 4, to_float(registers[i], half, T{}));
      }
    }
  }
};

struct Tf32 {};

struct WordLayout {  // 32-bit elements
  template <class T, int K, class Put>
  static void a(const uint32_t* registers, int lane, const Put& put) {
    for (int i = 0; i < K / 2; ++i) {
      put(lane / 4 + i % 2 * 8, lane % 4 + i / 2 * 4, tf32_to_float(registers[i]));
    }
  }
  template <class T, int K, class Put>
  static void b(const uint32_t* registers, int lane, const Put& put) {
    for (int i = 0; i < K / 4; ++i) {
      put(lane % 4 + i * 4, lane / 4, tf32_to_float(registers[i]));
    }
  }
};

// D[16][8] = A[16][K] B[K][8] + C. Products of such short mantissas are exact in float; hardware
// adds them in an order and with a rounding of its own, here they are added one after the other.
template <class Layout, class T, int K>
void complete_multiply(unsigned, void* const* arguments) {
  float a[16][K], b[K][8], d[kWarpSize][4];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& mine = *static_cast<const MultiplyArgument*>(arguments[lane]);
    Layout::template a<T, K>(static_cast<const uint32_t*>(mine.a), lane,
                             [&](int row, int column, float value) { a[row][column] = value; });
    Layout::template b<T, K>(static_cast<const uint32_t*>(mine.b), lane,
                             [&](int row, int column, float value) { b[row][column] = value; });
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& mine = *static_cast<const MultiplyArgument*>(arguments[lane]);
    std::memcpy(d[lane], mine.c, sizeof(d[lane]));
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < K; ++k) d[lane][i] += a[row][k] * b[k][column];
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {  // after all reading: d may be c
    std::memcpy(static_cast<MultiplyArgument*>(arguments[lane])->d, d[lane], sizeof(d[lane]));
  }
}

// D[8][8] = A[8][4] B[4][8] + C in double: one element of A and of B a lane, two of C.
void complete_multiply_f64(unsigned, void* const* arguments) {
  double a[8][4], b[4][8], d[kWarpSize][2];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& mine = *static_cast<const MultiplyArgument*>(arguments[lane]);
    std::memcpy(&a[lane / 4][lane % 4], mine.a, sizeof(double));
    std::memcpy(&b[lane % 4][lane / 4], mine.b, sizeof(double));
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    std::memcpy(d[lane], static_cast<const MultiplyArgument*>(arguments[lane])->c, sizeof(d[lane]));
    for (int i = 0; i < 2; ++i) {
      for (int k = 0; k < 4; ++k) d[lane][i] += a[lane / 4][k] * b[k][lane % 4 * 2 + i];
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    std::memcpy(static_cast<MultiplyArgument*>(arguments[lane])->d, d[lane], sizeof(d[lane]));
  }
}

// In the order of `Multiply`.
constexpr Meeting kMultiplies[] = {
    {"mma.m16n8k16.f16", true, complete_multiply<HalfLayout, deformops::half, 16>},
    {"mma.m16n8k16.bf16", true, complete_multiply<HalfLayout, bfloat16, 16>},
    {"mma.m16n8k8.f16", true, complete_multiply<HalfLayout, deformops::half, 8>},
    {"mma.m16n8k8.bf16", true, complete_multiply<HalfLayout, bfloat16, 8>},
    {"mma.m16n8k8.tf32", true, complete_multiply<WordLayout, Tf32, 8>},
    {"mma.m16n8k4.tf32", true, complete_multiply<WordLayout, Tf32, 4>},
    {"mma.m8n8k4.f64", true, complete_multiply_f64}};

}  // namespace

void load_matrices(uint32_t* registers, int count, bool transposed, const void* row, Site site) {
  constexpr size_t kRowBytes = 16;
  Device& device = Device::get();
  device.stop_if_failed();
  const Meeting& meeting = kLoads[(count == 1 ? 0 : count == 2 ? 1 : 2) + (transposed ? 3 : 0)];
  Thread& thread = device.block.running_thread();
  if (static_cast<int>(thread.lane()) < 8 * count) {  // the other lanes' addresses are ignored
    if (reinterpret_cast<uintptr_t>(row) % kRowBytes != 0) {
      device.fail("misaligned", std::string(meeting.name) + " needs rows aligned to 16 bytes",
                  site);
    }
    if (device.shared.find(row, kRowBytes) == nullptr) {
      device.fail("out of bounds",
                  std::string(meeting.name) + " of a row " + device.shared.describe(row), site);
    }
    const void* pc = static_cast<const char*>(__builtin_return_address(0)) - 1;
    if (device.race.enabled()) {
      device.race.read(thread, row, kRowBytes, RaceChecker::Kind::kPlain, pc);
    }
    if (device.profiler.enabled()) {
      const uint32_t lanes = count == 4 ? ~0u : (1u << (8 * count)) - 1;
      device.profiler.access(thread, lanes, Space::kShared, Motion::kLoad, row, kRowBytes, pc);
    }
  }
  LoadArgument argument = {row, registers, count, transposed};
  device.block.wait_at_meeting(meeting, ~0u, &argument, site);
}

void multiply(Multiply shape, void* d, const void* a, const void* b, const void* c, Site site) {
  Device& device = Device::get();
  MultiplyArgument argument = {a, b, c, d};
  if (device.block.running_thread().lane() == 0) ++device.record.multiplications;
  device.block.wait_at_meeting(kMultiplies[static_cast<int>(shape)], ~0u, &argument, site);
}

}  // namespace deformops::simulation

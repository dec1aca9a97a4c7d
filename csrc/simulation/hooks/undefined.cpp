// The compiler's -fsanitize=undefined puts calls where a program is about to do what C++ leaves
// undefined. The sanitizer's own library prints, once for each place, and goes on; linked without
// it, the calls come here and end the launch. AddressSanitizer does keep its library; the engine
// listens to its reports.
#include <cstdint>
#include <string>

#include "simulation/device/engine.h"

namespace deformops::simulation {
namespace {

// What the compiler lays down beside each check; these are part of its ABI.
struct Location {
  const char* file;
  uint32_t line;
  uint32_t column;
};

struct Type {
  uint16_t kind;         // 0: integer
  uint16_t information;  // of an integer: bit 0 signed, the others log2 of its bits
  char name[1];          // quoted
};

struct Check {
  Location location;
  const Type* type;
};

struct ShiftCheck {
  Location location;
  const Type* value;
  const Type* distance;
};

struct IndexCheck {
  Location location;
  const Type* array;
  const Type* index;
};

struct PointerCheck {
  Location location;
  const Type* type;
  unsigned char log2_alignment;
  unsigned char purpose;
};

std::string integer(const Type& type, uintptr_t bits) {
  const unsigned width = 1u << (type.information >> 1);
  if ((type.information & 1) == 0) return std::to_string(bits);
  if (width > 64) return "a value";
  const unsigned unused = 64 - width;
  return std::to_string(static_cast<int64_t>(static_cast<uint64_t>(bits) << unused) >> unused);
}

[[noreturn]] void refuse(const Location& location, const std::string& message) {
  refuse_undefined_behaviour(message.c_str(), {location.file, static_cast<int>(location.line)});
}

[[noreturn]] void refuse_overflow(const Check& check, const char* operation, uintptr_t left,
                                  uintptr_t right) {
  refuse(check.location, integer(*check.type, left) + operation + integer(*check.type, right) +
                             " does not fit into " + check.type->name);
}

}  // namespace
}  // namespace deformops::simulation

using namespace deformops::simulation;

#define DEFORMOPS_HOOK extern "C" __attribute__((visibility("hidden"))) void

DEFORMOPS_HOOK __ubsan_handle_out_of_bounds(IndexCheck* check, uintptr_t index) {
  refuse(check->location,
         "index " + integer(*check->index, index) + " is outside of " + check->array->name);
}
DEFORMOPS_HOOK __ubsan_handle_type_mismatch_v1(PointerCheck* check, uintptr_t address) {
  const uintptr_t alignment = uintptr_t{1} << check->log2_alignment;
  const std::string type = check->type->name;
  if (address == 0) refuse(check->location, "null pointer to " + type);
  if (address % alignment != 0) {
    refuse(check->location, "pointer to " + type + " that is not aligned to its " +
                                std::to_string(alignment) + " bytes");
  }
  refuse(check->location, "pointer to " + type + " where there is not enough room for one");
}
DEFORMOPS_HOOK __ubsan_handle_divrem_overflow(Check* check, uintptr_t left, uintptr_t right) {
  if (right == 0) refuse(check->location, "integer division by zero");
  refuse_overflow(*check, " / ", left, right);
}
DEFORMOPS_HOOK __ubsan_handle_add_overflow(Check* check, uintptr_t left, uintptr_t right) {
  refuse_overflow(*check, " + ", left, right);
}
DEFORMOPS_HOOK __ubsan_handle_sub_overflow(Check* check, uintptr_t left, uintptr_t right) {
  refuse_overflow(*check, " - ", left, right);
}
DEFORMOPS_HOOK __ubsan_handle_mul_overflow(Check* check, uintptr_t left, uintptr_t right) {
  refuse_overflow(*check, " * ", left, right);
}
DEFORMOPS_HOOK __ubsan_handle_negate_overflow(Check* check, uintptr_t value) {
  refuse_overflow(*check, " - ", 0, value);
}
DEFORMOPS_HOOK __ubsan_handle_shift_out_of_bounds(ShiftCheck* check, uintptr_t value,
                                                  uintptr_t distance) {
  refuse(check->location, "shift of " + integer(*check->value, value) + " by " +
                              integer(*check->distance, distance) + " as " + check->value->name);
}
DEFORMOPS_HOOK __ubsan_handle_pointer_overflow(Check* check, uintptr_t, uintptr_t) {
  refuse(check->location, "a pointer moves round the end of memory");
}
DEFORMOPS_HOOK __ubsan_handle_load_invalid_value(Check* check, uintptr_t value) {
  refuse(check->location, integer(*check->type, value) + " is no value of " + check->type->name);
}
DEFORMOPS_HOOK __ubsan_handle_vla_bound_not_positive(Check* check, uintptr_t) {
  refuse(check->location, "an array of no elements");
}
DEFORMOPS_HOOK __ubsan_handle_nonnull_arg(Check* check) {
  refuse(check->location, "null pointer as an argument that must not be null");
}
DEFORMOPS_HOOK __ubsan_handle_nonnull_return_v1(void*, Location* location) {
  refuse(*location, "null pointer as a result that must not be null");
}
DEFORMOPS_HOOK __ubsan_handle_invalid_builtin(Check* check) {
  refuse(check->location, "zero as the argument of a function that counts zeros");
}
DEFORMOPS_HOOK __ubsan_handle_builtin_unreachable(Check* check) {
  refuse(check->location, "code that was declared unreachable");
}
DEFORMOPS_HOOK __ubsan_handle_missing_return(Check* check) {
  refuse(check->location, "the end of a function that has to return a value");
}

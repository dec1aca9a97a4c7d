// UndefinedBehaviorSanitizer's reports. AddressSanitizer's are asked for by the engine.
#include "simulation/hooks/module.h"

extern "C" void __ubsan_get_current_report_data(const char** kind, const char** message,
                                                const char** file, unsigned* line, unsigned* column,
                                                char** address);

namespace deformops::simulation {
namespace {

[[gnu::constructor]] void register_module() { register_this_module(false); }

}  // namespace
}  // namespace deformops::simulation

// Called by libubsan after it has printed a report, if somebody defines it.
extern "C" __attribute__((visibility("default"))) void __ubsan_on_report() {
  const char *kind = "", *message = "", *file = "";
  unsigned line = 0, column = 0;
  char* address = nullptr;
  __ubsan_get_current_report_data(&kind, &message, &file, &line, &column, &address);
  deformops::simulation::report_undefined_behaviour(message, file, static_cast<int>(line));
}

#include "simulation/engine/failure.h"

namespace deformops::simulation {

std::string to_string(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

std::string Failure::text() const {
  std::string text = kind + ": " + message;
  if (!kernel.empty()) text += "\n  kernel " + kernel;
  if (!kernel.empty() && !op.empty()) text += " of " + op;
  if (in_thread) text += ", block " + to_string(block) + ", thread " + to_string(thread);
  for (size_t i = 0; i < stack.size(); ++i) {
    text += (i == 0 ? "\n  at " : "\n  called from ") + to_string(stack[i]);
    if (!stack[i].function.empty()) text += " in " + stack[i].function;
  }
  if (!kernel.empty()) {
    text += "\n  schedule: seed " + std::to_string(seed) + ", launch " + std::to_string(launch);
  }
  return text;
}

}  // namespace deformops::simulation

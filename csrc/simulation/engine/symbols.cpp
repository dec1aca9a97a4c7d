#include "simulation/engine/symbols.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <unordered_map>

extern char** environ;

namespace deformops::simulation {
namespace {

std::unordered_map<const void*, std::vector<Place>>& known_places() {
  static std::unordered_map<const void*, std::vector<Place>> places;
  return places;
}

// Standard output of a program. It must not inherit LD_PRELOAD: with a sanitizer's library in front
// it would be slow and chatty.
std::string output_of(const std::vector<std::string>& command) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  std::vector<char*> arguments, environment;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (std::strncmp(*entry, "LD_PRELOAD=", 11) != 0) environment.push_back(*entry);
  }
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);

  std::string text;
  if (error == 0) {
    char buffer[4096];
    for (ssize_t got; (got = read(ends[0], buffer, sizeof(buffer))) > 0;) {
      text.append(buffer, static_cast<size_t>(got));
    }
    waitpid(child, nullptr, 0);
  }
  close(ends[0]);
  return text;
}

std::string hexadecimal(uintptr_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "0x%zx", static_cast<size_t>(value));
  return text;
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// Wrappers round the engine, which say nothing to the author of a kernel.
bool is_of_simulation(const std::string& file) {
  return file.find("csrc/simulation/device/") != std::string::npos ||
         file.find("csrc/simulation/hooks/") != std::string::npos;
}

// "void space::kernel<float, 2>(int, float*)" -> "space::kernel<float, 2>". The parameters begin at
// the last opening parenthesis at depth 0, the return type (only templates show theirs) ends at the
// last blank at depth 0 before it.
std::string without_signature(std::string name) {
  const std::string noise = "(anonymous namespace)::";
  for (size_t at; (at = name.find(noise)) != std::string::npos;) name.erase(at, noise.size());
  name = name.substr(0, name.find(" [clone"));
  int depth = 0;
  size_t end = name.size();
  for (size_t i = name.size(); i-- > 0;) {
    if (name[i] == ')' || name[i] == '>') ++depth;
    if (name[i] == '(' || name[i] == '<') --depth;
    if (depth == 0 && name[i] == '(') {
      end = i;
      break;
    }
  }
  size_t begin = 0;
  depth = 0;
  for (size_t i = 0; i < end; ++i) {
    if (name[i] == '(' || name[i] == '<') ++depth;
    if (name[i] == ')' || name[i] == '>') --depth;
    if (depth == 0 && name[i] == ' ') begin = i + 1;
  }
  return name.substr(begin, end - begin);
}

// Debug information does not always know the namespace.
bool is_name_of(const std::string& name, const std::string& full_name) {
  if (name.empty() || name.size() > full_name.size()) return false;
  const size_t start = full_name.size() - name.size();
  return full_name.compare(start, name.size(), name) == 0 &&
         (start == 0 || full_name[start - 1] == ':');
}

// Answers of addr2line -a -f -i: an address line, then pairs of lines, function and file:line.
void resolve_in_module(const std::string& module, uintptr_t base,
                       const std::vector<const void*>& program_counters) {
  std::vector<std::string> command = {"addr2line", "-a", "-C", "-f", "-i", "-e", module};
  for (const void* pc : program_counters) {
    command.push_back(hexadecimal(reinterpret_cast<uintptr_t>(pc) - base));
  }
  std::istringstream answer(output_of(command));
  std::string line;
  size_t current = 0;
  bool started = false;
  while (std::getline(answer, line)) {
    if (line.rfind("0x", 0) == 0) {
      current += started ? 1 : 0;
      started = true;
      continue;
    }
    Place place;
    place.function = without_signature(line);
    if (!started || !std::getline(answer, line)) break;
    line = line.substr(0, line.find(" (discriminator"));
    const size_t colon = line.rfind(':');
    place.file = line.substr(0, colon);
    while (place.file.rfind("./", 0) == 0) place.file = place.file.substr(2);
    place.line = colon == std::string::npos ? 0 : std::atoi(line.c_str() + colon + 1);
    if (current >= program_counters.size() || place.file == "??") continue;
    if (!is_of_simulation(place.file)) {
      known_places()[program_counters[current]].push_back(place);
    }
  }
}

}  // namespace

std::string to_string(const Place& place) {
  return place.line > 0 ? place.file + ":" + std::to_string(place.line) : place.file;
}

void resolve_places(const std::vector<const void*>& program_counters) {
  std::map<std::pair<std::string, uintptr_t>, std::vector<const void*>> by_module;
  for (const void* pc : program_counters) {
    if (known_places().count(pc) != 0) continue;
    known_places()[pc];
    Dl_info info;
    if (dladdr(pc, &info) == 0 || info.dli_fname == nullptr) continue;
    by_module[{info.dli_fname, reinterpret_cast<uintptr_t>(info.dli_fbase)}].push_back(pc);
  }
  for (const auto& [module, pcs] : by_module) {
    resolve_in_module(module.first, module.second, pcs);
    for (const void* pc : pcs) {
      std::vector<Place>& places = known_places()[pc];
      if (!places.empty()) continue;
      const uintptr_t offset = reinterpret_cast<uintptr_t>(pc) - module.second;
      places.push_back({"", base_name(module.first) + "+" + hexadecimal(offset), 0});
    }
  }
}

const std::vector<Place>& places_at(const void* program_counter) {
  resolve_places({program_counter});
  return known_places()[program_counter];
}

std::string kernel_name(const void* kernel) {
  const std::vector<Place>& places = places_at(kernel);
  if (places.empty()) return hexadecimal(reinterpret_cast<uintptr_t>(kernel));
  return places.front().function.empty() ? places.front().file : places.front().function;
}

std::vector<Place> call_stack(const void* begin, const void* end, const std::string& last) {
  constexpr size_t kMaxPlaces = 16;
  void* frames[64];
  const int count = backtrace(frames, 64);
  std::vector<Place> stack;
  for (int i = 0; i < count; ++i) {
    // The call, not the instruction after it.
    const char* pc = static_cast<const char*>(frames[i]) - 1;
    if (pc < begin || pc >= end) continue;
    for (const Place& place : places_at(pc)) {
      if (stack.size() < kMaxPlaces) stack.push_back(place);
      if (stack.size() == kMaxPlaces || is_name_of(place.function, last)) return stack;
    }
  }
  return stack;
}

}  // namespace deformops::simulation

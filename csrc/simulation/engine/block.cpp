// How a GPU runs a block, and how that is imitated.
//
// A GPU issues one instruction of some warp that can go on, then one of another: which, depends on
// latencies that nobody can predict. All that a program may rely on is what barriers promise. So
// here any thread that can go on may be continued next, up to the place where it has to wait for
// others, and a generator draws which. Two habits of real machines are drawn for each block: how
// long the scheduler stays with one warp (anything from every instruction to until it waits),
// because mistakes show when one warp runs far ahead just as they do when all advance together.
#include "simulation/engine/block.h"

#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "simulation/engine/device.h"
#include "simulation/engine/sanitizer.h"

namespace deformops::simulation {
namespace {

bool same_place(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string to_string(const Site& site) { return to_string(Place{"", site.file, site.line}); }

}  // namespace

Block::Block() : threads_(new Thread[kMaxThreads]) {}

unsigned Block::lanes_of(unsigned warp) const {
  const unsigned lanes = size_ - warp * kWarpSize;
  return lanes >= kWarpSize ? ~0u : (1u << lanes) - 1;
}

void Block::make_ready(Thread& thread) {
  ready_lanes_[thread.warp()] |= 1u << thread.lane();
  ready_warps_ |= 1u << thread.warp();
}

Thread* Block::pick() {
  if (ready_warps_ == 0) return nullptr;
  unsigned lane;
  if (fixed_order_) {
    warp_ = static_cast<unsigned>(__builtin_ctz(ready_warps_));
    lane = static_cast<unsigned>(__builtin_ctz(ready_lanes_[warp_]));
  } else {
    const bool can_stay = (ready_warps_ >> warp_ & 1) != 0;
    if (!can_stay || random_->chance(change_warp_)) {
      warp_ = static_cast<unsigned>(random_->set_bit(ready_warps_));
    }
    lane = static_cast<unsigned>(random_->set_bit(ready_lanes_[warp_]));
  }
  ready_lanes_[warp_] &= ~(1u << lane);
  if (ready_lanes_[warp_] == 0) ready_warps_ &= ~(1u << warp_);
  return &threads_[warp_ * kWarpSize + lane];
}

void Block::run(dim3 extent, Random& random, bool fixed_order) {
  size_ = extent.x * extent.y * extent.z;
  exited_ = 0;
  waiting_ = 0;
  exited_lanes_ = {};
  ready_lanes_ = {};
  ready_warps_ = 0;
  for (std::vector<Gathering>& gatherings : gatherings_) gatherings.clear();
  warp_ = 0;
  random_ = &random;
  fixed_order_ = fixed_order;
  static constexpr double kHabits[] = {0, 1.0 / 32, 1.0 / 4, 1};
  change_warp_ = kHabits[random.below(4)];

  for (unsigned i = 0; i < size_; ++i) {
    Thread& thread = threads_[i];
    thread.linear = i;
    thread.index = {i % extent.x, i / extent.x % extent.y, i / extent.x / extent.y};
    thread.state = Thread::State::kFresh;
    thread.copies.clear();
    thread.groups = 0;
    thread.clock = 0;
    make_ready(thread);
  }

  if (sanitizer::active() && pthread_self() != host_) find_host_stack();
  Device& device = Device::get();
  while (exited_ < size_ && !device.failed()) {
    Thread* next = pick();
    if (next == nullptr) {
      report_deadlock();
      break;
    }
    enter(*next);
    sanitizer::start_switch(&host_fake_stack_, next->stack->low(), Stack::kBytes);
    host_context_.switch_to(next->context);
    sanitizer::finish_switch(host_fake_stack_);
    running.thread = nullptr;
  }

  // Threads that will never be continued leave their stacks as they are.
  for (unsigned i = 0; i < size_; ++i) {
    Thread& thread = threads_[i];
    if (thread.stack == nullptr) continue;
    sanitizer::unpoison(thread.stack->low(), Stack::kBytes);
    stacks_.give_back(thread.stack);
    thread.stack = nullptr;
  }
}

void Block::find_host_stack() {
  host_ = pthread_self();
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  void* low = nullptr;
  pthread_attr_getstack(&attributes, &low, &host_stack_bytes_);
  host_stack_low_ = low;
  pthread_attr_destroy(&attributes);
}

void Block::enter(Thread& thread) {
  if (thread.state == Thread::State::kFresh) {
    thread.stack = stacks_.take();
    thread.fake_stack = nullptr;
    thread.context.prepare(thread.stack->high(), Stack::kBytes, &Block::thread_main);
  }
  thread.state = Thread::State::kReady;
  running.thread = &thread;
  running.stack_low = reinterpret_cast<uintptr_t>(thread.stack->low());
  running.stack_high = reinterpret_cast<uintptr_t>(thread.stack->high());
  ++Device::get().record.switches;
}

void Block::switch_from(Thread& thread, Thread* next) {
  if (next == &thread) {
    thread.state = Thread::State::kReady;
    return;
  }
  if (next != nullptr) {
    enter(*next);
    sanitizer::start_switch(&thread.fake_stack, next->stack->low(), Stack::kBytes);
    thread.context.switch_to(next->context);
  } else {
    sanitizer::start_switch(&thread.fake_stack, host_stack_low_, host_stack_bytes_);
    thread.context.switch_to(host_context_);
  }
  sanitizer::finish_switch(thread.fake_stack);
  Device::get().stop_if_failed();
}

void Block::leave_for_good(Thread& thread, Thread* next) {
  Context* target = &host_context_;
  const void* stack_low = host_stack_low_;
  size_t stack_bytes = host_stack_bytes_;
  if (next != nullptr) {
    enter(*next);
    target = &next->context;
    stack_low = next->stack->low();
    stack_bytes = Stack::kBytes;
  }
  sanitizer::start_switch(nullptr, stack_low, stack_bytes);
  thread.context.switch_to(*target);
  std::abort();  // nobody continues this thread
}

void Block::thread_main() {
  sanitizer::finish_switch(nullptr);
  Device& device = Device::get();
  device.current->body(device.current->arguments);
  device.block.exit_thread();
}

void Block::exit_thread() {
  Device& device = Device::get();
  device.stop_if_failed();
  Thread& thread = running_thread();
  if (!thread.copies.empty()) {
    device.fail("async copy", "the thread exits with " + std::to_string(thread.copies.size()) +
                                  " cp.async copies that it has not waited for");
  }
  if (waiting_ > 0 && !device.options.allow_early_exit) {
    device.fail("barrier", "the thread exits while thread " +
                               simulation::to_string(first_waiting_->index) + " waits for it at " +
                               to_string(first_waiting_->site));
  }
  for (const Gathering& gathering : gatherings_[thread.warp()]) {
    if ((gathering.mask >> thread.lane() & 1) == 0) continue;
    device.fail("warp", "the thread exits, but " + std::string(gathering.meeting->name) +
                            " of lane " + std::to_string(__builtin_ctz(gathering.arrived)) +
                            " at " + to_string(gathering.site) + " has it in its mask");
  }

  thread.state = Thread::State::kExited;
  exited_lanes_[thread.warp()] |= 1u << thread.lane();
  ++exited_;
  ++device.record.threads;
  if (waiting_ > 0 && waiting_ == size_ - exited_) release_barrier();
  // This is the last that happens on this stack: the pool will not lend it before the next exit.
  stacks_.give_back(thread.stack);
  thread.stack = nullptr;
  leave_for_good(thread, pick());
}

void Block::abandon() {
  ready_lanes_ = {};
  ready_warps_ = 0;
  leave_for_good(running_thread(), nullptr);
}

void Block::yield() {
  Thread& thread = running_thread();
  make_ready(thread);
  switch_from(thread, pick());
}

int Block::wait_at_barrier(BarrierResult result, int predicate, Site site) {
  Device& device = Device::get();
  device.stop_if_failed();
  Thread& thread = running_thread();
  if (exited_ > 0 && !device.options.allow_early_exit) {
    device.fail("barrier",
                "a thread waits at __syncthreads, but " + std::to_string(exited_) +
                    (exited_ == 1 ? " thread of its block has" : " threads of its block have") +
                    " exited",
                site);
  }
  if (waiting_ == 0) {
    first_waiting_ = &thread;
  } else if (!same_place(first_waiting_->site, site) || first_waiting_->barrier_result != result) {
    device.fail("barrier",
                "divergent __syncthreads: this thread waits here, thread " +
                    simulation::to_string(first_waiting_->index) + " at " +
                    to_string(first_waiting_->site),
                site);
  }
  thread.site = site;
  thread.barrier_result = result;
  thread.value = predicate;
  thread.state = Thread::State::kAtBarrier;
  ++waiting_;
  if (waiting_ == size_ - exited_) release_barrier();
  switch_from(thread, pick());
  return thread.value;
}

void Block::release_barrier() {
  Device& device = Device::get();
  if (const SharedMemory::Array* array = device.shared.overrun()) {
    device.fail("overrun",
                "somebody wrote beyond shared `" + array->name +
                    "`; found when the block met at __syncthreads",
                first_waiting_->site);
  }
  device.race.block_met();
  device.profiler.block_met();
  ++device.record.block_barriers;

  int count = 0;
  for (unsigned i = 0; i < size_; ++i) {
    if (threads_[i].state == Thread::State::kAtBarrier && threads_[i].value != 0) ++count;
  }
  const int all = static_cast<int>(waiting_);
  for (unsigned i = 0; i < size_; ++i) {
    Thread& thread = threads_[i];
    if (thread.state != Thread::State::kAtBarrier) continue;
    switch (thread.barrier_result) {
      case BarrierResult::kNone:
        break;
      case BarrierResult::kCount:
        thread.value = count;
        break;
      case BarrierResult::kAnd:
        thread.value = count == all ? 1 : 0;
        break;
      case BarrierResult::kOr:
        thread.value = count > 0 ? 1 : 0;
        break;
    }
    thread.state = Thread::State::kReady;
    make_ready(thread);
  }
  waiting_ = 0;
}

void Block::wait_at_meeting(const Meeting& meeting, unsigned mask, void* argument, Site site) {
  Device& device = Device::get();
  device.stop_if_failed();
  Thread& thread = running_thread();
  const unsigned present = lanes_of(thread.warp());
  check_mask(meeting, mask, site);
  mask &= present;  // naming lanes that the block does not have is customary

  std::vector<Gathering>& gatherings = gatherings_[thread.warp()];
  auto gathering = std::find_if(gatherings.begin(), gatherings.end(), [&](const Gathering& other) {
    return other.meeting == &meeting && other.mask == mask;
  });
  if (gathering == gatherings.end()) {
    refuse_contradiction(meeting, mask, site);
    gatherings.push_back({&meeting, mask, 0, site});
    gathering = gatherings.end() - 1;
  } else if (meeting.aligned && !same_place(gathering->site, site)) {
    device.fail("warp",
                std::string(meeting.name) + ": others of the warp are at " +
                    to_string(gathering->site) + ", and all have to be at one place",
                site);
  }

  thread.site = site;
  thread.meeting = &meeting;
  thread.argument = argument;
  thread.state = Thread::State::kAtMeeting;
  gathering->arrived |= 1u << thread.lane();
  if (gathering->arrived == mask) {
    gatherings.erase(gathering);
    Thread* const lanes = &threads_[thread.warp() * kWarpSize];
    void* arguments[kWarpSize] = {};
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      arguments[lane] = lanes[lane].argument;
      make_ready(lanes[lane]);
    }
    meeting.complete(mask, arguments);
    ++device.record.warp_collectives;
    if (mask == present) device.profiler.warp_met(thread.warp());
  }
  switch_from(thread, pick());
}

void Block::check_mask(const Meeting& meeting, unsigned mask, Site site) {
  Device& device = Device::get();
  const Thread& thread = running_thread();
  if ((mask >> thread.lane() & 1) == 0) {
    device.fail("warp", std::string(meeting.name) + ": the caller is not in its own mask", site);
  }
  if (meeting.aligned && lanes_of(thread.warp()) != ~0u) {
    device.fail("warp", std::string(meeting.name) + " needs a warp of 32 threads, not fewer", site);
  }
  if (const unsigned exited = mask & exited_lanes_[thread.warp()]) {
    device.fail("warp",
                std::string(meeting.name) + ": lane " + std::to_string(__builtin_ctz(exited)) +
                    " of its mask has exited",
                site);
  }
}

void Block::refuse_contradiction(const Meeting& meeting, unsigned mask, Site site) {
  // Lanes that wait for each other but do not agree what for would wait forever. A lane that waits
  // for others only may still come.
  const Thread& thread = running_thread();
  for (const Gathering& other : gatherings_[thread.warp()]) {
    if ((other.arrived & mask) == 0 || (other.mask >> thread.lane() & 1) == 0) continue;
    Device::get().fail("warp",
                       std::string(meeting.name) + ": lane " +
                           std::to_string(__builtin_ctz(other.arrived & mask)) +
                           " of its mask is in " + other.meeting->name + " at " +
                           to_string(other.site) + (other.mask != mask ? " with another mask" : ""),
                       site);
  }
}

void Block::report_deadlock() {
  std::map<std::string, unsigned> waiting;
  for (unsigned i = 0; i < size_; ++i) {
    const Thread& thread = threads_[i];
    if (thread.state == Thread::State::kExited) continue;
    const bool at_barrier = thread.state == Thread::State::kAtBarrier;
    ++waiting[(at_barrier ? "__syncthreads" : std::string(thread.meeting->name)) + " at " +
              to_string(thread.site)];
  }
  std::string message = "no thread can go on:";
  for (const auto& [place, count] : waiting) {
    message += " " + std::to_string(count) + " in " + place + ";";
  }
  message += " " + std::to_string(exited_) + " have exited";
  Device::get().note_failure("deadlock", message);
}

}  // namespace deformops::simulation

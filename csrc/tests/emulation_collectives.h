// Barriers and warp collectives of cuda_emulation.h. Only cuda_emulation.h includes this file.
#pragma once

#include "cuda_emulation.h"

namespace fastctc::emulation {

FASTCTC_UNTRACKED inline unsigned Emulator::lanes_of(unsigned warp) {
  const unsigned count = thread_count_ - warp * 32;
  return count >= 32 ? ~0u : (1u << count) - 1;
}

FASTCTC_UNTRACKED inline Group& Emulator::find_group(unsigned warp, unsigned mask) {
  for (Group* group = block_->groups[warp]; group; group = group->next)
    if (group->mask == mask) return *group;
  Untracked scope;
  Group* group = new Group{};
  group->mask = mask;
  group->next = block_->groups[warp];
  block_->groups[warp] = group;
  return *group;
}

inline std::string describe(const Site& site) {
  return std::string(site.collective) + " (" + site.file + ":" + std::to_string(site.line) + ")";
}

inline std::string describe(const Thread& thread) {
  char text[64];
  switch (thread.state) {
    case State::kExited:
      return "exited";
    case State::kAtBarrier:
      std::snprintf(text, sizeof text, "waits at barrier %u: ", thread.barrier);
      return text + describe(thread.site);
    case State::kAtCollective:
      std::snprintf(text, sizeof text, "waits with mask 0x%08x: ", thread.mask);
      return text + describe(thread.site);
    default:
      return thread.state == State::kRunning ? "running" : "ready to run";
  }
}

FASTCTC_UNTRACKED inline const uint64_t* Emulator::meet(unsigned mask, uint64_t value, const Site& site,
                                                        bool orders_memory) {
  Thread& me = current();
  me.site = site;
  me.mask = mask;
  if (!(mask >> me.lane & 1)) {
    Untracked scope;
    fail("a lane is missing from the mask that it passes to " + describe(site));
  }
  Group& group = find_group(me.warp, mask);
  const unsigned slot = group.generation & 1;
  if (group.arrived && !(group.site == site)) {
    Untracked scope;
    fail("lanes of one mask meet at different collectives: " + describe(group.site) + " and " + describe(site));
  }
  group.site = site;
  group.values[slot][me.lane] = value;
  group.arrived |= 1u << me.lane;
  me.state = State::kAtCollective;
  spins_ = 0;
  if (orders_memory) happens_before(&group.ordering_tag[slot]);
  if (group.arrived == (mask & lanes_of(me.warp))) {
    for (unsigned lane = 0; lane < 32; ++lane)
      if (group.arrived >> lane & 1) make_ready(*threads_[me.warp * 32 + lane]);
    group.arrived = 0;
    group.generation++;
  }
  schedule();
  if (orders_memory) happens_after(&group.ordering_tag[slot]);
  return group.values[slot];
}

FASTCTC_UNTRACKED inline unsigned Emulator::wait_at_barrier(unsigned id, unsigned expected, bool vote,
                                                            const Site& site) {
  Thread& me = current();
  me.site = site;
  me.barrier = id;
  Barrier& barrier = block_->barriers[id];
  const unsigned slot = barrier.generation & 1;
  if (barrier.arrived == 0) {
    barrier.expected = expected;
    barrier.votes[slot] = 0;
  } else if (barrier.expected != expected || (id == 0 && !(barrier.site == site))) {
    Untracked scope;
    fail("threads meet at different barriers: " + describe(barrier.site) + " and " + describe(site));
  }
  barrier.site = site;
  barrier.votes[slot] += vote;
  barrier.arrived++;
  me.state = State::kAtBarrier;
  spins_ = 0;
  happens_before(&barrier.ordering_tag[slot]);
  if (barrier.arrived == expected) {
    for (unsigned i = 0; i < thread_count_; ++i)
      if (threads_[i]->state == State::kAtBarrier && threads_[i]->barrier == id) make_ready(*threads_[i]);
    barrier.arrived = 0;
    barrier.generation++;
  }
  schedule();
  happens_after(&barrier.ordering_tag[slot]);
  return barrier.votes[slot];
}

// ---- warp collectives by value --------------------------------------------------------------------------------------

template <class T>
FASTCTC_UNTRACKED uint64_t pack(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "shuffles move 8 bytes at most");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
FASTCTC_UNTRACKED T unpack(uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// Every lane receives the value of lane source(lane).
template <class T>
FASTCTC_UNTRACKED T shuffle(unsigned mask, T value, unsigned source, const Site& site) {
  Thread& me = emulator().current();
  if ((mask >> me.lane & 1) && source != me.lane &&
      (!(mask >> source & 1) || me.warp * 32 + source >= emulator().block_threads())) {
    Untracked scope;
    me.site = site;
    emulator().fail("lane " + std::to_string(me.lane) + " reads lane " + std::to_string(source) +
                    ", which is not in the mask of " + describe(site));
  }
  return unpack<T>(emulator().meet(mask, pack(value), site, false)[source]);
}

template <class T, class Combine>
FASTCTC_UNTRACKED T reduce(unsigned mask, T value, const Site& site, Combine combine) {
  const uint64_t* values = emulator().meet(mask, pack(value), site, false);
  const Thread& me = emulator().current();
  bool first = true;
  T result{};
  for (unsigned lane = 0; lane < 32 && me.warp * 32 + lane < emulator().block_threads(); ++lane) {
    if (!(mask >> lane & 1)) continue;
    result = first ? unpack<T>(values[lane]) : combine(result, unpack<T>(values[lane]));
    first = false;
  }
  return result;
}

FASTCTC_UNTRACKED inline unsigned ballot(unsigned mask, bool vote, const Site& site) {
  const unsigned bit = vote ? 1u << emulator().current().lane : 0;
  return reduce(mask, bit, site, [](unsigned a, unsigned b) FASTCTC_UNTRACKED { return a | b; });
}

template <class T>
T read_modify_write(T* address, T (*modify)(T old, T operand), T operand) {
  T old, wanted;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    wanted = modify(old, operand);
  } while (!__atomic_compare_exchange(address, &old, &wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace fastctc::emulation

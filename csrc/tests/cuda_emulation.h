// A GPU for tests: compiles a .cu file with g++ (-x c++ -DFASTCTC_EMULATED_CUDA) and runs its kernels on the CPU.
//
//   CUDA thread    a fiber; it runs until it meets a barrier or a warp collective, then another is chosen
//   block          blocks run one after another; each has fresh shared memory filled with NaN (bytes 0xff)
//   order          FASTCTC_EMULATION_ORDER: 0 lowest thread first, 1 highest first, else seed of a random choice
//   async copies   happen when they are waited for; until then the destination holds NaN
//
// launch() throws std::runtime_error on a divergent barrier, a lane missing from (or exited in) a *_sync mask, lanes
// that meet at different collectives, a shuffle from a lane outside the mask, copies never waited for, writes past the
// end of shared memory, endless spinning, and impossible configurations. AddressSanitizer sees the exact bounds of
// shared memory. ThreadSanitizer sees each fiber as a thread, ordered by __syncthreads, __syncwarp, fences and launches
// only, not by shuffles or votes: it reports a missing barrier whatever the order.
//
//   emulation_fibers.h       fibers, and what the sanitizers must know of them
//   cuda_emulation.h         the parts of a block, the emulator, its scheduler, shared memory
//   emulation_collectives.h  barriers, and collectives of a warp
//   emulation_launch.h       blocks and launches
//   cuda_names.h             CUDA's own names
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "emulation_fibers.h"

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace fastctc::emulation {

constexpr unsigned kMaxThreads = 1024;         // per block
constexpr size_t kMaxSharedBytes = 99 * 1024;  // per block, as on sm_86, sm_89 and sm_120; others have more
constexpr size_t kUnraisedBytes = 48 * 1024;   // per block, unless the limit of the kernel has been raised
constexpr unsigned char kGarbage = 0xff;       // NaN as float or double, -1 as integer
constexpr unsigned kSpinLimit = 100000;        // rounds in which threads only yield

// 0, 1 or a seed: see the top of this file.
inline std::atomic<unsigned>& order() {
  static std::atomic<unsigned> value{[] {
    const char* text = std::getenv("FASTCTC_EMULATION_ORDER");
    return text ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : 0u;
  }()};
  return value;
}

// ---- what a block is made of ----------------------------------------------------------------------------------------

enum class State : uint8_t { kReady, kRunning, kYielded, kAtBarrier, kAtCollective, kExited };

// Which collective, and where in the source: threads that meet must come from the same place.
struct Site {
  const char* collective;
  const char* file;
  int line;
  bool operator==(const Site& other) const {
    return line == other.line && std::strcmp(collective, other.collective) == 0 && std::strcmp(file, other.file) == 0;
  }
};

struct AsyncCopy {
  void* shared;
  const void* global;
  unsigned bytes;
  unsigned group;
};

struct Thread : Context {
  unsigned index, lane, warp;
  uint3 thread_index;
  State state;
  Site site;
  unsigned mask, barrier;
  std::vector<AsyncCopy> copies;
  unsigned committed_groups;
};

// Lanes of one warp that use the same mask. Two slots, because the fastest lane may be at the next collective
// while the slowest has not yet read the values of this one.
struct Group {
  unsigned mask;
  unsigned arrived;
  unsigned generation;
  Site site;
  uint64_t values[2][32];
  char ordering_tag[2];
  Group* next;
};

struct Barrier {
  unsigned expected;
  unsigned arrived;
  unsigned generation;
  unsigned votes[2];
  Site site;
  char ordering_tag[2];
};

// What a thread throws where it finds that the kernel is wrong.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct SharedArray {
  const void* key;
  unsigned char* data;
  size_t bytes;
  SharedArray* next;
};

// Everything that a block owns; a new one for each block, so that ThreadSanitizer sees no order between
// blocks.
struct Block {
  Barrier barriers[16] = {};
  Group* groups[kMaxThreads / 32] = {};
  SharedArray* arrays = nullptr;
};

class Emulator {
 public:
  ~Emulator() { abandon_threads(); }

  // `dynamic_limit`: see dynamic_limit() below.
  void launch(dim3 grid, dim3 block, size_t shared_bytes, size_t dynamic_limit, void (*run)(void*), void* kernel);

  // The rest is called by running threads only.
  FASTCTC_UNTRACKED Thread& current() { return *static_cast<Thread*>(running_); }
  FASTCTC_UNTRACKED uint3 thread_index() { return current().thread_index; }
  FASTCTC_UNTRACKED uint3 block_index() { return block_index_; }
  FASTCTC_UNTRACKED dim3 block_size() { return block_size_; }
  FASTCTC_UNTRACKED dim3 grid_size() { return grid_size_; }
  FASTCTC_UNTRACKED void* dynamic_shared() { return dynamic_shared_; }
  FASTCTC_UNTRACKED unsigned block_threads() { return thread_count_; }
  void* static_shared(const void* key, size_t bytes, size_t alignment);
  // Publishes value, waits for the lanes of mask, returns what each of them published.
  const uint64_t* meet(unsigned mask, uint64_t value, const Site& site, bool orders_memory);
  // Waits for `expected` threads of the block, returns how many of them voted yes.
  unsigned wait_at_barrier(unsigned id, unsigned expected, bool vote, const Site& site);
  void yield();
  void fence();
  void async_copy(void* shared, const void* global, unsigned bytes);
  void async_commit();
  void async_wait(unsigned pending_groups);
  [[noreturn]] void fail(const std::string& why);

 private:
  void prepare_threads();
  void run_block();
  void check_shared_memory();
  void release_block();
  void abandon_threads();
  unsigned lanes_of(unsigned warp);
  Group& find_group(unsigned warp, unsigned mask);
  SharedArray* allocate_shared(const void* key, size_t bytes, size_t alignment);
  void make_ready(Thread& thread);
  Thread* choose();
  unsigned choose_bit(unsigned bits);
  unsigned random();
  void schedule();
  void switch_to(Context& next);
  static void thread_main();
  std::string describe_block();
  std::string explain_deadlock();

  Context host_;
  Context* running_ = &host_;
  Context* previous_ = nullptr;
  std::vector<Thread*> pool_;
  Thread** threads_ = nullptr;
  Block* block_ = nullptr;
  void (*run_)(void*) = nullptr;
  void* kernel_ = nullptr;
  dim3 grid_size_, block_size_;
  uint3 block_index_{};
  size_t dynamic_bytes_ = 0, dynamic_limit_ = 0;
  void* dynamic_shared_ = nullptr;
  unsigned thread_count_ = 0, exited_ = 0, yielded_ = 0, spins_ = 0;
  unsigned ready_warps_ = 0, ready_lanes_[kMaxThreads / 32] = {};
  unsigned order_ = 0, random_state_ = 1, sticky_warp_ = 0, change_rate_ = 1;
  bool active_ = false, failed_ = false;
  std::exception_ptr exception_;
  char launch_tag_ = 0, exit_tag_ = 0, fence_tag_ = 0;
};

// One emulator per host thread, so that several of them may launch at the same time.
inline thread_local Emulator* emulator_pointer = nullptr;
FASTCTC_UNTRACKED inline Emulator& emulator() { return *emulator_pointer; }

inline Emulator& emulator_of_this_thread() {
  static thread_local Emulator instance;
  emulator_pointer = &instance;
  return instance;
}

// ---- scheduling -----------------------------------------------------------------------------------------------------

FASTCTC_UNTRACKED inline unsigned Emulator::random() {
  random_state_ ^= random_state_ << 13;
  random_state_ ^= random_state_ >> 17;
  random_state_ ^= random_state_ << 5;
  return random_state_;
}

FASTCTC_UNTRACKED inline unsigned Emulator::choose_bit(unsigned bits) {
  if (order_ == 0) return __builtin_ctz(bits);
  if (order_ == 1) return 31 - __builtin_clz(bits);
  for (unsigned skip = random() % __builtin_popcount(bits); skip > 0; --skip) bits &= bits - 1;
  return __builtin_ctz(bits);
}

FASTCTC_UNTRACKED inline void Emulator::make_ready(Thread& thread) {
  thread.state = State::kReady;
  ready_lanes_[thread.warp] |= 1u << thread.lane;
  ready_warps_ |= 1u << thread.warp;
}

// In random order a warp is kept for a while (for how long, each block decides anew), so that some warps run
// far ahead of others: round-robin would hide most missing barriers.
FASTCTC_UNTRACKED inline Thread* Emulator::choose() {
  if (!ready_warps_ && yielded_) {
    if (++spins_ > kSpinLimit) fail("threads spin for ever");
    for (unsigned i = 0; i < thread_count_; ++i)
      if (threads_[i]->state == State::kYielded) make_ready(*threads_[i]);
    yielded_ = 0;
  }
  if (!ready_warps_) return nullptr;
  const bool keep = order_ > 1 && (ready_warps_ >> sticky_warp_ & 1) && random() % change_rate_ != 0;
  const unsigned warp = keep ? sticky_warp_ : choose_bit(ready_warps_);
  const unsigned lane = choose_bit(ready_lanes_[warp]);
  sticky_warp_ = warp;
  ready_lanes_[warp] &= ~(1u << lane);
  if (!ready_lanes_[warp]) ready_warps_ &= ~(1u << warp);
  return threads_[warp * 32 + lane];
}

FASTCTC_UNTRACKED inline void Emulator::switch_to(Context& next) {
  Context& self = *running_;
  if (&next == &self) return;
  previous_ = &self;
  running_ = &next;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&self.asan_fake_stack, next.stack_low, next.stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(next.tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef FASTCTC_EMULATION_UCONTEXT
  swapcontext(&self.registers, &next.registers);
#else
  fastctc_emulation_switch(&self.stack_pointer, next.stack_pointer);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(self.asan_fake_stack, &previous_->stack_low, &previous_->stack_bytes);
#endif
}

FASTCTC_UNTRACKED inline void Emulator::schedule() {
  Thread* next = choose();
  if (next) next->state = State::kRunning;
  switch_to(next ? static_cast<Context&>(*next) : host_);
}

// The body of every fiber. It never returns: the next block continues after the last schedule().
FASTCTC_UNTRACKED inline void Emulator::thread_main() {
  Emulator& self = emulator();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &self.previous_->stack_low, &self.previous_->stack_bytes);
#endif
  for (;;) {
    happens_after(&self.launch_tag_);
    self.current().committed_groups = 0;
    try {
      self.run_(self.kernel_);
      if (!self.current().copies.empty()) self.fail("a thread exits without waiting for its asynchronous copies");
    } catch (...) {
      Untracked scope;
      self.exception_ = std::current_exception();
      self.failed_ = true;
    }
    happens_before(&self.exit_tag_);
    if (self.failed_) self.switch_to(self.host_);
    self.current().state = State::kExited;
    self.exited_++;
    self.spins_ = 0;
    self.schedule();
  }
}

// Unwinds the thread that found the fault; the others are abandoned where they are, and launch() throws.
[[noreturn]] inline void Emulator::fail(const std::string& why) { throw Fault(why); }

FASTCTC_UNTRACKED inline void Emulator::yield() {
  current().state = State::kYielded;
  yielded_++;
  schedule();
}

FASTCTC_UNTRACKED inline void Emulator::fence() {
  happens_before(&fence_tag_);
  happens_after(&fence_tag_);
}

// ---- shared memory and asynchronous copies --------------------------------------------------------------------------

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kCanaryBytes = 0;  // AddressSanitizer guards the exact end
#else
constexpr size_t kCanaryBytes = 64;
#endif
constexpr unsigned char kCanary = 0xca;

inline SharedArray* Emulator::allocate_shared(const void* key, size_t bytes, size_t alignment) {
  Untracked scope;
  void* data = nullptr;
  if (posix_memalign(&data, std::max<size_t>(alignment, 16), bytes + kCanaryBytes)) throw std::bad_alloc();
  std::memset(data, kGarbage, bytes);
  std::memset(static_cast<unsigned char*>(data) + bytes, kCanary, kCanaryBytes);
  block_->arrays = new SharedArray{key, static_cast<unsigned char*>(data), bytes, block_->arrays};
  return block_->arrays;
}

FASTCTC_UNTRACKED inline void* Emulator::static_shared(const void* key, size_t bytes, size_t alignment) {
  for (SharedArray* array = block_->arrays; array; array = array->next)
    if (array->key == key) return array->data;
  return allocate_shared(key, bytes, alignment)->data;
}

// Not FASTCTC_UNTRACKED: ThreadSanitizer has to see the destination written both at the copy and at the wait.
inline void Emulator::async_copy(void* shared, const void* global, unsigned bytes) {
  Thread& me = current();
  if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes)
    fail("misaligned asynchronous copy of " + std::to_string(bytes) + " bytes");
  unsigned char readable[16];
  std::memcpy(readable, global, bytes);
  std::memset(shared, kGarbage, bytes);
  me.copies.push_back({shared, global, bytes, me.committed_groups});
}

inline void Emulator::async_commit() { current().committed_groups++; }

inline void Emulator::async_wait(unsigned pending_groups) {
  Thread& me = current();
  size_t done = 0;
  while (done < me.copies.size() && me.copies[done].group + pending_groups < me.committed_groups) {
    std::memcpy(me.copies[done].shared, me.copies[done].global, me.copies[done].bytes);
    ++done;
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + done);
}

// The storage behind FASTCTC_SHARED_ARRAY; Key is a type that belongs to one declaration.
template <class Array, class Key>
Array& shared_array(Key) {
  static const char key = 0;
  return *static_cast<Array*>(emulator().static_shared(&key, sizeof(Array), alignof(Array)));
}

}  // namespace fastctc::emulation

#include "emulation_collectives.h"
#include "emulation_launch.h"
#include "cuda_names.h"

// A GPU for tests: compiles a .cu file with g++ (-x c++ -DFASTCTC_EMULATED_CUDA) and runs its kernels on the
// CPU.
//
//   CUDA thread    a fiber; it runs until it meets a barrier or a warp collective, then another is chosen
//   block          blocks run one after another; each has fresh shared memory filled with NaN (bytes 0xff)
//   order          FASTCTC_EMULATION_ORDER: 0 lowest thread first, 1 highest first, else seed of a random
//   choice async copies   happen when they are waited for; until then the destination holds NaN
//
// launch() throws std::runtime_error on a divergent barrier, a lane missing from (or exited in) a *_sync
// mask, lanes that meet at different collectives, a shuffle from a lane outside the mask, copies never waited
// for, writes past the end of shared memory, spinning for ever, and impossible configurations.
// AddressSanitizer sees the exact bounds of shared memory. ThreadSanitizer sees each fiber as a thread,
// ordered only by
// __syncthreads, __syncwarp, fences and launches (not by shuffles or votes): it reports a missing barrier
// whatever the order.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#if !defined(__x86_64__) && !defined(FASTCTC_EMULATION_UCONTEXT)
#define FASTCTC_EMULATION_UCONTEXT
#endif
#ifdef FASTCTC_EMULATION_UCONTEXT
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// The emulator's own bookkeeping is shared by all fibers and must be invisible to ThreadSanitizer: functions
// that run on fibers are marked FASTCTC_UNTRACKED, whatever they call into the standard library is wrapped in
// Untracked.
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#define FASTCTC_UNTRACKED __attribute__((no_sanitize_thread))
#else
#define FASTCTC_UNTRACKED
#endif

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace fastctc::emulation {

constexpr unsigned kMaxThreads = 1024;          // per block
constexpr size_t kMaxSharedBytes = 227 * 1024;  // per block, as on sm_90
constexpr size_t kStackBytes = 256 * 1024;      // per fiber, committed when touched
constexpr size_t kPageBytes = 4096;
constexpr unsigned char kGarbage = 0xff;  // NaN as float or double, -1 as integer
constexpr unsigned kSpinLimit = 100000;   // rounds in which threads only yield

struct Untracked {
#ifdef __SANITIZE_THREAD__
  Untracked() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Untracked() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Untracked() {}
#endif
};

inline void happens_before(void* tag) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(tag);
#endif
  (void)tag;
}
inline void happens_after(void* tag) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(tag);
#endif
  (void)tag;
}

// 0, 1 or a seed: see the top of this file.
inline std::atomic<unsigned>& order() {
  static std::atomic<unsigned> value{[] {
    const char* text = std::getenv("FASTCTC_EMULATION_ORDER");
    return text ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : 0u;
  }()};
  return value;
}

// ---- fibers ---------------------------------------------------------------------------------------------------------

struct Context {
#ifdef FASTCTC_EMULATION_UCONTEXT
  ucontext_t registers;
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack_low = nullptr;
  size_t stack_bytes = 0;
  void* asan_fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

#ifndef FASTCTC_EMULATION_UCONTEXT
// Saves the callee-saved registers, stores the stack pointer through the first argument, continues on the
// second. glibc's swapcontext does the same plus a system call for the signal mask.
extern "C" void fastctc_emulation_switch(void** save, void* load);
asm(R"(
  .pushsection .text.fastctc_emulation_switch,"axG",@progbits,fastctc_emulation_switch,comdat
  .weak fastctc_emulation_switch
  .hidden fastctc_emulation_switch
  .type fastctc_emulation_switch,@function
fastctc_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size fastctc_emulation_switch,.-fastctc_emulation_switch
  .popsection
)");
#endif

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

  void launch(dim3 grid, dim3 block, size_t shared_bytes, void (*run)(void*), void* kernel);

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
  size_t dynamic_bytes_ = 0;
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

// ---- collectives ----------------------------------------------------------------------------------------------------

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

// ---- launching ------------------------------------------------------------------------------------------------------

inline void Emulator::prepare_threads() {
  while (pool_.size() < thread_count_) {
    Thread* thread = new Thread();
    void* memory = mmap(nullptr, kStackBytes + kPageBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kPageBytes, PROT_NONE);  // a stack overflow faults instead of writing elsewhere
    char* low = static_cast<char*>(memory) + kPageBytes;
    thread->stack_low = low;
    thread->stack_bytes = kStackBytes;
#ifdef FASTCTC_EMULATION_UCONTEXT
    getcontext(&thread->registers);
    thread->registers.uc_stack.ss_sp = low;
    thread->registers.uc_stack.ss_size = kStackBytes;
    thread->registers.uc_link = nullptr;
    makecontext(&thread->registers, thread_main, 0);
#else
    void** top = reinterpret_cast<void**>(low + kStackBytes);
    top[-1] = nullptr;  // where thread_main would return to
    top[-2] = reinterpret_cast<void*>(&thread_main);
    thread->stack_pointer = top - 8;  // six saved registers below
#endif
#ifdef __SANITIZE_THREAD__
    thread->tsan_fiber = __tsan_create_fiber(0);
#endif
    pool_.push_back(thread);
  }
  threads_ = pool_.data();
  for (unsigned i = 0; i < thread_count_; ++i) {
    Thread& thread = *threads_[i];
    thread.index = i;
    thread.lane = i % 32;
    thread.warp = i / 32;
    thread.thread_index = {i % block_size_.x, i / block_size_.x % block_size_.y, i / block_size_.x / block_size_.y};
  }
}

FASTCTC_UNTRACKED inline void Emulator::abandon_threads() {
#ifdef __SANITIZE_THREAD__
  // What the threads did so far happened before launch() throws: each one says so, without running.
  void* host = __tsan_get_current_fiber();
  for (size_t i = 0; i < pool_.size(); ++i) {
    __tsan_switch_to_fiber(pool_[i]->tsan_fiber, __tsan_switch_to_fiber_no_sync);
    happens_before(&exit_tag_);
    __tsan_switch_to_fiber(host, __tsan_switch_to_fiber_no_sync);
  }
  happens_after(&exit_tag_);
#endif
  Untracked scope;
  for (Thread* thread : pool_) {
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(thread->stack_low, kStackBytes);
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_destroy_fiber(thread->tsan_fiber);
#endif
    munmap(static_cast<char*>(const_cast<void*>(thread->stack_low)) - kPageBytes, kStackBytes + kPageBytes);
    delete thread;
  }
  pool_.clear();
}

inline std::string Emulator::describe_block() {
  char head[96];
  std::snprintf(head, sizeof head, " in block (%u, %u, %u):", block_index_.x, block_index_.y, block_index_.z);
  std::string text = head;
  for (unsigned first = 0, last; first < thread_count_; first = last + 1) {
    const std::string what = describe(*threads_[first]);
    for (last = first; last + 1 < thread_count_ && describe(*threads_[last + 1]) == what;) ++last;
    text += first == last ? "\n  thread " + std::to_string(first)
                          : "\n  threads " + std::to_string(first) + " to " + std::to_string(last);
    text += " " + what;
  }
  return text;
}

inline std::string Emulator::explain_deadlock() {
  for (unsigned i = 0; i < thread_count_; ++i) {
    const Thread& thread = *threads_[i];
    if (thread.state != State::kAtCollective) continue;
    for (unsigned lane = 0; lane < 32 && thread.warp * 32 + lane < thread_count_; ++lane)
      if ((thread.mask >> lane & 1) && threads_[thread.warp * 32 + lane]->state == State::kExited)
        return "a lane named in the mask of " + describe(thread.site) + " has exited";
    return "a lane named in the mask of " + describe(thread.site) + " never gets there";
  }
  return exited_ ? "divergent barrier: threads have exited while others wait"
                 : "divergent barrier: threads wait at different ones";
}

inline void Emulator::run_block() {
  {
    Untracked scope;
    block_ = new Block();
  }
  dynamic_shared_ = allocate_shared(this, dynamic_bytes_, 16)->data;
  exited_ = yielded_ = spins_ = ready_warps_ = sticky_warp_ = 0;
  std::fill(std::begin(ready_lanes_), std::end(ready_lanes_), 0u);  // a failed launch leaves some
  for (unsigned i = 0; i < thread_count_; ++i) make_ready(*threads_[i]);
  random_state_ = (order_ * 2654435761u) ^ ((block_index_.x + 1) * 40503u + block_index_.y * 977u + block_index_.z);
  if (!random_state_) random_state_ = 1;
  for (int i = 0; i < 8; ++i) random();
  change_rate_ = 1u << 3 * (random() % 4);  // 1: any thread next, ... 512: mostly the same warp

  schedule();
  try {
    if (failed_) {
      happens_after(&exit_tag_);
      std::rethrow_exception(exception_);
    }
  } catch (const Fault& fault) {
    throw std::runtime_error(std::string("emulated CUDA: ") + fault.what() + describe_block());
  }
  if (exited_ != thread_count_) throw std::runtime_error("emulated CUDA: " + explain_deadlock() + describe_block());

  size_t shared_bytes = 0;
  Untracked scope;
  for (SharedArray* array = block_->arrays; array; array = array->next) {
    shared_bytes += array->bytes;
    for (size_t i = 0; i < kCanaryBytes; ++i)
      if (array->data[array->bytes + i] != kCanary)
        throw std::runtime_error("emulated CUDA: written past the end of " + std::to_string(array->bytes) +
                                 " bytes of shared memory" + describe_block());
  }
  if (shared_bytes > kMaxSharedBytes)
    throw std::runtime_error("emulated CUDA: " + std::to_string(shared_bytes) + " bytes of shared memory");
}

inline void Emulator::release_block() {
  Untracked scope;
  if (!block_) return;
  while (SharedArray* array = block_->arrays) {
    block_->arrays = array->next;
    std::free(array->data);
    delete array;
  }
  for (Group*& first : block_->groups)
    while (Group* group = first) {
      first = group->next;
      delete group;
    }
  delete block_;
  block_ = nullptr;
}

inline void Emulator::launch(dim3 grid, dim3 block, size_t shared_bytes, void (*run)(void*), void* kernel) {
  if (active_) throw std::runtime_error("emulated CUDA: a kernel launches a kernel");
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64)
    throw std::runtime_error("emulated CUDA: a block of " + std::to_string(threads) + " threads");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw std::runtime_error("emulated CUDA: a grid of (" + std::to_string(grid.x) + ", " + std::to_string(grid.y) +
                             ", " + std::to_string(grid.z) + ") blocks");
  if (shared_bytes > kMaxSharedBytes)
    throw std::runtime_error("emulated CUDA: " + std::to_string(shared_bytes) + " bytes of shared memory");

  struct Launch {
    Emulator& self;
    explicit Launch(Emulator& self) : self(self) { self.active_ = true; }
    ~Launch() {
      self.release_block();
      if (self.exited_ != self.thread_count_ || self.failed_) self.abandon_threads();
      if (self.failed_) self.exception_ = nullptr;
      self.active_ = self.failed_ = false;
    }
  } guard(*this);
  grid_size_ = grid;
  block_size_ = block;
  dynamic_bytes_ = shared_bytes;
  run_ = run;
  kernel_ = kernel;
  thread_count_ = static_cast<unsigned>(threads);
  exited_ = 0;
  order_ = order();
#ifdef __SANITIZE_THREAD__
  host_.tsan_fiber = __tsan_get_current_fiber();
#endif
  prepare_threads();
  happens_before(&launch_tag_);
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index_ = {x, y, z};
        run_block();
        release_block();
      }
  happens_after(&exit_tag_);
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, const A&... arguments) {
  auto call = [&] { kernel(static_cast<P>(arguments)...); };
  emulator_of_this_thread().launch(
      grid, block, shared_bytes, [](void* function) { (*static_cast<decltype(call)*>(function))(); }, &call);
}

// The storage behind FASTCTC_SHARED_ARRAY; Key is a type that belongs to one declaration.
template <class Array, class Key>
Array& shared_array(Key) {
  static const char key = 0;
  return *static_cast<Array*>(emulator().static_shared(&key, sizeof(Array), alignof(Array)));
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

#include "cuda_names.h"

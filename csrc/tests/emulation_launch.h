// Blocks and launches of cuda_emulation.h. Only cuda_emulation.h includes this file.
#pragma once

#include <sys/mman.h>

#include "cuda_emulation.h"

namespace fastctc::emulation {

constexpr size_t kStackBytes = 256 * 1024;  // per fiber, committed when touched
constexpr size_t kPageBytes = 4096;

// ---- dynamic shared memory that a kernel may be given on a device
// -------------------------------------------------------

constexpr size_t kUnraised = ~size_t(0);  // as much as its static arrays leave of kUnraisedBytes

inline int& device_of_this_thread() {
  static thread_local int device = 0;
  return device;
}

struct DynamicLimits {
  std::mutex mutex;
  std::map<std::pair<const void*, int>, size_t> bytes;  // by kernel and device
};
inline DynamicLimits& dynamic_limits() {
  static DynamicLimits limits;
  return limits;
}
inline void set_dynamic_limit(const void* kernel, size_t bytes) {
  const std::lock_guard<std::mutex> lock(dynamic_limits().mutex);
  dynamic_limits().bytes[{kernel, device_of_this_thread()}] = bytes;
}
inline size_t dynamic_limit(const void* kernel) {
  const std::lock_guard<std::mutex> lock(dynamic_limits().mutex);
  const auto found = dynamic_limits().bytes.find({kernel, device_of_this_thread()});
  return found == dynamic_limits().bytes.end() ? kUnraised : found->second;
}

// ---- blocks and launches --------------------------------------------------------------------------------------------

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
  // What the threads have done happened before launch() throws. Each thread records that without running.
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

  check_shared_memory();
}

// Static arrays are known once a block has run: only then is it seen that the launch would have failed.
inline void Emulator::check_shared_memory() {
  size_t shared_bytes = 0;
  Untracked scope;
  for (SharedArray* array = block_->arrays; array; array = array->next) {
    shared_bytes += array->bytes;
    for (size_t i = 0; i < kCanaryBytes; ++i)
      if (array->data[array->bytes + i] != kCanary)
        throw std::runtime_error("emulated CUDA: written past the end of " + std::to_string(array->bytes) +
                                 " bytes of shared memory" + describe_block());
  }
  const size_t static_bytes = shared_bytes - dynamic_bytes_;
  const std::string amounts = std::to_string(static_bytes) + " static and ";
  if (dynamic_limit_ == kUnraised && shared_bytes > kUnraisedBytes)
    throw std::runtime_error("emulated CUDA: " + amounts + std::to_string(dynamic_bytes_) +
                             " dynamic bytes of shared memory are more than " + std::to_string(kUnraisedBytes) +
                             ", and the limit of the kernel on this device has not been raised");
  if (dynamic_limit_ != kUnraised && static_bytes + dynamic_limit_ > kMaxSharedBytes)
    throw std::runtime_error("emulated CUDA: " + amounts + "at most " + std::to_string(dynamic_limit_) +
                             " dynamic bytes of shared memory: a device has " + std::to_string(kMaxSharedBytes));
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

inline void Emulator::launch(dim3 grid, dim3 block, size_t shared_bytes, size_t dynamic_limit, void (*run)(void*),
                             void* kernel) {
  if (active_) throw std::runtime_error("emulated CUDA: a kernel launches a kernel");
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64)
    throw std::runtime_error("emulated CUDA: a block of " + std::to_string(threads) + " threads");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw std::runtime_error("emulated CUDA: a grid of (" + std::to_string(grid.x) + ", " + std::to_string(grid.y) +
                             ", " + std::to_string(grid.z) + ") blocks");
  if (shared_bytes > kMaxSharedBytes)
    throw std::runtime_error("emulated CUDA: " + std::to_string(shared_bytes) + " bytes of shared memory");
  if (dynamic_limit != kUnraised && shared_bytes > dynamic_limit)
    throw std::runtime_error("emulated CUDA: " + std::to_string(shared_bytes) +
                             " dynamic bytes of shared memory are more than the limit of the kernel, " +
                             std::to_string(dynamic_limit));

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
  dynamic_limit_ = dynamic_limit;
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
      grid, block, shared_bytes, dynamic_limit(reinterpret_cast<const void*>(kernel)),
      [](void* function) { (*static_cast<decltype(call)*>(function))(); }, &call);
}

}  // namespace fastctc::emulation

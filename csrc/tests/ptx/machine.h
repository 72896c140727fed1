// The machine that a translated kernel runs on. Kernels are shared libraries of their own, and this interface is all
// that they see of the emulator. machine.cpp implements it on the fibers of ../cuda_emulation.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastctc::ptx {

enum class Space { kGeneric, kGlobal, kShared, kLocal, kParam, kConst };

// One CUDA thread, as special registers show it.
struct Thread {
  uint32_t thread[3], block[3], block_size[3], grid_size[3];
  uint32_t lane, warp;
  uint64_t shared;          // the address of the static shared memory; shared addresses fit 32 bits
  uint64_t dynamic_shared;  // and of the dynamic one
  uint32_t block_threads() const { return block_size[0] * block_size[1] * block_size[2]; }
};

// `line` counts from the brace that opens a kernel in its PTX.
class Machine {
 public:
  virtual ~Machine() = default;
  // Called once by each thread, at its start.
  virtual Thread thread() = 0;
  // Throws unless the access is aligned and in bounds.
  virtual void check(Space space, uint64_t address, uint32_t bytes, bool writes, uint32_t line) = 0;
  // Publishes `value` to the lanes of `mask`, waits for them, returns what each of them published.
  virtual const uint64_t* meet(uint32_t mask, uint64_t value, const char* opcode, uint32_t line,
                               bool orders_memory) = 0;
  // Waits for `threads` of the block, returns how many of them voted.
  virtual uint32_t barrier(uint32_t id, uint32_t threads, bool vote, const char* opcode, uint32_t line) = 0;
  // One's own value where `source` is one's own lane; throws where it is not in `mask`.
  virtual uint32_t shuffle(uint32_t mask, uint32_t value, uint32_t source, const char* opcode, uint32_t line) = 0;
  virtual void async_copy(uint64_t shared, uint64_t global, uint32_t bytes, uint32_t line) = 0;
  virtual void async_commit() = 0;
  virtual void async_wait(uint32_t pending_groups) = 0;
  virtual void fence() = 0;
  virtual void yield() = 0;
  [[noreturn]] virtual void fail(const char* why) = 0;
};

// What the library of a kernel exports, as `fastctc_ptx_kernel`.
struct Kernel {
  // `arguments` has the address of each parameter.
  void (*run)(Machine& m, const Thread& at, unsigned char* const* arguments);
  uint64_t static_shared_bytes;
  uint32_t max_threads;  // of a block
  uint32_t* approximation_seed;
};

// Runs a kernel on the emulator of this host thread. `name` is for reports, and stays where it is.
struct Launch {
  const Kernel* kernel;
  const char* name;
  uint32_t grid[3], block[3];
  unsigned char* const* arguments;
  size_t dynamic_shared_bytes;
};
void run(const Launch& launch);

// The order in which threads run from now on, as FASTCTC_EMULATION_ORDER: see ../cuda_emulation.h.
void set_thread_order(uint32_t order);
// Whether AddressSanitizer is there, which has the bounds of global memory.
bool bounds_global_memory();

}  // namespace fastctc::ptx

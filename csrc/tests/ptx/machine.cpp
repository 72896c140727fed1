// The machine of translated kernels on the fibers of ../cuda_emulation.h, and the bounds of what they access.
#include "machine.h"

#include <sys/mman.h>

#include "../cuda_emulation.h"

namespace fastctc::ptx {
namespace {

using emulation::Emulator;

constexpr size_t kRounding = 16;

size_t rounded_up(size_t bytes) { return (bytes + kRounding - 1) / kRounding * kRounding; }

// The shared memory of the block that runs. It lies below 4 GB, so that its addresses fit registers of 32 bits.
class SharedMemory {
 public:
  static SharedMemory& of_this_thread() {
    static thread_local SharedMemory memory;
    return memory;
  }
  ~SharedMemory() { munmap(base_, kBytes); }

  void resize(size_t fixed, size_t dynamic) { fixed_ = rounded_up(fixed), bytes_ = fixed_ + dynamic; }
  void fill_with_garbage() { std::memset(base_, emulation::kGarbage, bytes_); }
  uint64_t fixed() const { return reinterpret_cast<uint64_t>(base_); }
  uint64_t dynamic() const { return fixed() + fixed_; }
  bool has(uint64_t address, size_t bytes) const { return address >= fixed() && address + bytes <= fixed() + bytes_; }
  // Where no other memory lies.
  bool owns(uint64_t address) const { return address >= fixed() && address < fixed() + kBytes; }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kBytes = 512 * 1024;

  SharedMemory() {
    void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<unsigned char*>(memory);
  }

  unsigned char* base_;
  size_t fixed_ = 0, bytes_ = 0;
};

class EmulatedMachine : public Machine {
 public:
  EmulatedMachine(const Launch& launch, Emulator& emulator)
      : launch_(launch), emulator_(emulator), shared_(SharedMemory::of_this_thread()) {
    shared_.resize(launch.kernel->static_shared_bytes, launch.dynamic_shared_bytes);
  }

  void run_thread() { launch_.kernel->run(*this, thread(), launch_.arguments); }

  Thread thread() override {
    const uint3 block = emulator_.block_index();
    if (!started_ || block.x != block_.x || block.y != block_.y || block.z != block_.z) shared_.fill_with_garbage();
    started_ = true;
    block_ = block;
    const emulation::Thread& me = emulator_.current();
    const dim3 size = emulator_.block_size(), grid = emulator_.grid_size();
    return {{me.thread_index.x, me.thread_index.y, me.thread_index.z},
            {block.x, block.y, block.z},
            {size.x, size.y, size.z},
            {grid.x, grid.y, grid.z},
            me.lane,
            me.warp,
            shared_.fixed(),
            shared_.dynamic()};
  }

  void check(Space space, uint64_t address, uint32_t bytes, bool writes, uint32_t line) override {
    if (address % bytes) fail_access("a misaligned", address, bytes, writes, line);
    if (space == Space::kShared || (space == Space::kGeneric && shared_.owns(address))) {
      if (!shared_.has(address, bytes)) {
        const std::string where = "beyond the " + std::to_string(shared_.bytes()) + " bytes of shared memory, a";
        fail_access(where.c_str(), address - shared_.fixed(), bytes, writes, line);
      }
    } else if (space == Space::kGlobal && shared_.owns(address)) {
      fail_access("in shared memory, a global", address, bytes, writes, line);
    } else if (space == Space::kLocal) {
      check_local(address, bytes, writes, line);
    }
#ifdef __SANITIZE_ADDRESS__
    if (__asan_region_is_poisoned(reinterpret_cast<void*>(address), bytes))
      fail_access("out of bounds, a", address, bytes, writes, line);
#endif
  }

  const uint64_t* meet(uint32_t mask, uint64_t value, const char* opcode, uint32_t line, bool orders_memory) override {
    return emulator_.meet(mask, value, site(opcode, line), orders_memory);
  }
  uint32_t barrier(uint32_t id, uint32_t threads, bool vote, const char* opcode, uint32_t line) override {
    if (id > 15 || threads % 32 || threads > emulator_.block_threads())
      if (id > 15 || threads != emulator_.block_threads())
        fail(("barrier " + std::to_string(id) + " of " + std::to_string(threads) + " threads").c_str());
    return emulator_.wait_at_barrier(id, threads, vote, site(opcode, line));
  }
  uint32_t shuffle(uint32_t mask, uint32_t value, uint32_t source, const char* opcode, uint32_t line) override {
    return emulation::shuffle<uint32_t>(mask, value, source, site(opcode, line));
  }
  void async_copy(uint64_t shared, uint64_t global, uint32_t bytes, uint32_t line) override {
    check(Space::kShared, shared, bytes, true, line);
    check(Space::kGlobal, global, bytes, false, line);
    emulator_.async_copy(reinterpret_cast<void*>(shared), reinterpret_cast<const void*>(global), bytes);
  }
  void async_commit() override { emulator_.async_commit(); }
  void async_wait(uint32_t pending_groups) override { emulator_.async_wait(pending_groups); }
  void fence() override { emulator_.fence(); }
  void yield() override { emulator_.yield(); }
  [[noreturn]] void fail(const char* why) override { emulator_.fail(std::string(why) + " in " + launch_.name); }

 private:
  emulation::Site site(const char* opcode, uint32_t line) const { return {opcode, launch_.name, int(line)}; }

  // Local memory is the stack of the fiber.
  void check_local(uint64_t address, uint32_t bytes, bool writes, uint32_t line) {
    const emulation::Thread& me = emulator_.current();
    const uint64_t low = reinterpret_cast<uint64_t>(me.stack_low);
    if (address < low || address + bytes > low + me.stack_bytes)
      fail_access("outside of local memory, a local", address, bytes, writes, line);
  }

  [[noreturn]] void fail_access(const char* what, uint64_t address, uint32_t bytes, bool writes, uint32_t line) {
    char text[64];
    std::snprintf(text, sizeof text, " %s of %u bytes at 0x%llx, line %u", writes ? "write" : "read", bytes,
                  static_cast<unsigned long long>(address), line);
    EmulatedMachine::fail((what + std::string(text)).c_str());
  }

  const Launch& launch_;
  Emulator& emulator_;
  SharedMemory& shared_;
  bool started_ = false;
  uint3 block_{};
};

}  // namespace

void set_thread_order(uint32_t order) { emulation::order() = order; }

bool bounds_global_memory() {
#ifdef __SANITIZE_ADDRESS__
  return true;
#else
  return false;
#endif
}

void run(const Launch& launch) {
  Emulator& emulator = emulation::emulator_of_this_thread();
  EmulatedMachine machine(launch, emulator);
  emulator.launch(
      dim3(launch.grid[0], launch.grid[1], launch.grid[2]), dim3(launch.block[0], launch.block[1], launch.block[2]), 0,
      emulation::kUnraised, [](void* machine) { static_cast<EmulatedMachine*>(machine)->run_thread(); }, &machine);
}

}  // namespace fastctc::ptx

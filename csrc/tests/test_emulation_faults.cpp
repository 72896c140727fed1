// The faults of a kernel that the emulator reports by itself, in every thread order, and those of its memory. See
// test_cuda_emulation.cpp.
#include <cmath>
#include <stdexcept>
#include <vector>

#include "emulation_orders.h"

namespace {

using namespace fastctc::cuda;
using namespace fastctc::testing;

// ---- faults that launch() reports -----------------------------------------------------------------------------------

__global__ void divergent_barrier() {
  if (threadIdx.x < 40) __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void barrier_in_a_divergent_loop() {
  for (unsigned i = 0; i <= threadIdx.x / 32; ++i) __syncthreads();
}
__global__ void half_warp_mask(int* out) { out[threadIdx.x] = __shfl_xor_sync(0xffffu, int(threadIdx.x), 1); }
__global__ void lanes_never_come(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(~0u, int(threadIdx.x), 1);
  __syncthreads();
}
__global__ void lane_has_exited(int* out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_xor_sync(~0u, int(threadIdx.x), 1);
}
__global__ void source_outside_the_mask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, int(threadIdx.x), 16);
}
__global__ void different_collectives(int* out) {
  out[threadIdx.x] = threadIdx.x < 16 ? __any_sync(~0u, 1) : __all_sync(~0u, 1);
}
__global__ void partial_warp_reads_missing_lane(int* out) {
  out[threadIdx.x] = __shfl_down_sync(~0u, int(threadIdx.x), 1);
}
__global__ void wait_for_a_flag(volatile int* flag) {
  while (!*flag) __nanosleep(100);
}
__global__ void traps() { __trap(); }

TEST(divergent_barriers_are_found) {
  check_fault_found([] { launch(divergent_barrier, 1, 64, 0, nullptr); }, "divergent barrier: threads have exited");
  check_fault_found([] { launch(two_barriers, 1, 64, 0, nullptr); }, "threads meet at different barriers");
  check_fault_found([] { launch(barrier_in_a_divergent_loop, 1, 64, 0, nullptr); }, "divergent barrier");
}

TEST(wrong_masks_are_found) {
  std::vector<int> out(64);
  int* p = out.data();
  check_fault_found([=] { launch(half_warp_mask, 1, 32, 0, nullptr, p); }, "missing from the mask");
  check_fault_found([=] { launch(lanes_never_come, 1, 32, 0, nullptr, p); }, "never gets there");
  check_fault_found([=] { launch(lane_has_exited, 1, 32, 0, nullptr, p); }, "has exited");
  check_fault_found([=] { launch(source_outside_the_mask, 1, 32, 0, nullptr, p); }, "reads lane 16, which is not");
  check_fault_found([=] { launch(different_collectives, 1, 32, 0, nullptr, p); }, "meet at different collectives");
  check_fault_found([=] { launch(partial_warp_reads_missing_lane, 1, 20, 0, nullptr, p); }, "reads lane 20");
}

TEST(reports_say_where) {
  std::vector<int> out(64);
  auto run = [&] { launch(lane_has_exited, dim3(3, 2), 32, 0, nullptr, out.data()); };
  CHECK_THROWS(run(), "in block (0, 0, 0)");
  CHECK_THROWS(run(), "thread 7 exited");
  CHECK_THROWS(run(), "threads 8 to 31 waits with mask 0xffffffff: __shfl_xor_sync (");
  CHECK_THROWS(run(), "test_emulation_faults.cpp:");
}

TEST(endless_spinning_and_traps_are_found) {
  int flag = 0;
  CHECK_THROWS(launch(wait_for_a_flag, 1, 2, 0, nullptr, &flag), "spin for ever");
  CHECK_THROWS(launch(traps, 1, 2, 0, nullptr), "__trap()");
}

TEST(impossible_configurations_are_found) {
  CHECK_THROWS(launch(traps, 1, 1025, 0, nullptr), "a block of 1025 threads");
  CHECK_THROWS(launch(traps, 1, dim3(32, 32, 2), 0, nullptr), "a block of 2048 threads");
  CHECK_THROWS(launch(traps, dim3(1, 65536), 32, 0, nullptr), "a grid of (1, 65536, 1) blocks");
  CHECK_THROWS(launch(traps, 1, 32, 228 * 1024, nullptr), "233472 bytes of shared memory");
}

__global__ void throws() {
  if (threadIdx.x == 3) throw std::invalid_argument("thrown by thread 3");
  __syncthreads();
}
TEST(exceptions_leave_the_kernel) { CHECK_THROWS(launch(throws, 1, 64, 0, nullptr), "thrown by thread 3"); }

// ---- memory ---------------------------------------------------------------------------------------------------------

__global__ void shared_memory_is_garbage(int* nan) {
  FASTCTC_SHARED_ARRAY(float, fixed, [8]);
  *nan = std::isnan(fixed[threadIdx.x]) && std::isnan(dynamic_shared<double>()[threadIdx.x]);
  fixed[threadIdx.x] = 1;
  dynamic_shared<double>()[threadIdx.x] = 1;
}

TEST(shared_memory_is_garbage_in_every_block) {
  int nan = 0;
  launch(shared_memory_is_garbage, 3, 1, 64, nullptr, &nan);
  CHECK(nan == 1);
}

__global__ void write_shared(int index) {
  if (threadIdx.x == 0) dynamic_shared<float>()[index] = 1;
}
__global__ void read_fixed(int index, float* out) {
  FASTCTC_SHARED_ARRAY(float, fixed, [16]);
  const float* p = &fixed[0];
  *out = p[index];
}

TEST(shared_overflow_is_found) {
  launch(write_shared, 1, 32, 12, nullptr, 2);
  if (kAddressSanitizer) {
    float out;
    CHECK(dies([] { launch(write_shared, 1, 32, 12, nullptr, 3); }));
    CHECK(dies([&] { launch(read_fixed, 1, 1, 0, nullptr, 16, &out); }));
  } else {
    CHECK_THROWS(launch(write_shared, 1, 32, 12, nullptr, 3), "written past the end of 12 bytes of shared memory");
  }
}

template <int kStatic>
__global__ void use_shared_memory() {
  FASTCTC_SHARED_ARRAY(char, fixed, [kStatic]);
  fixed[threadIdx.x] = 1;
}
template <int kStatic>
void raise_limit(size_t bytes) {
  const auto kernel = reinterpret_cast<const void*>(use_shared_memory<kStatic>);
  const int limit = int(bytes);
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit) == cudaSuccess);
}

TEST(static_and_dynamic_shared_memory_count_together) {
  constexpr int k48 = 48 * 1024;
  const auto run = [](size_t dynamic) { launch(use_shared_memory<512>, 1, 32, dynamic, nullptr); };
  run(k48 - 512);
  CHECK_THROWS(run(k48 - 511), "512 static and 48641 dynamic bytes of shared memory are more than 49152");
  CHECK_THROWS(launch(use_shared_memory<k48 + 16>, 1, 32, 0, nullptr), "49168 static and 0 dynamic bytes");
}

TEST(a_raised_limit_is_of_one_kernel_and_one_device) {
  const auto run = [](size_t dynamic) { launch(use_shared_memory<256>, 1, 32, dynamic, nullptr); };
  CHECK_THROWS(run(49000), "has not been raised");
  raise_limit<256>(60000);
  run(60000);
  CHECK_THROWS(run(60001), "60001 dynamic bytes of shared memory are more than the limit of the kernel, 60000");
  raise_limit<256>(50000);
  CHECK_THROWS(run(60000), "more than the limit of the kernel, 50000");
  CHECK_THROWS(launch(use_shared_memory<128>, 1, 32, 60000, nullptr), "has not been raised");
  cudaSetDevice(1);
  CHECK_THROWS(run(50000), "has not been raised");
  cudaSetDevice(0);
  run(50000);
}

TEST(a_limit_leaves_room_for_static_shared_memory) {
  raise_limit<1040>(fastctc::emulation::kMaxSharedBytes - 1024);
  CHECK_THROWS(launch(use_shared_memory<1040>, 1, 32, 0, nullptr), "1040 static and at most 100352 dynamic bytes");
  const auto kernel = reinterpret_cast<const void*>(use_shared_memory<1040>);
  const int more = int(fastctc::emulation::kMaxSharedBytes) + 1;
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, more) == cudaErrorInvalidValue);
}

__global__ void write_global(int* out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 1; }

TEST(global_overflow_is_found_by_address_sanitizer) {
  std::vector<int> out(63);
  if (kAddressSanitizer) CHECK(dies([&] { launch(write_global, 2, 32, 0, nullptr, out.data()); }));
}

__global__ void same_place_from_every_block(float* out) {
  if (threadIdx.x == blockIdx.x) *out = 1;
}

TEST(race_between_blocks_is_found_by_thread_sanitizer) {
  Quiet quiet;
  float out = 0;
  const int races = races_reported;
  launch(same_place_from_every_block, 2, 32, 0, nullptr, &out);
  CHECK(!kThreadSanitizer || races_reported > races);
}

__global__ void recurse(int depth, volatile int* out) {
  char frame[256];
  std::memset(frame, depth, sizeof frame);
  out[0] = frame[out[0] & 255];
  if (depth > 0) recurse(depth - 1, out);
  out[0] = frame[out[0] & 255];
}

TEST(deep_stacks_fit) {
  int out = 0;
  launch(recurse, 1, 1, 0, nullptr, 100, &out);
}

}  // namespace

TEST_MAIN()

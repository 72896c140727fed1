// Faults planted into kernels, which the machine of translated PTX must find.
#include "device_tests.h"

namespace {

using namespace fastctc;
using namespace fastctc::cuda;
using namespace fastctc::testing;

// ---- alignment ------------------------------------------------------------------------------------------------------

__global__ void read_four(const float* from, float* to) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  *to = four.x + four.w;
}
__global__ void write_two(double* to) { *reinterpret_cast<double2*>(to) = {1, 2}; }
__global__ void copy_sixteen(const float* from, float* to) {
  float* const shared = dynamic_shared<float>();
  async_copy<16>(shared, from);
  async_commit();
  async_wait<0>();
  *to = shared[0];
}

TEST(unaligned_accesses_are_found) {
  alignas(16) float from[12] = {};
  alignas(16) double to[4];
  float sum = -1;
  start(read_four, 1, 1, 0, from + 4, &sum);
  CHECK(sum == 0);
  check_fault_found([&] { start(read_four, 1, 1, 0, from + 1, &sum); }, "a misaligned read of 16 bytes");
  start(write_two, 1, 1, 0, to + 2);
  CHECK(to[2] == 1 && to[3] == 2);
  check_fault_found([&] { start(write_two, 1, 1, 0, to + 1); }, "a misaligned write of 16 bytes");
  start(copy_sixteen, 1, 1, 16, from, &sum);
  check_fault_found([&] { start(copy_sixteen, 1, 1, 16, from + 2, &sum); }, "a misaligned read of 16 bytes");
}

// ---- bounds ---------------------------------------------------------------------------------------------------------

__global__ void write_dynamic(int index) { dynamic_shared<float>()[index] = 1; }
__global__ void read_fixed(int index, float* out) {
  FASTCTC_SHARED_ARRAY(float, fixed, [16]);
  fixed[threadIdx.x] = 1;
  __syncthreads();
  *out = fixed[index];
}
__global__ void add_atomically(int index) { atomicAdd(dynamic_shared<int>() + index, 1); }
__global__ void global_access_to_shared_memory(float* out) {
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(*out) : "l"(dynamic_shared<float>()));
}

TEST(accesses_beyond_shared_memory_are_found) {
  float out = 0;
  start(write_dynamic, 1, 1, 12, 2);
  start(read_fixed, 1, 16, 0, 15, &out);
  check_fault_found([] { start(write_dynamic, 1, 1, 12, 3); }, "beyond the 12 bytes of shared memory, a write");
  check_fault_found([] { start(write_dynamic, 1, 1, 12, -1); }, "a write of 4 bytes");
  check_fault_found([&] { start(read_fixed, 1, 16, 0, 16, &out); }, "beyond the 64 bytes of shared memory");
  check_fault_found([] { start(add_atomically, 1, 1, 12, 3); }, "beyond the 12 bytes of shared memory, a read");
  check_fault_found([&] { start(global_access_to_shared_memory, 1, 1, 64, &out); }, "in shared memory");
}

__global__ void write_global(int* out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 1; }
__global__ void read_global(const int* from, int* out) { *out = from[-1]; }

TEST(global_accesses_out_of_bounds_are_found_by_address_sanitizer) {
  std::vector<int> memory(64);
  start(write_global, 2, 32, 0, memory.data());
  CHECK(memory[63] == 1);
  if (!ptx::bounds_global_memory()) return;
  std::vector<int> small(63);
  check_fault_found([&] { start(write_global, 2, 32, 0, small.data()); }, "out of bounds, a write of 4 bytes");
  check_fault_found([&] { start(read_global, 1, 1, 0, small.data(), memory.data()); }, "out of bounds, a read");
}

// ---- what a driver refuses ------------------------------------------------------------------------------------------

constexpr int kKilobyte = 1024;

__global__ void fill_both(int floats) {
  FASTCTC_SHARED_ARRAY(float, fixed, [4 * kKilobyte / 4]);
  for (int i = 0; i < floats; ++i) dynamic_shared<float>()[i] = 1;
  for (int i = 0; i < kKilobyte; ++i) fixed[i] = dynamic_shared<float>()[i % floats];
  if (fixed[floats % kKilobyte] != 1) __trap();
}
__global__ void __launch_bounds__(64) bounded(int* out) { *out = 1; }

cudaError_t fill(int bytes) { return start(fill_both, 1, 1, size_t(bytes), bytes / 4); }
cudaError_t opt_in(int bytes) {
  const void* const kernel = reinterpret_cast<const void*>(fill_both);
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

TEST(more_than_48_kilobytes_of_shared_memory_need_an_opt_in) {
  CHECK(fill(44 * kKilobyte) == cudaSuccess);
  CHECK(fill(44 * kKilobyte + 4) == cudaErrorInvalidValue);  // the static 4 KB count
  CHECK(std::string(cudaGetErrorString(cudaErrorInvalidValue)).find("4096 static and 45060") != std::string::npos);
  CHECK(opt_in(60 * kKilobyte) == cudaSuccess);
  CHECK(fill(60 * kKilobyte) == cudaSuccess);
  CHECK(fill(60 * kKilobyte + 4) == cudaErrorInvalidValue);
  CHECK(opt_in(96 * kKilobyte) == cudaErrorInvalidValue);  // more than the 99 KB that every GPU from sm_80 on has
}

TEST(blocks_above_the_launch_bounds_are_refused) {
  int out = 0;
  CHECK(start(bounded, 1, 64, 0, &out) == cudaSuccess);
  CHECK(start(bounded, 1, 65, 0, &out) == cudaErrorInvalidValue);
}

// ---- order ----------------------------------------------------------------------------------------------------------

template <bool waits>
__global__ void reverse(int* x) {
  int* const shared = dynamic_shared<int>();
  shared[threadIdx.x] = x[threadIdx.x];
  if (waits) __syncthreads();
  x[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
template <bool waits>
bool reverses() {
  std::vector<int> x(96);
  for (int i = 0; i < 96; ++i) x[i] = i;
  start(reverse<waits>, 1, 96, 96 * sizeof(int), x.data());
  for (int i = 0; i < 96; ++i)
    if (x[i] != 95 - i) return false;
  return true;
}
template <bool waits>
__global__ void reverse_in_a_warp(int* x) {
  FASTCTC_SHARED_ARRAY(int, shared, [32]);
  shared[threadIdx.x] = x[threadIdx.x];
  if (waits) __syncwarp();
  x[threadIdx.x] = shared[31 - threadIdx.x];
}
template <bool waits>
bool reverses_in_a_warp() {
  std::vector<int> x(32);
  for (int i = 0; i < 32; ++i) x[i] = i;
  start(reverse_in_a_warp<waits>, 1, 32, 0, x.data());
  return x[0] == 31 && x[31] == 0 && x[16] == 15;
}

TEST(missing_barriers_are_found) {
  in_every_order([] { CHECK(reverses<true>() && reverses_in_a_warp<true>()); });
  check_race_found(reverses<false>);
  check_race_found(reverses_in_a_warp<false>);
}

template <bool waits>
__global__ void add_copied(const float* from, float* to) {
  float* const shared = dynamic_shared<float>();
  async_copy<4>(shared + threadIdx.x, from + threadIdx.x);
  async_commit();
  if (waits) async_wait<0>();
  to[threadIdx.x] = shared[threadIdx.x];
  async_wait<0>();
}

TEST(missing_waits_for_copies_are_found) {
  const std::vector<float> from = {1, 2, 3, 4};
  std::vector<float> to(4);
  start(add_copied<true>, 1, 4, 16, from.data(), to.data());
  CHECK(to[3] == 4);
  in_every_order([&] {
    start(add_copied<false>, 1, 4, 16, from.data(), to.data());
    CHECK(std::isnan(to[0]) && std::isnan(to[3]));
  });
}

__global__ void shared_memory_is_garbage(int* nan) {
  *nan = std::isnan(dynamic_shared<double>()[threadIdx.x]);
  dynamic_shared<double>()[threadIdx.x] = 1;
}

TEST(shared_memory_is_garbage_in_every_block) {
  int nan = 0;
  start(shared_memory_is_garbage, 3, 1, 64, &nan);
  CHECK(nan == 1);
}

// ---- collectives ----------------------------------------------------------------------------------------------------

__global__ void divergent_barrier() {
  if (threadIdx.x < 40) __syncthreads();
}
__global__ void half_warp_mask(int* out) { out[threadIdx.x] = __shfl_xor_sync(0xffffu, int(threadIdx.x), 1); }
__global__ void lane_has_exited(int* out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_xor_sync(~0u, int(threadIdx.x), 1);
}
__global__ void source_outside_the_mask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, int(threadIdx.x), 16);
}
__global__ void lanes_never_come(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __ballot_sync(~0u, 1);
  __syncthreads();
}
__global__ void named_barrier_of_too_many() { named_barrier(1, 96); }
__global__ void traps() { __trap(); }

TEST(divergent_barriers_are_found) {
  check_fault_found([] { start(divergent_barrier, 1, 64, 0); }, "divergent barrier: threads have exited");
  check_fault_found([] { start(named_barrier_of_too_many, 1, 64, 0); }, "barrier 1 of 96 threads");
}

TEST(wrong_masks_are_found) {
  std::vector<int> out(64);
  int* p = out.data();
  check_fault_found([=] { start(half_warp_mask, 1, 32, 0, p); }, "missing from the mask");
  check_fault_found([=] { start(lane_has_exited, 1, 32, 0, p); }, "has exited");
  check_fault_found([=] { start(source_outside_the_mask, 1, 32, 0, p); }, "reads lane 16, which is not");
  check_fault_found([=] { start(lanes_never_come, 1, 32, 0, p); }, "never gets there");
}

TEST(reports_have_the_kernel_and_the_line_of_its_ptx) {
  std::vector<int> out(64);
  CHECK_THROWS(start(lane_has_exited, 1, 32, 0, out.data()), "shfl.sync.bfly.b32 (lane_has_exited:");
  CHECK_THROWS(start(write_dynamic, 1, 1, 12, 3), "line ");
  CHECK_THROWS(start(write_dynamic, 1, 1, 12, 3), "in write_dynamic");
  CHECK_THROWS(start(traps, 1, 1, 0), "trap in traps");
}

}  // namespace

TEST_MAIN()

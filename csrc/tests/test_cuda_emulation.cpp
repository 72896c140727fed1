// The emulator proves itself: correct kernels give correct results in every thread order, and faults planted into
// them are found. By what:
//
//   launch() throws, every build, every order
//       divergent barrier, barrier after an exit, lanes missing from or exited in a mask, half-warp mask, source lane
//       outside the mask, different collectives under one mask, copies never waited for, writes past the end of shared
//       memory, endless spinning, impossible configurations
//   NaN in the result, every build, every order
//       a copy read before its wait, shared memory that nobody wrote
//   wrong result in some thread order
//       missing __syncthreads, missing __syncwarp, one buffer where two are needed, lost update without atomics
//   ThreadSanitizer, every order
//       those four; a shuffle taken for a barrier (right by luck in every order); two blocks at one address
//   AddressSanitizer
//       reads and writes past the end of shared and global memory
//
// Found by none: a race of two blocks between threads of the same index (blocks run one after another, thread i of all
// of them on one fiber); a flag protocol that lacks a __threadfence or a volatile but happens to be ordered by another
// fence; what inline PTX behind #ifdef does; anything about registers, bank conflicts and speed.
#include <thread>
#include <vector>

#include "emulation_orders.h"

namespace {

using namespace fastctc::cuda;
using namespace fastctc::testing;

// ---- block reduction ------------------------------------------------------------------------------------------------

template <bool kBarrier>
__global__ void block_sum(const float* x, int n, float* sums) {
  float* partial = dynamic_shared<float>();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  partial[threadIdx.x] = i < n ? x[i] : 0.f;
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (kBarrier) __syncthreads();
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

template <bool kBarrier>
bool block_sum_is_right() {
  const int n = 200, threads = 64, blocks = 4;
  std::vector<float> x(n), sums(blocks, -1.f);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i % 7);
  launch(block_sum<kBarrier>, blocks, threads, threads * sizeof(float), nullptr, x.data(), n, sums.data());
  bool right = true;
  for (int b = 0; b < blocks; ++b) {
    float expected = 0;
    for (int i = b * threads; i < std::min(n, (b + 1) * threads); ++i) expected += x[i];
    right &= sums[b] == expected;
  }
  return right;
}

TEST(block_sum) { check_correct(block_sum_is_right<true>); }
TEST(block_sum_without_barrier_is_found) { check_race_found(block_sum_is_right<false>); }

// ---- warp scan, and a handover through shared memory within a warp --------------------------------------------------

__global__ void warp_scan(const int* x, int* out) {
  const int lane = threadIdx.x % 32;
  int sum = x[threadIdx.x];
  for (int d = 1; d < 32; d *= 2) {
    const int below = __shfl_up_sync(~0u, sum, d);
    if (lane >= d) sum += below;
  }
  out[threadIdx.x] = sum;
}

bool warp_scan_is_right() {
  std::vector<int> x(96), out(96);
  for (int i = 0; i < 96; ++i) x[i] = i * i % 11;
  launch(warp_scan, 1, 96, 0, nullptr, x.data(), out.data());
  bool right = true;
  for (int i = 0, sum = 0; i < 96; ++i) {
    sum = i % 32 ? sum + x[i] : x[i];
    right &= out[i] == sum;
  }
  return right;
}

TEST(warp_scan) { check_correct(warp_scan_is_right); }

// Rotates values through shared memory. A shuffle in between orders nothing: only __syncwarp does.
enum class Between { kSyncWarp, kShuffle, kNothing };
template <Between between>
__global__ void rotate(int* out, int rounds) {
  FASTCTC_SHARED_ARRAY(int, box, [2][32]);
  int value = threadIdx.x;
  for (int r = 0; r < rounds; ++r) {
    box[r % 2][threadIdx.x] = value;
    if (between == Between::kSyncWarp) __syncwarp();
    if (between == Between::kShuffle) __shfl_sync(~0u, value, 0);
    value = box[r % 2][(threadIdx.x + 1) % 32];
  }
  out[threadIdx.x] = value;
}

template <Between between>
bool rotate_is_right() {
  std::vector<int> out(32);
  launch(rotate<between>, 1, 32, 0, nullptr, out.data(), 5);
  bool right = true;
  for (int i = 0; i < 32; ++i) right &= out[i] == (i + 5) % 32;
  return right;
}

TEST(rotate) { check_correct(rotate_is_right<Between::kSyncWarp>); }
TEST(rotate_without_syncwarp_is_found) { check_race_found(rotate_is_right<Between::kNothing>); }

TEST(shuffle_taken_for_a_barrier_is_found_by_thread_sanitizer) {
  Quiet quiet;
  const int races = races_reported;
  CHECK(rotate_is_right<Between::kShuffle>());  // on fibers, and mostly on a GPU: right by luck
  CHECK(!kThreadSanitizer || races_reported > races);
}

// ---- a pipeline of tiles --------------------------------------------------------------------------------------------

enum class Fault { kNone, kSingleBuffer, kNoBarrier, kNoWait, kNeverWaited };

// out[i] = the sum over tiles of x[tile][(i + tile) % kTile]; the next tile is on its way while this one is
// read.
constexpr int kTile = 64;
template <Fault fault>
__global__ void tile_sums(const float* x, int tiles, float* out) {
  constexpr int kBuffers = fault == Fault::kSingleBuffer ? 1 : 2;
  FASTCTC_SHARED_ARRAY(float, tile, [kBuffers][kTile]);
  const int i = threadIdx.x;
  float sum = 0;
  auto fetch = [&](int k) {
    if (k < tiles) async_copy<4>(&tile[k % kBuffers][i], x + k * kTile + i);
    async_commit();
  };
  fetch(0);
  for (int k = 0; k < tiles; ++k) {
    if (fault != Fault::kSingleBuffer) {
      __syncthreads();  // nobody reads the buffer of tile k - 1 any longer
      fetch(k + 1);
    }
    if (fault == Fault::kSingleBuffer) {
      async_wait<0>();
    } else if (fault != Fault::kNoWait) {
      async_wait<1>();
    }
    if (fault != Fault::kNoBarrier) __syncthreads();
    sum += tile[k % kBuffers][(i + k) % kTile];
    if (fault == Fault::kSingleBuffer) fetch(k + 1);
  }
  if (fault == Fault::kNeverWaited) fetch(0);
  if (fault == Fault::kNoWait) async_wait<0>();
  out[i] = sum;
}

template <Fault fault>
bool tile_sums_are_right() {
  const int tiles = 6;
  std::vector<float> x(tiles * kTile), out(kTile);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13);
  launch(tile_sums<fault>, 1, kTile, 0, nullptr, x.data(), tiles, out.data());
  bool right = true;
  for (int i = 0; i < kTile; ++i) {
    float expected = 0;
    for (int k = 0; k < tiles; ++k) expected += x[k * kTile + (i + k) % kTile];
    right &= out[i] == expected;
  }
  return right;
}

TEST(tile_pipeline) { check_correct(tile_sums_are_right<Fault::kNone>); }
TEST(tile_pipeline_with_one_buffer_is_found) { check_race_found(tile_sums_are_right<Fault::kSingleBuffer>); }
TEST(tile_pipeline_without_barrier_is_found) { check_race_found(tile_sums_are_right<Fault::kNoBarrier>); }
TEST(tile_pipeline_without_wait_is_found) {
  Quiet quiet;
  for (unsigned order : kOrders) {
    InOrder scope(order);
    CHECK(!tile_sums_are_right<Fault::kNoWait>());
  }
}
TEST(copy_never_waited_for_is_found) {
  check_fault_found(tile_sums_are_right<Fault::kNeverWaited>, "without waiting for its asynchronous copies");
}

// ---- atomics, votes, many blocks ------------------------------------------------------------------------------------

template <bool kAtomic>
__global__ void histogram(const int* x, int n, int* counts, float* total, int* largest) {
  FASTCTC_SHARED_ARRAY(int, local, [4]);
  if (threadIdx.x < 4) local[threadIdx.x] = 0;
  __syncthreads();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    if (kAtomic) {
      atomicAdd(&local[x[i] % 4], 1);
    } else {
      const int before = local[x[i] % 4];
      __syncwarp(__activemask());  // lets the others in: lost updates
      local[x[i] % 4] = before + 1;
    }
    atomicAdd(total, 0.5f);
    atomicMax(largest, x[i]);
  }
  __syncthreads();
  if (threadIdx.x < 4) atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

template <bool kAtomic>
bool histogram_is_right() {
  const int n = 1000;
  std::vector<int> x(n), counts(4, 0), expected(4, 0);
  for (int i = 0; i < n; ++i) expected[(x[i] = i * 7 % 101) % 4]++;
  float total = 0;
  int largest = -1;
  launch(histogram<kAtomic>, (n + 63) / 64, 64, 0, nullptr, x.data(), n, counts.data(), &total, &largest);
  return counts == expected && total == n * 0.5f && largest == 100;
}

TEST(histogram) { check_correct(histogram_is_right<true>); }
TEST(lost_update_is_found) { check_race_found(histogram_is_right<false>); }

__global__ void votes(int* out) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int ok = __ballot_sync(~0u, lane % 3 == 0) == 0x49249249u;
  ok &= __any_sync(~0u, lane == 31) && !__any_sync(~0u, 0);
  ok &= __all_sync(~0u, 1) && !__all_sync(~0u, lane != 5);
  ok &= __reduce_max_sync(~0u, lane ^ 5) == 31 && __reduce_add_sync(~0u, 2u) == 64;
  ok &= __reduce_min_sync(~0u, -lane) == -31;
  ok &= __match_any_sync(~0u, lane % 2) == (lane % 2 ? 0xaaaaaaaau : 0x55555555u);
  ok &= __shfl_xor_sync(~0u, double(lane), 3) == (lane ^ 3);
  ok &= __shfl_down_sync(~0u, lane, 4) == (lane < 28 ? lane + 4 : lane);
  ok &= __shfl_sync(~0u, lane, 1, 8) == lane / 8 * 8 + 1;
  ok &= __shfl_up_sync(~0u, lane, 1, 8) == (lane % 8 ? lane - 1 : lane);
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  ok &= __shfl_sync(half, lane, lane < 16 ? 3 : 20) == (lane < 16 ? 3 : 20);
  ok &= __syncthreads_count(warp == 0) == 32 && __syncthreads_or(warp == 1) && !__syncthreads_and(warp == 1);
  if (warp == 0) named_barrier(1, 32);
  ok &= __popc(7) == 3;
  out[threadIdx.x] = ok;
}

TEST(votes_shuffles_and_reductions) {
  check_correct([] {
    std::vector<int> out(64);
    launch(votes, 1, 64, 0, nullptr, out.data());
    return out == std::vector<int>(64, 1);
  });
}

// The last block to finish adds up what all have written: needs a fence, an atomic and a block-wide vote.
__global__ void sum_of_blocks(const float* x, float* partial, unsigned* finished, float* sum) {
  FASTCTC_SHARED_ARRAY(bool, last, [1]);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = 2 * x[blockIdx.x];
    __threadfence();
    last[0] = atomicAdd(finished, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last[0] && threadIdx.x == blockDim.x - 1) {
    float total = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];
    *sum = total;
  }
}

TEST(last_block_sums_up) {
  check_correct([] {
    std::vector<float> x(10, 1.5f), partial(10);
    unsigned finished = 0;
    float sum = 0;
    launch(sum_of_blocks, 10, 40, 0, nullptr, x.data(), partial.data(), &finished, &sum);
    return sum == 30;
  });
}

__global__ void grid_indices(int* out) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

TEST(every_thread_of_every_block_runs_once) {
  check_correct([] {
    std::vector<int> out(2 * 3 * 4 * 5 * 2 * 3);
    launch(grid_indices, dim3(2, 3, 4), dim3(5, 2, 3), 0, nullptr, out.data());
    return out == std::vector<int>(out.size(), 1);
  });
}

__global__ void divergent_barrier() {
  if (threadIdx.x < 40) __syncthreads();
}
TEST(the_emulator_works_after_faults) {
  CHECK_THROWS(launch(divergent_barrier, 1, 1024, 0, nullptr), "divergent barrier");
  CHECK(block_sum_is_right<true>());
}

TEST(several_host_threads_launch_at_once) {
  std::vector<char> right(4, 0);
  std::vector<std::thread> threads;
  for (char& r : right)
    threads.emplace_back([&r] { r = block_sum_is_right<true>() && tile_sums_are_right<Fault::kNone>(); });
  for (std::thread& thread : threads) thread.join();
  for (char r : right) CHECK(r);
}

}  // namespace

TEST_MAIN()

// Small kernels through nvcc and the translator, against the same computation on the host.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <random>

#include "device_tests.h"

namespace {

using namespace fastctc;
using namespace fastctc::cuda;
using namespace fastctc::testing;

constexpr int kThreads = 64;

template <class T, class F>
__global__ void apply_kernel(const T* a, const T* b, T* out, F f) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = f(a[i], b[i]);
}
// `f` on the machine and on the host, for random bits.
template <class T, class F>
void check_equal(F f, std::function<T(std::mt19937_64&)> draw) {
  std::mt19937_64 random(7);
  std::vector<T> a(4 * kThreads), b(a.size()), out(a.size());
  for (size_t i = 0; i < a.size(); ++i) a[i] = draw(random), b[i] = draw(random);
  CHECK(start(apply_kernel<T, F>, 4, kThreads, 0, a.data(), b.data(), out.data(), f) == cudaSuccess);
  for (size_t i = 0; i < a.size(); ++i) {
    const T expected = f(a[i], b[i]);
    CHECK(std::memcmp(&out[i], &expected, sizeof(T)) == 0 || (expected != expected && out[i] != out[i]));
  }
}

#define INTEGERS(name, T, expression)                                       \
  struct name {                                                             \
    __host__ __device__ T operator()(T a, T b) const { return expression; } \
  };
INTEGERS(Mixed32, int, (a * 7 + b) / ((b & 1023) + 1) - (a % ((b & 63) + 1)))
INTEGERS(Mixed64, long long, (a / ((b & 65535) + 1)) ^ (a % ((b & 255) + 1)) ^ (a * b))
INTEGERS(Shifted, unsigned, (a << (b & 31)) ^ (a >> (b & 15)) ^ ((a >> 3) & (b | 9)) ^ ~b)
INTEGERS(Signed, int, (a >> (b & 31)) + (a < b ? -a : b) + (a == b) + (short(a) * 3) + (signed char)(b))
INTEGERS(Wide, long long, (long long)(int(a)) * int(b) + (unsigned long long)(unsigned(a)) * unsigned(b))
INTEGERS(Floats, float, a* b + (a < b ? a : b) / (b * b + 1) - (a >= b ? floorf(a) : ceilf(b)))
INTEGERS(Doubles, double, a / (b * b + 1) + (a < b ? rint(a) : trunc(b)) + fmax(a, b) - fabs(a) + sqrt(a * a + b * b))
#undef INTEGERS

TEST(integers_equal_the_host) {
  const auto bits = [](std::mt19937_64& random) { return random(); };
  check_equal<int>(Mixed32(), bits);
  check_equal<long long>(Mixed64(), [](std::mt19937_64& random) { return (long long)(random() >> 8); });
  check_equal<unsigned>(Shifted(), bits);
  check_equal<int>(Signed(), [](std::mt19937_64& random) { return int(random() % 1000000) - 500000; });
  check_equal<long long>(Wide(), bits);
}

// The compilers contract products and sums differently, so values are integers of a few bits where that is exact.
TEST(floats_equal_the_host) {
  const auto small = [](std::mt19937_64& random) { return double(int(random() % 64) - 32) / 4; };
  check_equal<float>(Floats(), [=](std::mt19937_64& random) { return float(small(random)); });
  check_equal<double>(Doubles(), small);
}

// ---- warps ----------------------------------------------------------------------------------------------------------

__global__ void collectives(int* out) {
  const int lane = threadIdx.x & 31;
  int* const o = out + threadIdx.x * 12;
  o[0] = __shfl_up_sync(~0u, lane, 3);
  o[1] = __shfl_down_sync(~0u, lane, 3);
  o[2] = __shfl_xor_sync(~0u, lane, 5);
  o[3] = __shfl_sync(~0u, lane, 40);
  o[4] = __shfl_sync(~0u, lane, 3, 8);
  o[5] = __shfl_down_sync(~0u, lane, 3, 8);
  o[6] = int(__ballot_sync(~0u, lane % 3 == 0));
  o[7] = __any_sync(~0u, lane == 5) * 2 + __all_sync(~0u, lane < 32);
  o[8] = int(__match_any_sync(~0u, lane / 4));
  o[9] = __syncthreads_count(threadIdx.x < 40);
  o[10] = __syncthreads_or(threadIdx.x == 60) * 2 + (__syncthreads_and(threadIdx.x < 60) != 0);
  o[11] = int(__reduce_add_sync(~0u, unsigned(lane)));
}

TEST(collectives_do_what_they_are_named_for) {
  in_every_order([] {
    std::vector<int> out(kThreads * 12, -1);
    start(collectives, 1, kThreads, 0, out.data());
    for (int thread = 0; thread < kThreads; ++thread) {
      const int lane = thread % 32, *const o = out.data() + thread * 12;
      CHECK(o[0] == (lane < 3 ? lane : lane - 3) && o[1] == (lane < 29 ? lane + 3 : lane) && o[2] == (lane ^ 5));
      CHECK(o[3] == 8 && o[4] == lane / 8 * 8 + 3 && o[5] == (lane % 8 < 5 ? lane + 3 : lane));
      CHECK(unsigned(o[6]) == 0x49249249u && o[7] == 3 && unsigned(o[8]) == 0xfu << lane / 4 * 4);
      CHECK(o[9] == 40 && o[10] == 2 && o[11] == 496);
    }
  });
}

__global__ void atomics(int* counts, unsigned long long* sum, unsigned* largest) {
  atomicAdd(counts + threadIdx.x % 4, 1);
  atomicAdd(sum, 1ull << 33);
  atomicMax(largest, threadIdx.x * 5 % 64);
  if (atomicCAS(counts + 4, 0, int(threadIdx.x) + 1) == 0) counts[5] = int(threadIdx.x) + 1;
}

TEST(atomics_lose_nothing) {
  in_every_order([] {
    int counts[6] = {};
    unsigned long long sum = 0;
    unsigned largest = 0;
    start(atomics, 2, kThreads, 0, counts, &sum, &largest);
    CHECK(counts[0] == 32 && counts[3] == 32 && sum == 128ull << 33 && largest == 63 && counts[4] == counts[5]);
  });
}

// ---- memory ---------------------------------------------------------------------------------------------------------

struct Large {
  double values[9];
  int index;
};
FASTCTC_OUT_OF_LINE double called(Large large, const int* places, int i) {
  return large.values[places[i] + large.index];
}
__constant__ const double kTable[4] = {0.5, -1, 2.25, 1e300};

__global__ void functions_tables_and_local_memory(Large large, const int* places, double* out) {
  double local[8];
  for (int i = 0; i < 8; ++i) local[i] = called(large, places, i) + kTable[places[i] & 3];
  for (int i = 0; i < 8; ++i) out[i] = local[places[i]];
}

TEST(functions_tables_and_local_memory_work) {
  Large large{{1, 2, 3, 4, 5, 6, 7, 8, 9}, 1};
  const int places[8] = {3, 1, 4, 1, 5, 2, 6, 0};
  const double table[4] = {0.5, -1, 2.25, 1e300};
  double out[8];
  start(functions_tables_and_local_memory, 1, 1, 0, large, places, out);
  for (int i = 0; i < 8; ++i) {
    const int j = places[places[i]];
    CHECK(out[i] == large.values[j + 1] + table[j & 3]);
  }
}

__global__ void halves(const float* x, float* half, float* brain, unsigned char* bytes) {
  const unsigned i = threadIdx.x;
  half[i] = __half2float(__float2half_rn(x[i]));
  brain[i] = __bfloat162float(__float2bfloat16_rn(x[i]));
  bytes[i] = (unsigned char)(i * 3);
}

TEST(narrow_types_round) {
  std::vector<float> x(32), half(32), brain(32);
  std::vector<unsigned char> bytes(32);
  for (int i = 0; i < 32; ++i) x[i] = 1 + float(i) / 4096;
  start(halves, 1, 32, 0, x.data(), half.data(), brain.data(), bytes.data());
  for (int i = 0; i < 32; ++i) {
    CHECK(half[i] == __half2float(__float2half_rn(x[i])) && brain[i] == __bfloat162float(__float2bfloat16_rn(x[i])));
    CHECK(bytes[i] == i * 3);
  }
}

__global__ void grid(unsigned* out) {
  if (threadIdx.x || threadIdx.y || threadIdx.z) return;
  unsigned* const o = out + ((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * 2;
  o[0] = blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z;
  o[1] = blockDim.x + 10 * blockDim.y + 100 * blockDim.z;
}

TEST(grids_and_blocks_have_three_dimensions) {
  std::vector<unsigned> out(2 * 3 * 2 * 4);
  start(grid, dim3(2, 3, 4), dim3(4, 2, 3), 0, out.data());
  for (unsigned i = 0; i < 24; ++i)
    CHECK(out[2 * i] == i % 2 + 10 * (i / 2 % 3) + 100 * (i / 6) && out[2 * i + 1] == 324);
}

}  // namespace

TEST_MAIN()

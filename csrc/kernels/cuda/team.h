// The threads of a block that work on one thing together: running sums, reductions and sorting among them.
#pragma once

#include "lanes.h"

namespace fastctc {
namespace cuda {

// All threads of the block, which are one warp or several.
template <bool kOneWarp>
struct BlockTeam {
  static constexpr int kMaxWarps = 32;
  // What the warps tell each other, in shared memory.
  struct Exchange {
    double numbers[kMaxWarps];
    int counts[kMaxWarps];
  };

  static __device__ __forceinline__ int rank() { return int(threadIdx.x); }
  static __device__ __forceinline__ int size() { return kOneWarp ? kWarp : int(blockDim.x); }
  static __device__ __forceinline__ void sync() {
    if constexpr (kOneWarp) __syncwarp();
    if constexpr (!kOneWarp) __syncthreads();
  }
  static __device__ __forceinline__ bool any(bool x) {
    if constexpr (kOneWarp) return __any_sync(kFullWarp, x);
    if constexpr (!kOneWarp) return __syncthreads_or(x);
  }
  // How many threads say yes.
  static __device__ __forceinline__ int count(bool x) {
    if constexpr (kOneWarp) return __popc(__ballot_sync(kFullWarp, x));
    if constexpr (!kOneWarp) return __syncthreads_count(x);
  }
  // The sum of x of the threads before this one; and of all.
  static __device__ __forceinline__ int sum_before(int x, int& total, Exchange& shared) {
    int sum = x;
    for (int d = 1; d < kWarp; d *= 2) {
      const int below = from_lane_below(sum, d);
      if (lane_id() >= d) sum += below;
    }
    if constexpr (kOneWarp) {
      total = from_lane(sum, kWarp - 1);
      return sum - x;
    } else {
      __syncthreads();  // the last exchange has been read
      if (lane_id() == kWarp - 1) shared.counts[warp_id()] = sum;
      __syncthreads();
      int before = 0;
      total = 0;
      for (int w = 0; w < size() / kWarp; ++w) {
        if (w == warp_id()) before = total;
        total += shared.counts[w];
      }
      return before + sum - x;
    }
  }
  static __device__ __forceinline__ double min(double x, Exchange& shared) {
    x = -warp_max(-x);
    if constexpr (!kOneWarp) {
      __syncthreads();  // the last exchange has been read
      if (lane_id() == 0) shared.numbers[warp_id()] = x;
      __syncthreads();
      for (int w = 0; w < size() / kWarp; ++w) x = fmin(x, shared.numbers[w]);
    }
    return x;
  }
};

// Sorts n pairs, a power of two: larger values first, of equal ones the lower index. A bitonic network.
template <class Team, class Value>
__device__ __forceinline__ void sort_pairs(Value* value, int32_t* index, int n) {
  for (int run = 2; run <= n; run *= 2) {
    for (int d = run / 2; d > 0; d /= 2) {
      Team::sync();
      for (int i = Team::rank(); i < n / 2; i += Team::size()) {
        const int a = 2 * i - (i & (d - 1)), b = a + d;
        const Value x = value[a], y = value[b];
        const int32_t j = index[a], k = index[b];
        const bool wrong = y > x || (y == x && k < j), descending = (a & run) == 0;
        if (wrong != descending) continue;
        value[a] = y;
        value[b] = x;
        index[a] = k;
        index[b] = j;
      }
    }
  }
  Team::sync();
}

inline __host__ __device__ int64_t power_of_two_from(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

}  // namespace cuda
}  // namespace fastctc

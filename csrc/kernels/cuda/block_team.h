// The threads of a block that work on one thing together: running sums and reductions among them.
#pragma once

#include "lanes.h"

namespace fastctc {
namespace cuda {

// All threads of the block, which are one warp or several.
template <bool kOneWarp>
struct BlockTeam {
  static constexpr int kMaxWarps = 32;
  // What the warps exchange, in shared memory.
  struct Shared {
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
  // The number of threads whose x is true.
  static __device__ __forceinline__ int count(bool x) {
    if constexpr (kOneWarp) return __popc(__ballot_sync(kFullWarp, x));
    if constexpr (!kOneWarp) return __syncthreads_count(x);
  }
  // The sum of x of the threads before this one; and of all.
  static __device__ __forceinline__ int sum_before(int x, int& total, Shared& shared) {
    const int sum = warp_sum_up_to(x);
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
  static __device__ __forceinline__ double min(double x, Shared& shared) {
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

}  // namespace cuda
}  // namespace fastctc

// Sorting by the threads of a block.
#pragma once

#include "block_team.h"

namespace fastctc {
namespace cuda {

inline __host__ __device__ int64_t power_of_two_from(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

// A bitonic network over n items, a power of two. swap(a, b, in_order) is called for items a < b: it leaves them in
// order, or in the opposite order where in_order is false.
template <class Team, class Index, class Swap>
__device__ __forceinline__ void bitonic_sort(Index n, const Swap& swap) {
  for (Index run = 2; run <= n; run *= 2) {
    for (Index d = run / 2; d > 0; d /= 2) {
      Team::sync();
      for (Index i = Team::rank(); i < n / 2; i += Team::size()) {
        const Index a = 2 * i - (i & (d - 1));
        swap(a, a + d, (a & run) == 0);
      }
    }
  }
  Team::sync();
}

// Sorts n keys, the smallest first.
template <class Team, class Key>
__device__ __forceinline__ void sort_keys(Key* keys, int64_t n) {
  bitonic_sort<Team>(n, [=](int64_t a, int64_t b, bool in_order) {
    const Key x = keys[a], y = keys[b];
    if ((x > y) != in_order) return;
    keys[a] = y;
    keys[b] = x;
  });
}

// Sorts n pairs: larger values first, of equal values the lower index.
template <class Team, class Value>
__device__ __forceinline__ void sort_pairs(Value* value, int32_t* index, int n) {
  bitonic_sort<Team>(n, [=](int a, int b, bool in_order) {
    const Value x = value[a], y = value[b];
    const int32_t j = index[a], k = index[b];
    if ((y > x || (y == x && k < j)) != in_order) return;
    value[a] = y;
    value[b] = x;
    index[a] = k;
    index[b] = j;
  });
}

}  // namespace cuda
}  // namespace fastctc

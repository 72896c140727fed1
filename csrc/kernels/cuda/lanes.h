// A warp of lanes as a hardware warp. With launch.h the only place with warp intrinsics.
#pragma once

#include <cmath>
#include <cstdint>

#include "../../math/element.h"
#include "../../math/emission.h"
#include "../../math/scaled_float.h"
#include "launch.h"

namespace fastctc {
namespace cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kWarp = 32;

__device__ __forceinline__ int lane_id() { return int(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp_id() { return int(threadIdx.x) / kWarp; }

// The value of lane `source` modulo 32; of the lane whose number differs in the bits of `d`; of the lane d below.
template <class T>
__device__ __forceinline__ T from_lane(T x, int source) {
  return __shfl_sync(kFullWarp, x, source);
}
template <class T>
__device__ __forceinline__ T from_lane_across(T x, int d) {
  return __shfl_xor_sync(kFullWarp, x, d);
}
template <class T>
__device__ __forceinline__ T from_lane_below(T x, int d) {
  return __shfl_up_sync(kFullWarp, x, d);
}

// Reductions over a warp; every lane gets the result, in the same order on every run.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int d = kWarp / 2; d > 0; d /= 2) x += from_lane_across(x, d);
  return x;
}
// The sums of R values, in the order of warp_sum: lane l gets the sum of value l / (kWarp / R).
template <class T, int R>
__device__ __forceinline__ T warp_sums(T (&x)[R]) {
  int d = kWarp / 2;
#pragma unroll
  for (int n = R / 2; n > 0; n /= 2, d /= 2) {
    const bool upper = lane_id() & d;
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const T other = upper ? x[i] : x[i + n];
      x[i] = (upper ? x[i + n] : x[i]) + from_lane_across(other, d);
    }
  }
  T sum = x[0];
  for (; d > 0; d /= 2) sum += from_lane_across(sum, d);
  return sum;
}
// The sum over this lane and those below.
template <class T>
__device__ __forceinline__ T warp_sum_up_to(T x) {
  for (int d = 1; d < kWarp; d *= 2) {
    const T below = from_lane_below(x, d);
    if (lane_id() >= d) x += below;
  }
  return x;
}
template <class T>
__device__ __forceinline__ T warp_max(T x) {
  for (int d = kWarp / 2; d > 0; d /= 2) {
    const T y = from_lane_across(x, d);
    x = y > x ? y : x;
  }
  return x;
}

// The integer in the low bits of the mantissa, to where adding `round` + bias has moved it, as an exponent: 2^d.
__device__ __forceinline__ float power_of_two(float d) {
  return float_of(bits_of(fmaxf(d, -127.0f) + (12582912.0f + 127)) << 23);
}
__device__ __forceinline__ double power_of_two(double d) {
  const double biased = fmax(d, -1023.0) + (6755399441055744.0 + 1023);
  uint64_t bits;
  memcpy(&bits, &biased, 8);
  bits <<= 52;
  double x;
  memcpy(&x, &bits, 8);
  return x;
}
__device__ __forceinline__ float exponent_of(float x) { return float(int(bits_of(x) >> 23 & 255u) - 127); }
__device__ __forceinline__ double exponent_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, 8);
  return double(int(bits >> 52 & 2047u) - 1023);
}

// Slots run through the lanes of one register and then on in the next: slot = c * N + lane.
template <class S>
struct Lanes {
  using Scalar = S;
  using F = S;
  using M = bool;
  static constexpr int N = kWarp;
  static constexpr bool kSelectsToAdd = false;

  static __device__ __forceinline__ F set(S x) { return x; }
  static __device__ __forceinline__ S single(F x) { return x; }
  // The other operand where one is NaN.
  static __device__ __forceinline__ F max(F a, F b) {
    if constexpr (sizeof(S) == 4) return fmaxf(a, b);
    return fmax(a, b);
  }
  static __device__ __forceinline__ F min(F a, F b) {
    if constexpr (sizeof(S) == 4) return fminf(a, b);
    return fmin(a, b);
  }
  static __device__ __forceinline__ F round(F x) {
    if constexpr (sizeof(S) == 4) return rintf(x);
    return rint(x);
  }
  // Rounded once.
  static __device__ __forceinline__ F fma(F a, F b, F c) {
    if constexpr (sizeof(S) == 4) return fmaf(a, b, c);
    return ::fma(a, b, c);
  }
  static __device__ __forceinline__ F select(M m, F a, F b) { return m ? a : b; }
  static __device__ __forceinline__ M less(F a, F b) { return a < b; }
  static __device__ __forceinline__ M nonzero(F x) { return x != S(0); }
  static __device__ __forceinline__ F scale(F m, F d) { return m * power_of_two(d); }
  static __device__ __forceinline__ F exponent(F x) { return exponent_of(x); }
  static __device__ __forceinline__ F reduce_max(F x) { return warp_max(x); }
  static __device__ __forceinline__ F reduce_add(F x) { return warp_sum(x); }

  // One rotation: the lane at the edge passes on what its neighbor needs, a value of the next register.
  template <Direction D, int K, class Registers>
  static __device__ __forceinline__ F neighbor(int c, F carry, const Registers& x) {
    constexpr bool forward = D == Direction::kForward;
    const F wrapped = c == (forward ? 0 : K - 1) ? carry : x(forward ? c - 1 : c + 1);
    const F passed = lane_id() == (forward ? kWarp - 1 : 0) ? wrapped : x(c);
    return from_lane(passed, lane_id() + (forward ? kWarp - 1 : 1));
  }
  template <Direction D, int K, class Registers>
  static __device__ __forceinline__ void store_edge(S* p, const Registers& x) {
    constexpr bool forward = D == Direction::kForward;
    if (lane_id() == (forward ? kWarp - 1 : 0)) *p = x(forward ? K - 1 : 0);
  }

  // memory
  static __device__ __forceinline__ int place(int c) { return c * kWarp + lane_id(); }
  template <int K>
  static __device__ __forceinline__ F load(const S* p, int c) {
    return p[place(c)];
  }
  template <int K>
  static __device__ __forceinline__ void store(S* p, int c, F x) {
    p[place(c)] = x;
  }
  template <int K>
  static __device__ __forceinline__ void store_masked(S* p, int c, F x, M mask) {
    if (mask) p[place(c)] = x;
  }
  template <int K>
  static __device__ __forceinline__ M load_mask(const uint8_t* p, int c) {
    return p[place(c)] != 0;
  }
  template <int K>
  static __device__ __forceinline__ M range(int c, int64_t begin, int64_t end) {
    return begin <= place(c) && place(c) < end;
  }
  template <class Function>
  static __device__ __forceinline__ F make(const Function& f) {
    return f(lane_id());
  }
  template <class Function>
  static __device__ __forceinline__ void for_each(int64_t count, const Function& f) {
    for (int64_t i = lane_id(); i < count; i += kWarp) f(i);
  }
  static __device__ __forceinline__ void fill(S* p, int64_t count, S x) {
    for_each(count, [&](int64_t i) { p[i] = x; });
  }
  static __device__ __forceinline__ void copy(const S* from, S* to, int64_t count) {
    for_each(count, [&](int64_t i) { to[i] = from[i]; });
  }
  static __device__ __forceinline__ void sync() { __syncwarp(); }
};

}  // namespace cuda
}  // namespace fastctc

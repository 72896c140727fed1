// A warp of lanes as a hardware warp. The only place with warp intrinsics.
#pragma once

#include <cstdint>

#include "../../math/emission.h"
#include "../../math/recursion.h"
#include "launch.h"

namespace fastctc {
namespace cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kWarp = 32;

__device__ __forceinline__ int lane_id() { return int(threadIdx.x) % kWarp; }

// 2^d as bits, for integer -bias <= d <= bias; 0 at d = -bias.
__device__ __forceinline__ float power_of_two(float d) { return float_of(uint32_t(int(d) + 127) << 23); }
__device__ __forceinline__ double power_of_two(double d) {
  const uint64_t bits = uint64_t(int64_t(d) + 1023) << 52;
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

// Each lane holds K consecutive labels, label = lane * K + c, so that one shuffle a frame finds all neighbors.
template <class S>
struct Lanes {
  using Scalar = S;
  using F = S;
  using M = bool;
  static constexpr int N = kWarp;

  static __device__ __forceinline__ F set(S x) { return x; }
  static __device__ __forceinline__ F max(F a, F b) { return a > b ? a : b; }
  static __device__ __forceinline__ F min(F a, F b) { return a < b ? a : b; }
  static __device__ __forceinline__ F select(M m, F a, F b) { return m ? a : b; }
  static __device__ __forceinline__ M nonzero(F x) { return x != S(0); }
  static __device__ __forceinline__ F scale(F m, F d) {
    constexpr S lowest = sizeof(S) == 4 ? -127 : -1023;
    return m * power_of_two(max(d, lowest));
  }
  static __device__ __forceinline__ F exponent(F x) { return exponent_of(x); }

  template <int K>
  static __device__ __forceinline__ F load(const S* p, int c) {
    return p[lane_id() * K + c];
  }
  template <int K>
  static __device__ __forceinline__ void store(S* p, int c, F x) {
    p[lane_id() * K + c] = x;
  }
  template <int K>
  static __device__ __forceinline__ void store_first(S* p, int c, F x, int64_t count) {
    const int i = lane_id() * K + c;
    if (i < count) p[i] = x;
  }
  template <int K>
  static __device__ __forceinline__ M load_mask(const uint8_t* p, int c) {
    return p[lane_id() * K + c] != 0;
  }
  template <Direction D, int K>
  static __device__ __forceinline__ Scaled<Lanes> neighbor(const Scaled<Lanes>* e, int c, Scaled<Lanes> carry) {
    constexpr bool forward = D == Direction::kForward;
    constexpr int edge = forward ? 0 : K - 1;
    if (c != edge) return e[forward ? c - 1 : c + 1];
    const Scaled<Lanes> far = e[K - 1 - edge];
    const F m = forward ? __shfl_up_sync(kFullWarp, far.m, 1) : __shfl_down_sync(kFullWarp, far.m, 1);
    const F e_ = forward ? __shfl_up_sync(kFullWarp, far.e, 1) : __shfl_down_sync(kFullWarp, far.e, 1);
    return lane_id() == (forward ? 0 : kWarp - 1) ? carry : Scaled<Lanes>{m, e_};
  }
  template <Direction D, int K>
  static __device__ __forceinline__ void store_edge(Plane<S> p, const Scaled<Lanes>* e) {
    constexpr bool forward = D == Direction::kForward;
    if (lane_id() == (forward ? kWarp - 1 : 0)) {
      *p.m = e[forward ? K - 1 : 0].m;
      *p.e = e[forward ? K - 1 : 0].e;
    }
  }
  static __device__ __forceinline__ void fill(S* p, int64_t count, S x) {
    for (int64_t i = lane_id(); i < count; i += kWarp) p[i] = x;
  }
  static __device__ __forceinline__ void sync() { __syncwarp(); }
};

// The value of the lane whose number differs in the bits of `d`.
template <class T>
__device__ __forceinline__ T from_lane_across(T x, int d) {
  return __shfl_xor_sync(kFullWarp, x, d);
}

// Reductions over a warp; every lane gets the result, in the same order on every run.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int d = kWarp / 2; d > 0; d /= 2) x += from_lane_across(x, d);
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

// The statistics of a row of logits, by the whole warp.
template <class Element>
__device__ __forceinline__ RowStatistics<typename ScalarOf<Element>::type> row_statistics(const Element* x,
                                                                                          int64_t classes,
                                                                                          int64_t stride) {
  using Scalar = typename ScalarOf<Element>::type;
  Scalar top = Scalar(-INFINITY);
  for (int64_t c = lane_id(); c < classes; c += kWarp) {
    const Scalar value = to_scalar(x[c * stride]);
    top = value > top ? value : top;
  }
  top = warp_max(top);
  Scalar sum = 0;
  for (int64_t c = lane_id(); c < classes; c += kWarp) {
    sum += std::exp2((to_scalar(x[c * stride]) - top) * Log2E<Scalar>::hi);
  }
  return {top, std::log2(warp_sum(sum))};
}

}  // namespace cuda
}  // namespace fastctc

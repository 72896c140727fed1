// A warp of lanes as a SIMD vector, in the vector extension of GCC and Clang: it compiles for every processor, and for
// the instruction set that the file is compiled for. The only place with intrinsics.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../../math/emission.h"
#include "../../math/recursion.h"

#ifndef FASTCTC_ISA
#error "FASTCTC_ISA names the instruction set, and with it the namespace, that this file is compiled for"
#endif
#define FASTCTC_LANE static inline __attribute__((always_inline))

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class S>
struct Integer;
template <>
struct Integer<float> {
  using type = int32_t;
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
};
template <>
struct Integer<double> {
  using type = int64_t;
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double round = 6755399441055744.0;
};

// Labels run through the lanes of one register and then on in the next: label = c * N + lane.
template <class S>
struct Lanes {
  using Scalar = S;
  using Int = typename Integer<S>::type;
  static constexpr int N = kVectorBytes / int(sizeof(S));
  typedef S F __attribute__((vector_size(kVectorBytes)));
  typedef Int I __attribute__((vector_size(kVectorBytes)));
  using M = I;

  FASTCTC_LANE F set(S x) { return F{} + x; }
  FASTCTC_LANE F load(const S* p) {
    F x;
    memcpy(&x, p, sizeof x);
    return x;
  }
  FASTCTC_LANE void store(S* p, F x) { memcpy(p, &x, sizeof x); }
  // max(a, b) is b where either is NaN, as in the processor's own instruction.
  FASTCTC_LANE F max(F a, F b) { return a > b ? a : b; }
  FASTCTC_LANE F min(F a, F b) { return a < b ? a : b; }
  FASTCTC_LANE F select(M m, F a, F b) { return m ? a : b; }
  FASTCTC_LANE M nonzero(F x) { return x != set(0); }

  // m * 2^d for d <= 127 (1023 for double); 0 from d = -127 (-1023) downwards.
  FASTCTC_LANE F scale(F m, F d) {
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4) return _mm512_scalef_ps(m, d);
    if constexpr (sizeof(S) == 8) return _mm512_scalef_pd(m, d);
#endif
    constexpr int bias = Integer<S>::bias;
    const I k = __builtin_convertvector(max(d, set(S(-bias))), I) + bias;
    return m * (F)(k << Integer<S>::mantissa_bits);
  }
  // floor(log2(x)) of a normal x > 0.
  FASTCTC_LANE F exponent(F x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4) return _mm512_getexp_ps(x);
    if constexpr (sizeof(S) == 8) return _mm512_getexp_pd(x);
#endif
    return __builtin_convertvector(((I)x >> Integer<S>::mantissa_bits) - Integer<S>::bias, F);
  }
  FASTCTC_LANE F round(F x) { return (x + Integer<S>::round) - Integer<S>::round; }
  // 2^x; 0 below -bias, NaN stays NaN.
  FASTCTC_LANE F exp2(F x) {
    x = max(set(S(-Integer<S>::bias)), x);
    const F n = round(x), r = x - n;
    if constexpr (sizeof(S) == 8) {
      F y;
      for (int i = 0; i < N; ++i) y[i] = exp2_fraction(r[i]);
      return scale(y, n);
    } else {
      F p = set(0.000153458075f);
      p = p * r + 0.00133999312f;
      p = p * r + 0.00961848897f;
      p = p * r + 0.0555032878f;
      p = p * r + 0.240226469f;
      p = p * r + 0.693147206f;
      return scale(p * r + 1.0f, n);
    }
  }
  FASTCTC_LANE S reduce_max(F x) {
    S y = x[0];
    for (int i = 1; i < N; ++i) y = y > x[i] ? y : x[i];
    return y;
  }
  FASTCTC_LANE S reduce_add(F x) {
    S y = x[0];
    for (int i = 1; i < N; ++i) y += x[i];
    return y;
  }

  // The register whose lanes are the labels before (after) those of x; `edge` is the register before (after) it.
  FASTCTC_LANE F shift(F x, F edge, bool forward) {
    I index;
    for (int i = 0; i < N; ++i) index[i] = forward ? N - 1 + i : i + 1;
    return forward ? __builtin_shuffle(edge, x, index) : __builtin_shuffle(x, edge, index);
  }

  // the block interface of math/scaled_float.h
  template <int K>
  FASTCTC_LANE F load(const S* p, int c) {
    return load(p + c * N);
  }
  template <int K>
  FASTCTC_LANE void store(S* p, int c, F x) {
    store(p + c * N, x);
  }
  template <int K>
  FASTCTC_LANE void store_first(S* p, int c, F x, int64_t count) {
    const int64_t n = count - int64_t(c) * N;
    if (n >= N) {
      store(p + c * N, x);
    } else if (n > 0) {
      memcpy(p + c * N, &x, size_t(n) * sizeof(S));
    }
  }
  template <int K>
  FASTCTC_LANE M load_mask(const uint8_t* p, int c) {
    M m;
    for (int i = 0; i < N; ++i) m[i] = -Int(p[c * N + i] != 0);
    return m;
  }
  template <Direction D, int K>
  FASTCTC_LANE Scaled<Lanes> neighbor(const Scaled<Lanes>* e, int c, Scaled<Lanes> carry) {
    constexpr bool forward = D == Direction::kForward;
    const Scaled<Lanes> edge = c == (forward ? 0 : K - 1) ? carry : e[forward ? c - 1 : c + 1];
    return {shift(e[c].m, edge.m, forward), shift(e[c].e, edge.e, forward)};
  }
  template <Direction D, int K>
  FASTCTC_LANE void store_edge(Plane<S> p, const Scaled<Lanes>* e) {
    constexpr bool forward = D == Direction::kForward;
    constexpr int lane = forward ? N - 1 : 0;
    *p.m = e[forward ? K - 1 : 0].m[lane];
    *p.e = e[forward ? K - 1 : 0].e[lane];
  }
  FASTCTC_LANE void fill(S* p, int64_t count, S x) {
    for (int64_t i = 0; i < count; ++i) p[i] = x;
  }
  FASTCTC_LANE void sync() {}
};

// Flushes denormals to zero while it lives: they would cost a hundred cycles each and are zero to the recursion anyway.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | uint64_t(1) << 24));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

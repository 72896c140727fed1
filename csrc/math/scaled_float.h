// Scaled floats: a non-negative number stored as m * 2^e with a mantissa m and an integer-valued exponent e of its own,
// both floating-point. Products add exponents and sums align them, so thousands of probabilities can be multiplied
// without underflow and without one logarithm.
//
// Everything here and in recursion.h is written against a warp of lanes `W` (a SIMD vector on the CPU, a hardware warp
// on a GPU; see kernels/cpu/lanes.h and kernels/cuda/lanes.h), which offers
//   Scalar, F (one Scalar per lane), M (one bool per lane), N (lanes)
//   set, max, min, select(mask, a, b), less, nonzero(m), round(x), fma(a, b, c)
//   single(x): the Scalar of lanes that all have the same
//   scale(m, d) = m * 2^d for d <= 127, exponent(m) = floor(log2 m)
//   reduce_max(x), reduce_add(x): over the lanes, in a fixed order; every lane gets the result
//   neighbor<D, K>(c, carry, x), store_edge<D, K>(p, x), with x(c) the registers of a block
//     the value before (forward) or after (backward) each value of register c; the block's last or first value
//   load<K>(p, c), store<K>(p, c, x), store_masked<K>(p, c, x, mask), load_mask<K>(p, c)
//     register c of the block of N * K values at p
//   range<K>(c, first, end): is the place in its block of each value of register c in [first, end)?
//   fill(p, count, x), copy(from, to, count)
//   make(f): f(i) in lane i
//   for_each(count, f): f(i) for i = 0..count-1, spread over the lanes
//   sync(): what the lanes have stored is there for all of them
//   kSelectsToAdd: is select() cheaper than scale()? Then negative(x) = -|x| too, and less(a, b, a - b) for select()
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define FASTCTC_HD __host__ __device__ __forceinline__
#elif defined(FASTCTC_EMULATED_CUDA)
#define FASTCTC_HD inline
#else
#define FASTCTC_HD inline __attribute__((always_inline))
#endif

namespace fastctc {

enum class Direction { kForward, kBackward };

// The exponent of zero: below every exponent that a product of probabilities reaches, and absorbing in float
// arithmetic.
constexpr float kZeroExponent = -1e30f;

// The largest exponent for which recursions are done in float, which has all integers up to 2^24.
constexpr double kLargestExponent = 1 << 23;

template <class T>
struct Plane {
  using Scalar = T;
  Scalar *m, *e;
  // Of what `make` returns for each of the parts.
  template <class Make>
  static FASTCTC_HD Plane from(const Make& make) {
    return {make(), make()};
  }
  FASTCTC_HD Plane operator+(int64_t i) const { return {m + i, e + i}; }
  FASTCTC_HD explicit operator bool() const { return m != nullptr; }
};

// A number type of the recursions; `Memory` is an array of it.
template <class W>
struct Scaled {
  using Warp = W;
  using Memory = Plane<typename W::Scalar>;
  typename W::F m, e;

  static FASTCTC_HD Scaled zero() { return {W::set(0), W::set(kZeroExponent)}; }
  static FASTCTC_HD Scaled constant(Scaled x) { return x; }
  static FASTCTC_HD Scaled select(typename W::M mask, Scaled a, Scaled b) {
    return {W::select(mask, a.m, b.m), W::select(mask, a.e, b.e)};
  }
  // x[c]'s neighbors in a block of K registers.
  template <Direction D, int K>
  static FASTCTC_HD Scaled neighbor(const Scaled* x, int c, Scaled carry) {
    return {W::template neighbor<D, K>(c, carry.m, [&](int k) { return x[k].m; }),
            W::template neighbor<D, K>(c, carry.e, [&](int k) { return x[k].e; })};
  }

  template <int K>
  static FASTCTC_HD Scaled load(Memory p, int c) {
    return {W::template load<K>(p.m, c), W::template load<K>(p.e, c)};
  }
  template <int K>
  FASTCTC_HD void store(Memory p, int c) const {
    W::template store<K>(p.m, c, m);
    W::template store<K>(p.e, c, e);
  }
  // One number, the same for all lanes.
  static FASTCTC_HD Scaled broadcast(Memory p) { return {W::set(*p.m), W::set(*p.e)}; }
  template <Direction D, int K>
  static FASTCTC_HD void store_edge(Memory p, const Scaled* x) {
    W::template store_edge<D, K>(p.m, [&](int k) { return x[k].m; });
    W::template store_edge<D, K>(p.e, [&](int k) { return x[k].e; });
  }
  static FASTCTC_HD void copy(Memory from, Memory to, int64_t count) {
    W::copy(from.m, to.m, count);
    W::copy(from.e, to.e, count);
  }
  static FASTCTC_HD void fill_zero(Memory p, int64_t count) {
    W::fill(p.m, count, 0);
    W::fill(p.e, count, typename W::Scalar(kZeroExponent));
  }

  FASTCTC_HD typename W::F value() const { return W::scale(m, e); }
  // The value of a number that is in [0, 1] but for rounding.
  FASTCTC_HD typename W::F probability() const { return W::min(value(), W::set(1)); }
};

template <class W>
FASTCTC_HD Scaled<W> operator*(Scaled<W> a, Scaled<W> b) {
  return {a.m * b.m, a.e + b.e};
}
template <class W>
FASTCTC_HD Scaled<W> operator+(Scaled<W> a, Scaled<W> b) {
  const auto e = W::max(a.e, b.e);
  if constexpr (W::kSelectsToAdd) {  // the same sum: 2^0 is the scale of the number with the larger exponent
    const auto difference = a.e - b.e;
    const auto second = W::less(a.e, b.e, difference);
    const auto larger = W::select(second, b.m, a.m), smaller = W::select(second, a.m, b.m);
    return {larger + W::scale(smaller, W::negative(difference)), e};
  }
  return {W::scale(a.m, a.e - e) + W::scale(b.m, b.e - e), e};
}

template <class W>
FASTCTC_HD Scaled<W> sum(Scaled<W> a, Scaled<W> b, Scaled<W> c) {
  const auto e = W::max(W::max(a.e, b.e), c.e);
  return {W::scale(a.m, a.e - e) + W::scale(b.m, b.e - e) + W::scale(c.m, c.e - e), e};
}

// The mantissa back into [1, 2); zero keeps the exponent of zero.
template <class W>
FASTCTC_HD Scaled<W> normalize(Scaled<W> a) {
  const auto nonzero = W::nonzero(a.m);
  const auto shift = W::select(nonzero, W::exponent(a.m), W::set(0));
  return {W::scale(a.m, W::set(0) - shift), W::select(nonzero, a.e + shift, W::set(kZeroExponent))};
}

// The sum over lanes, in every lane.
template <class W>
FASTCTC_HD Scaled<W> reduce(Scaled<W> a) {
  const auto e = W::reduce_max(a.e);
  return {W::reduce_add(W::scale(a.m, a.e - e)), e};
}

}  // namespace fastctc

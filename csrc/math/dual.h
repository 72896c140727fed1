// Dual numbers over scaled floats: a number m * 2^e together with its derivative d * 2^e along some direction. A
// recursion that is run on them computes its own directional derivative.
#pragma once

#include <cstdint>

#include "scaled_float.h"

namespace fastctc {

template <class T>
struct DualPlane {
  using Scalar = T;
  Scalar *m, *d, *e;
  template <class Make>
  static FASTCTC_HD DualPlane from(const Make& make) {
    return {make(), make(), make()};
  }
  FASTCTC_HD DualPlane operator+(int64_t i) const { return {m + i, d + i, e + i}; }
  FASTCTC_HD explicit operator bool() const { return m != nullptr; }
};

// The interface of Scaled. Derivatives share the exponents of their numbers: the derivative of a probability p, a sum
// over paths, is p times the mean of the logarithmic derivatives of the paths, so it has the size of p.
template <class W>
struct Dual {
  using Warp = W;
  using Memory = DualPlane<typename W::Scalar>;
  typename W::F m, d, e;

  static FASTCTC_HD Dual zero() { return constant(Scaled<W>::zero()); }
  static FASTCTC_HD Dual constant(Scaled<W> x) { return {x.m, W::set(0), x.e}; }
  // x, whose logarithm has this derivative. A zero is constant, whatever that derivative is.
  static FASTCTC_HD Dual with_log_derivative(Scaled<W> x, typename W::F derivative) {
    return select(W::nonzero(x.m), Dual{x.m, x.m * derivative, x.e}, constant(x));
  }
  static FASTCTC_HD Dual select(typename W::M mask, Dual a, Dual b) {
    return {W::select(mask, a.m, b.m), W::select(mask, a.d, b.d), W::select(mask, a.e, b.e)};
  }
  template <Direction D, int K>
  static FASTCTC_HD Dual neighbor(const Dual* x, int c, Dual carry) {
    return {W::template neighbor<D, K>(c, carry.m, [&](int k) { return x[k].m; }),
            W::template neighbor<D, K>(c, carry.d, [&](int k) { return x[k].d; }),
            W::template neighbor<D, K>(c, carry.e, [&](int k) { return x[k].e; })};
  }

  template <int K>
  static FASTCTC_HD Dual load(Memory p, int c) {
    return {W::template load<K>(p.m, c), W::template load<K>(p.d, c), W::template load<K>(p.e, c)};
  }
  template <int K>
  FASTCTC_HD void store(Memory p, int c) const {
    W::template store<K>(p.m, c, m);
    W::template store<K>(p.d, c, d);
    W::template store<K>(p.e, c, e);
  }
  static FASTCTC_HD Dual broadcast(Memory p) { return {W::set(*p.m), W::set(*p.d), W::set(*p.e)}; }
  template <Direction D, int K>
  static FASTCTC_HD void store_edge(Memory p, const Dual* x) {
    W::template store_edge<D, K>(p.m, [&](int k) { return x[k].m; });
    W::template store_edge<D, K>(p.d, [&](int k) { return x[k].d; });
    W::template store_edge<D, K>(p.e, [&](int k) { return x[k].e; });
  }
  static FASTCTC_HD void copy(Memory from, Memory to, int64_t count) {
    W::copy(from.m, to.m, count);
    W::copy(from.d, to.d, count);
    W::copy(from.e, to.e, count);
  }
  static FASTCTC_HD void fill_zero(Memory p, int64_t count) {
    W::fill(p.m, count, 0);
    W::fill(p.d, count, 0);
    W::fill(p.e, count, typename W::Scalar(kZeroExponent));
  }

  // What becomes of an occupancy: here, its derivative.
  FASTCTC_HD typename W::F probability() const { return W::scale(d, e); }
};

template <class W>
FASTCTC_HD Dual<W> operator*(Dual<W> a, Dual<W> b) {
  return {a.m * b.m, a.m * b.d + a.d * b.m, a.e + b.e};
}
template <class W>
FASTCTC_HD Dual<W> operator+(Dual<W> a, Dual<W> b) {
  const auto e = W::max(a.e, b.e), of_a = a.e - e, of_b = b.e - e;
  return {W::scale(a.m, of_a) + W::scale(b.m, of_b), W::scale(a.d, of_a) + W::scale(b.d, of_b), e};
}
template <class W>
FASTCTC_HD Dual<W> reciprocal(Dual<W> a) {
  const auto m = W::set(1) / a.m;
  return {m, -a.d * m * m, -a.e};
}
template <class W>
FASTCTC_HD Dual<W> normalize(Dual<W> a) {
  const auto nonzero = W::nonzero(a.m);
  const auto shift = W::select(nonzero, W::exponent(a.m), W::set(0)), back = W::set(0) - shift;
  return {W::scale(a.m, back), W::select(nonzero, W::scale(a.d, back), W::set(0)),
          W::select(nonzero, a.e + shift, W::set(kZeroExponent))};
}
template <class W>
FASTCTC_HD Dual<W> reduce(Dual<W> a) {
  const auto e = W::reduce_max(a.e);
  return {W::reduce_add(W::scale(a.m, a.e - e)), W::reduce_add(W::scale(a.d, a.e - e)), e};
}

}  // namespace fastctc

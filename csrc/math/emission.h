// From log-probabilities or logits to scaled floats: exp(x) = m * 2^e.
#pragma once

#include <cmath>

#include "scaled_float.h"

namespace fastctc {

// ln 2 in two parts: n * ln2_hi is exact for |n| < 2^14 (2^20 for double).
template <class Scalar>
struct Constants;
template <>
struct Constants<float> {
  static constexpr float log2_e = 1.44269504f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f;
};
template <>
struct Constants<double> {
  static constexpr double log2_e = 1.4426950408889634;
  static constexpr double ln2_hi = 6.93147180369123816490e-01, ln2_lo = 1.90821492927058770002e-10;
};
constexpr double kLn2 = 0.6931471805599453;

// Below this a log-probability counts as probability zero (masks are written as -1e30 or -inf).
constexpr float kZeroLog = -1e25f;

// 2^r for |r| <= 0.5, lane by lane: minimax with relative error 2e-8; Taylor with 1e-17.
template <class F>
FASTCTC_HD F exp2_fraction(F r, float) {
  F p = r * 0.000153458075f + 0.00133999312f;
  p = p * r + 0.00961848897f;
  p = p * r + 0.0555032878f;
  p = p * r + 0.240226469f;
  p = p * r + 0.693147206f;
  return p * r + 1.0f;
}
template <class F>
FASTCTC_HD F exp2_fraction(F r, double) {
  F p = r * 1.3691488853904124e-12 + 2.5678435993488196e-11;
  p = p * r + 4.44553827187081e-10;
  p = p * r + 7.054911620801121e-09;
  p = p * r + 1.0178086009239696e-07;
  p = p * r + 1.3215486790144305e-06;
  p = p * r + 1.5252733804059838e-05;
  p = p * r + 0.00015403530393381606;
  p = p * r + 0.0013333558146428441;
  p = p * r + 0.009618129107628477;
  p = p * r + 0.055504108664821576;
  p = p * r + 0.2402265069591007;
  p = p * r + 0.6931471805599453;
  return p * r + 1.0;
}

// x = n ln 2 + r with an integer n.
template <class W>
struct Split {
  typename W::F n, r;
};
template <class W>
FASTCTC_HD Split<W> split(typename W::F x) {
  using C = Constants<typename W::Scalar>;
  const auto n = W::round(x * C::log2_e);
  return {n, (x - n * C::ln2_hi) - n * C::ln2_lo};
}

// exp(x - origin) for x >= kZeroLog. Whole parts cancel exactly and the fraction keeps its precision, however large x
// and origin are. NaN and +inf give m = NaN.
template <class W>
FASTCTC_HD Scaled<W> nonzero_emission(typename W::F x, Split<W> origin) {
  using Scalar = typename W::Scalar;
  const Split<W> y = split<W>(x);
  const auto r = (y.r - origin.r) * Constants<Scalar>::log2_e, k = W::round(r);
  return {exp2_fraction(r - k, Scalar()), (y.n - origin.n) + k};
}

// exp(x - origin), zero below kZeroLog.
template <class W>
FASTCTC_HD Scaled<W> emission(typename W::F x, Split<W> origin) {
  const auto zero = W::less(x, W::set(typename W::Scalar(kZeroLog)));
  return Scaled<W>::select(zero, Scaled<W>::zero(), nonzero_emission<W>(x, origin));
}

// exp(x)
template <class W>
FASTCTC_HD Scaled<W> exponential(typename W::F x) {
  return emission<W>(x, Split<W>{W::set(0), W::set(0)});
}

// The statistics of one row of logits: its maximum and log2 of the sum of 2^((x - max) * log2 e).
template <class Scalar>
struct RowStatistics {
  Scalar max, log2_sum;
};

}  // namespace fastctc

// From a log-probability or a logit to a scaled float: exp(x) = m * 2^e.
#pragma once

#include <cmath>

#include "scaled_float.h"

namespace fastctc {

// log2(e) as a sum of two numbers, so that x * log2(e) keeps its fraction for large |x|.
template <class Scalar>
struct Log2E;
template <>
struct Log2E<float> {
  static constexpr float hi = 1.44269504f, lo = 1.92596299e-8f;
};
template <>
struct Log2E<double> {
  static constexpr double hi = 1.4426950408889634, lo = 2.0355273740931033e-17;
};

// Below this a log-probability counts as probability zero (masks are written as -1e30 or -inf).
constexpr float kZeroLog = -1e25f;

// 2^r for |r| <= 0.5 (minimax, relative error 2e-8); a polynomial so that CPU vectors and GPUs agree.
FASTCTC_HD float exp2_fraction(float r) {
  float p = 0.000153458075f;
  p = p * r + 0.00133999312f;
  p = p * r + 0.00961848897f;
  p = p * r + 0.0555032878f;
  p = p * r + 0.240226469f;
  p = p * r + 0.693147206f;
  return p * r + 1.0f;
}
FASTCTC_HD double exp2_fraction(double r) { return std::exp2(r); }

// The statistics of one row of logits: its maximum and log2 of the sum of 2^((x - max) * log2 e).
template <class Scalar>
struct RowStatistics {
  Scalar max, log2_sum;
};

template <class Scalar>
struct Emission {
  Scalar m, e;
};

// exp(x), or exp(x - logsumexp(row)) where the row's statistics are given. A NaN or +inf in what is read gives m = NaN,
// and so does a row of nothing but -inf, as a log-softmax would.
//
// With y = x log2(e) = n + r and log2(sum exp) = cn + cr, both split into an integer and a fraction, the result is
// 2^(r - cr) * 2^(n - cn): the large integers cancel exactly and the fraction keeps its precision.
template <class Scalar>
FASTCTC_HD Emission<Scalar> emission(Scalar x, const RowStatistics<Scalar>* row) {
  if (row && row->log2_sum != row->log2_sum) return {Scalar(NAN), 0};
  if (x < Scalar(kZeroLog)) return {0, Scalar(kZeroExponent)};
  if (!(x < Scalar(INFINITY))) return {Scalar(NAN), 0};
  const Scalar hi = Log2E<Scalar>::hi, lo = Log2E<Scalar>::lo;
  Scalar n = std::rint(x * hi);
  Scalar r = std::fma(x, hi, -n) + x * lo;
  if (row) {
    const Scalar cn = std::rint(row->max * hi);
    r -= std::fma(row->max, hi, -cn) + row->max * lo + row->log2_sum;
    n -= cn;
    const Scalar k = std::rint(r);
    r -= k;
    n += k;
  }
  return {exp2_fraction(r), n};
}

}  // namespace fastctc

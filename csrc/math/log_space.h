// Sums of probabilities that are given by their natural logarithms, in double.
//
// Written against a warp of lanes W (scaled_float.h) with W::fma, and without one product and sum that a compiler could
// contract into one operation: every machine gets the same bits.
#pragma once

#include "scaled_float.h"

namespace fastctc {

// c[0] + c[1] x + ... + c[11] x^11, in four short chains (Estrin's scheme).
template <class W>
FASTCTC_HD typename W::F polynomial(typename W::F x, double c0, double c1, double c2, double c3, double c4, double c5,
                                    double c6, double c7, double c8, double c9, double c10, double c11) {
  const auto pair = [&](double low, double high) { return W::fma(x, W::set(high), W::set(low)); };
  const auto x2 = x * x, x4 = x2 * x2;
  const auto low = W::fma(x2, pair(c2, c3), pair(c0, c1));
  const auto middle = W::fma(x2, pair(c6, c7), pair(c4, c5));
  const auto high = W::fma(x2, pair(c10, c11), pair(c8, c9));
  return W::fma(x4, W::fma(x4, high, middle), low);
}

// exp(x) for x in [-700, 0]: minimax of degree 11 for the fraction, relative error 3e-18 before rounding.
template <class W>
FASTCTC_HD typename W::F exp_of_negative(typename W::F x) {
  const auto n = W::round(x * W::set(1.4426950408889634));
  const auto r = W::fma(n, W::set(-1.90821492927058770002e-10), W::fma(n, W::set(-6.93147180369123816490e-01), x));
  const auto fraction =
      polynomial<W>(r, 1.0, 1.0, 0.5000000000000019, 0.1666666666666668, 0.0416666666664881, 0.008333333333319601,
                    0.0013888888952314775, 0.00019841269890047113, 2.4801485482328494e-05, 2.755724091857897e-06,
                    2.763263963904103e-07, 2.5110037605963777e-08);
  return W::scale(fraction, n);
}

// exp(x) for one x <= 0, with the same bits on every machine; 0 below e^-700.
template <class W>
FASTCTC_HD double probability_of(double x) {
  return x < -700 ? 0 : W::single(exp_of_negative<W>(W::set(x)));
}

// log(1 + x) + addend for x in [0, 1]: minimax of degree 23 for log(1 + x) / x, relative error 4e-20 before rounding. A
// division would take most of the time.
template <class W>
FASTCTC_HD typename W::F log_of_one_plus(typename W::F x, typename W::F addend) {
  const auto x2 = x * x, x4 = x2 * x2;
  const auto four = [&](double c0, double c1, double c2, double c3) {
    return W::fma(x2, W::fma(x, W::set(c3), W::set(c2)), W::fma(x, W::set(c1), W::set(c0)));
  };
  auto sum = four(0.0022721939976900825, -0.0005742608336799385, 9.245629641279734e-05, -7.099108364532261e-06);
  sum = W::fma(x4, sum, four(0.038032856095226227, -0.02527088002611108, 0.01419360341006061, -0.006465328266766134));
  sum = W::fma(x4, sum, four(0.07605590367348822, -0.06890730233195227, 0.06059655300938698, -0.05027970180847819));
  sum = W::fma(x4, sum, four(0.11110965448035807, -0.09998981867459061, 0.09085326454474651, -0.08308887088667428));
  sum = W::fma(x4, sum, four(0.1999999999702584, -0.16666666590780915, 0.142857129823451, -0.12499984023074998));
  sum = W::fma(x4, sum, four(1.0, -0.49999999999999994, 0.3333333333333241, -0.2499999999992816));
  return W::fma(x, sum, addend);
}

// log(exp(a) + exp(b)), never below the larger; a and b may be -inf.
template <class W>
FASTCTC_HD typename W::F log_add(typename W::F a, typename W::F b) {
  constexpr double kNothing = -700;  // exp() of less is lost beside 1
  const auto larger = W::max(a, b);
  const auto distance = W::max(W::min(a, b) - larger, W::set(kNothing));  // of two -inf too
  return log_of_one_plus<W>(exp_of_negative<W>(distance), larger);
}

// The result of a sum of log-probabilities, which rounding may leave above 0. NaN stays NaN.
FASTCTC_HD double at_most_zero(double x) { return x > 0 ? 0 : x; }

// The softmax denominator of a row of logits, for alignment and decoding. It has the same bits on every machine. The
// other log-sum-exps round differently, so they stay separate:
//   row_statistics()  rows.h of each machine, for the loss: powers of 2, with one exp2 per class
//   log_sum_exp()     cuda/ctc_tangent.cu: in double for every element type
//
// Term c goes to the sum number c modulo kSums, in the order of c. Then the upper half of the sums is added to the
// lower one, until one is left.
constexpr int kSums = 32;

// Its terms: exp(x - max), in the type of the row; 0 where that is below e^-80. NaN stays NaN.
template <class W>
FASTCTC_HD typename W::F softmax_term(typename W::F x, typename W::F max) {
  using Scalar = typename W::Scalar;
  const auto distance = x - max;
  typename W::F term;
  if constexpr (sizeof(Scalar) == 4) {  // minimax of degree 6, relative error 1e-8 before rounding
    const auto n = W::round(distance * W::set(1.44269504f));
    const auto r = W::fma(n, W::set(2.12194440e-4f), W::fma(n, W::set(-0.693359375f), distance)), r2 = r * r;
    const auto pair = [&](float low, float high) { return W::fma(r, W::set(high), W::set(low)); };
    term = W::fma(r2, W::set(0.00139411084f), pair(0.0416663529f, 0.0083751264f));
    term = W::fma(r2, term, pair(0.5f, 0.166664156f));
    term = W::scale(W::fma(r2, term, pair(1.0f, 1.0f)), n);
  }
  if constexpr (sizeof(Scalar) == 8) term = exp_of_negative<W>(distance);
  return W::select(W::less(distance, W::set(-80)), W::set(0), term);
}

// log(x) for a normal x > 0; W is of doubles.
template <class W>
FASTCTC_HD typename W::F log_of(typename W::F x) {
  const auto n = W::exponent(x);
  const auto fraction = log_of_one_plus<W>(W::scale(x, -n) - W::set(1), W::set(0));
  return W::fma(n, W::set(6.93147180369123816490e-01), W::fma(n, W::set(1.90821492927058770002e-10), fraction));
}

}  // namespace fastctc

// The softmax denominator of a row of logits, with the same bits on every machine (math/log_space.h).
#pragma once

#include "../../math/log_space.h"
#include "rows.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// log(sum of exp(x)) of a row; NaN where a NaN or +inf is in it, or nothing but -inf.
template <class Scalar>
inline double log_denominator(const Scalar* x, int64_t classes) {
  using L = Lanes<Scalar>;
  using F = typename L::F;
  constexpr int kRegisters = kSums / L::N;
  const auto larger = [](F a, F b) { return L::max(a, b); };
  const F max = L::reduce(over_row<0>(x, classes, Scalar(-INFINITY), larger, [](F v) { return v; }), larger);
  F sums[kRegisters] = {};
  int64_t c = 0;
  for (; c + kSums <= classes; c += kSums) {
    for (int r = 0; r < kRegisters; ++r) sums[r] += softmax_term<L>(L::load(x + c + r * L::N), max);
  }
  for (int r = 0; c < classes; ++r, c += L::N) {
    const auto inside = L::first(classes - c);
    sums[r] += L::select(inside, softmax_term<L>(L::load(x + c, inside), max), L::set(0));
  }
  Scalar sum[kSums];
  for (int r = 0; r < kRegisters; ++r) L::store(sum + r * L::N, sums[r]);
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
  }
  return double(max[0]) + log_of<Lanes<double>>(Lanes<double>::set(double(sum[0])))[0];
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

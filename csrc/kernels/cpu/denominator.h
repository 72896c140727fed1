// The softmax denominator of a row of logits.
#pragma once

#include "../../math/log_space.h"
#include "rows.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// NaN is passed over.
template <class Scalar>
inline Scalar row_max(const Scalar* x, int64_t classes) {
  using F = typename Lanes<Scalar>::F;
  const auto larger = [](F a, F b) { return Lanes<Scalar>::max(b, a); };
  return Lanes<Scalar>::reduce_max(over_row<0>(x, classes, Scalar(-INFINITY), larger, [](F v) { return v; }))[0];
}

// The maximum of a row, and the sum of exp(x - maximum): 0 where the classes are all at -inf, NaN where a NaN or +inf
// is in the row. Meanwhile the row at `next` is fetched from memory.
template <class Scalar>
struct SoftmaxSum {
  Scalar max, sum;
};
template <class Scalar>
inline SoftmaxSum<Scalar> softmax_sum(const Scalar* x, int64_t classes, Scalar max, const Scalar* next = nullptr) {
  using L = Lanes<Scalar>;
  using F = typename L::F;
  constexpr int kRegisters = kSums / L::N;
  const F shift = L::set(max == Scalar(-INFINITY) ? Scalar(0) : max);
  F sums[kRegisters] = {};
  int64_t c = 0;
  for (; c + kSums <= classes; c += kSums) {
    for (int r = 0; r < kRegisters; ++r) {
      sums[r] += softmax_term<L>(L::load(x + c + r * L::N), shift);
      if (next) __builtin_prefetch(next + c + r * L::N);
    }
  }
  for (int r = 0; c < classes; ++r, c += L::N) {
    const auto inside = L::first(classes - c);
    sums[r] += L::select(inside, softmax_term<L>(L::load(x + c, inside), shift), L::set(0));
  }
  for (int half = kRegisters / 2; half > 0; half /= 2) {
    for (int r = 0; r < half; ++r) sums[r] += sums[r + half];
  }
  return {max, L::reduce_add(sums[0])[0]};  // by halves too
}
template <class Scalar>
inline SoftmaxSum<Scalar> softmax_sum(const Scalar* x, int64_t classes) {
  return softmax_sum(x, classes, row_max(x, classes));
}

// log(sum of exp(x)), with the same bits on every machine. 0 where the classes are all at -inf.
template <class Scalar>
inline double log_denominator(const Scalar* x, int64_t classes, Scalar max) {
  using Double = Lanes<double>;
  const SoftmaxSum<Scalar> row = softmax_sum(x, classes, max);
  return row.sum == 0 ? 0.0 : double(row.max) + log_of<Double>(Double::set(double(row.sum)))[0];
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

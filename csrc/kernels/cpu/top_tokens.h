// The classes of a row that are worth a look, most probable first; and the softmax denominator of a row of logits.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../math/log_space.h"
#include "lanes.h"
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

// log(sum of exp(x)), with the same bits on every machine; NaN where a NaN or +inf is in the row. 0 where the
// classes are all at -inf.
template <class Scalar>
inline double log_denominator(const Scalar* x, int64_t classes) {
  using L = Lanes<Scalar>;
  using F = typename L::F;
  using Double = Lanes<double>;
  constexpr int kRegisters = kSums / L::N;
  const Scalar max = row_max(x, classes);
  const F shift = L::set(max == Scalar(-INFINITY) ? Scalar(0) : max);
  F sums[kRegisters] = {};
  int64_t c = 0;
  for (; c + kSums <= classes; c += kSums) {
    for (int r = 0; r < kRegisters; ++r) sums[r] += softmax_term<L>(L::load(x + c + r * L::N), shift);
  }
  for (int r = 0; c < classes; ++r, c += L::N) {
    const auto inside = L::first(classes - c);
    sums[r] += L::select(inside, softmax_term<L>(L::load(x + c, inside), shift), L::set(0));
  }
  Scalar sum[kSums];
  for (int r = 0; r < kRegisters; ++r) L::store(sum + r * L::N, sums[r]);
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
  }
  if (sum[0] == 0) return 0;
  return double(max) + log_of<Double>(Double::set(double(sum[0])))[0];
}

template <class Scalar>
struct Token {
  Scalar x;
  int32_t id;
  // The order of tokens: larger scores first, lower classes first among equals.
  friend bool operator<(const Token& a, const Token& b) { return a.x > b.x || (a.x == b.x && a.id < b.id); }
};

// All classes of a row with a score of `bound` or more, and those that are NaN, in order of class. `tokens` has room
// for all of them. Returns their number, or -1 where they are more than `limit`.
template <class Scalar>
inline int64_t tokens_from(const Scalar* x, int64_t classes, Scalar bound, int64_t limit, Token<Scalar>* tokens) {
  using L = Lanes<Scalar>;
  const auto least = L::set(bound);
  int64_t count = 0;
  const auto take = [&](int64_t c, uint32_t bits) {
    for (; bits; bits &= bits - 1) {
      const int64_t id = c + __builtin_ctz(bits);
      tokens[count++] = {x[id], int32_t(id)};
    }
  };
  int64_t c = 0;
  for (; c + 4 * L::N <= classes; c += 4 * L::N) {  // mostly nothing is found
    uint32_t bits[4];
    for (int i = 0; i < 4; ++i) bits[i] = L::bits(L::invert(L::less(L::load(x + c + i * L::N), least)));
    if ((bits[0] | bits[1] | bits[2] | bits[3]) == 0) continue;
    for (int i = 0; i < 4; ++i) take(c + i * L::N, bits[i]);
    if (count > limit) return -1;
  }
  for (; c < classes; c += L::N) {
    const auto inside = L::first(classes - c);
    take(c, L::bits(L::both(inside, L::invert(L::less(L::load(x + c, inside), least)))));
  }
  return count;
}

// A score that at least `count` classes of a long row reach: of so many stretches the maximum does. -inf where the row
// is too short for that. `maxima` has room for a number in every vector.
template <class Scalar>
inline Scalar reached_by(const Scalar* x, int64_t classes, int64_t count, Scalar* maxima) {
  using L = Lanes<Scalar>;
  const int64_t vectors = classes / L::N, stretch = vectors / (2 * count);
  if (stretch == 0) return Scalar(-INFINITY);
  int64_t stretches = 0;
  for (int64_t v = 0; v + stretch <= vectors; v += stretch) {
    auto max = L::set(Scalar(-INFINITY));
    for (int64_t i = 0; i < stretch; ++i) max = L::max(L::load(x + (v + i) * L::N), max);  // never NaN
    maxima[stretches++] = L::reduce_max(max)[0];
  }
  std::nth_element(maxima, maxima + count - 1, maxima + stretches, [](Scalar a, Scalar b) { return a > b; });
  return maxima[count - 1];
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

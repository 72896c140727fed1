// The classes of a row that can enter the beam, most probable first.
#pragma once

#include <algorithm>
#include <cmath>

#include "../beam_search.h"
#include "denominator.h"
#include "rank.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

template <class Scalar>
struct Token {
  Scalar x;
  int32_t id;
  // The order of tokens: larger scores first, lower classes first among equals.
  friend bool operator<(const Token& a, const Token& b) { return a.x > b.x || (a.x == b.x && a.id < b.id); }
};

// All classes of a row with a score of `bound` or more, and those that are NaN, in order of class. `tokens` has room
// for all of them. Returns their number, or -1 if it is above `limit`.
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

// A score that at least `count` classes of a long row reach, because the maxima of `count` stretches do. -inf if the
// row is too short. `maxima` has room for one number per vector.
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

// The tokens of a frame, and the memory to find them.
template <class Scalar>
struct FrameTokens {
  int32_t* token;        // (C) most probable first
  double* y;             // (C + kRankedTogether) their log-probabilities
  Scalar* maxima;        // (C)
  Token<Scalar>* found;  // (C)
  int32_t* ranked;       // (C)
};

// Finds at most `matter` tokens whose log-probability, x less `denominator`, is above `threshold`. Returns their
// number. The status becomes kNotANumber or kInvalid if one of the scores is no log-probability.
template <class Scalar>
inline int64_t find_tokens(const Scalar* x, const BeamSearchParams& p, double denominator, double threshold,
                           int64_t matter, const FrameTokens<Scalar>& w, Status& status) {
  if (p.token_threshold < INFINITY) {
    const double best = log_prob(double(row_max(x, p.classes)), denominator);
    threshold = std::max(threshold, std::nextafter(best - p.token_threshold, -double(INFINITY)));
  }
  const Scalar faulty = Scalar(denominator + kLargestLogProb), lowest = Scalar(kZeroLog);
  Scalar bound = std::max(std::nextafter(Scalar(threshold + denominator), Scalar(-INFINITY)), lowest);
  int64_t count = tokens_from(x, p.classes, std::min(bound, faulty), 4 * matter, w.found);
  if (count < 0) {
    bound = std::max(bound, reached_by(x, p.classes, matter + 1, w.maxima));  // one may be the blank
    count = tokens_from(x, p.classes, std::min(bound, faulty), p.classes, w.found);
  }
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Token<Scalar> token = w.found[i];
    const double y = log_prob(double(token.x), denominator);
    if (y != y) status = kNotANumber;
    if (y > kLargestLogProb && status == kOk) status = kInvalid;
    if (y > threshold && token.id != p.blank) w.found[kept++] = token;
  }
  if (kept > kCounted && kept > matter) {
    std::nth_element(w.found, w.found + matter, w.found + kept);
    kept = matter;
    std::sort(w.found, w.found + kept);
  }
  for (int64_t i = 0; i < kept; ++i) w.y[i] = double(w.found[i].x);
  rank(w.y, kept, w.ranked);
  kept = std::min(kept, matter);
  for (int64_t i = 0; i < kept; ++i) {
    const Token<Scalar> token = w.found[w.ranked[i]];
    w.token[i] = token.id;
    w.y[i] = log_prob(double(token.x), denominator);
  }
  return kept;
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

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

// Calls f(class, x + shift) for the classes where the sum is `bound` or more. Returns the largest sum.
template <class Scalar, class F>
inline Scalar for_each_sum_from(const Scalar* x, const Scalar* shift, int64_t classes, Scalar bound, const F& f) {
  using L = Lanes<Scalar>;
  const auto least = L::set(bound);
  auto max = L::set(Scalar(-INFINITY));
  for (int64_t c = 0; c < classes; c += L::N) {
    const auto inside = L::first(classes - c);
    const auto sum = L::load(x + c, inside) + L::load(shift + c, inside);
    max = L::max(L::select(inside, sum, max), max);
    uint32_t bits = L::bits(L::both(inside, L::invert(L::less(sum, least))));
    if (bits == 0) continue;
    Scalar sums[L::N];
    L::store(sums, sum);
    for (; bits; bits &= bits - 1) f(int32_t(c + __builtin_ctz(bits)), sums[__builtin_ctz(bits)]);
  }
  return L::reduce_max(max)[0];
}

// Calls f(label, x[label] + weight) for the arcs, sorted by label, where the sum is `bound` or more.
template <class Scalar, class F>
inline void for_each_arc_from(const Scalar* x, int64_t classes, const int32_t* label, const float* weight, int64_t arcs,
                              Scalar bound, const F& f) {
  using L = Lanes<Scalar>;
  if (arcs > 0 && label[arcs - 1] >= classes) arcs = std::lower_bound(label, label + arcs, int32_t(classes)) - label;
  const auto least = L::set(bound);
  int64_t arc = 0;
  for (; arc + L::N <= arcs; arc += L::N) {
    const auto sum = L::gather(x, label + arc, L::first(L::N)) + L::load_converted(weight + arc);
    uint32_t bits = L::bits(L::invert(L::less(sum, least)));
    if (bits == 0) continue;
    Scalar sums[L::N];
    L::store(sums, sum);
    for (; bits; bits &= bits - 1) f(label[arc + __builtin_ctz(bits)], sums[__builtin_ctz(bits)]);
  }
  for (; arc < arcs; ++arc) {
    const Scalar sum = x[label[arc]] + Scalar(weight[arc]);
    if (!(sum < bound)) f(label[arc], sum);
  }
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

struct FoundTokens {
  int64_t count;
  bool all;  // else only the first ones
};

// Finds the tokens whose log-probability, x less `denominator`, is above `threshold`: all, or the `first` ones if there
// are more than `most`. The status becomes kNotANumber or kInvalid if one of the scores is no log-probability.
template <class Scalar>
inline FoundTokens find_tokens(const Scalar* x, const BeamSearchParams& p, double denominator, double threshold,
                               int64_t most, int64_t first, const FrameTokens<Scalar>& w, Status& status) {
  if (p.token_threshold < INFINITY) {
    const double best = log_prob(double(row_max(x, p.classes)), denominator);
    threshold = std::max(threshold, std::nextafter(best - p.token_threshold, -double(INFINITY)));
  }
  const Scalar faulty = Scalar(denominator + kLargestLogProb), lowest = Scalar(kZeroLog);
  Scalar bound = std::max(std::nextafter(Scalar(threshold + denominator), Scalar(-INFINITY)), lowest);
  int64_t count = tokens_from(x, p.classes, std::min(bound, faulty), 4 * most, w.found);
  const bool too_many = count < 0;
  if (too_many) {
    if (first == 0) return {0, false};
    bound = std::max(bound, reached_by(x, p.classes, first + 1, w.maxima));  // one may be the blank
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
  const bool all = !too_many && kept <= most;
  const int64_t matter = all ? kept : std::min(kept, first);
  if (kept > kCounted && kept > matter) {
    std::nth_element(w.found, w.found + matter, w.found + kept);
    kept = matter;
    std::sort(w.found, w.found + kept);
  }
  for (int64_t i = 0; i < kept; ++i) w.y[i] = double(w.found[i].x);
  rank(w.y, kept, w.ranked);
  kept = matter;
  for (int64_t i = 0; i < kept; ++i) {
    const Token<Scalar> token = w.found[w.ranked[i]];
    w.token[i] = token.id;
    w.y[i] = log_prob(double(token.x), denominator);
  }
  return {kept, all};
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

// The candidates of a frame: which prefixes may be in the next beam. Included by beam.h.
#pragma once

#include "beam.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

constexpr int32_t kFewArcs = 8;     // up to this many are looked at one by one in any case
constexpr int64_t kFewTokens = 64;  // up to this many are listed for all prefixes together

// The tokens that may bring an extension above `worst`: all, or the `first` ones if there are more than `most`. An
// extension scores at most `best` and the log-probability of its token.
template <class Scalar, class Knowledge>
FoundTokens Beam<Scalar, Knowledge>::find_tokens(const Scalar* x, double denominator, double worst, double best,
                                                 int64_t most, int64_t first) const {
  const double rounding = 4e-16 * (std::abs(worst) + std::abs(best));
  const double threshold = std::isfinite(worst) ? worst - best - rounding : worst;
  return FASTCTC_ISA::find_tokens(x, p_, denominator, threshold, most, first, w_.tokens, head().status);
}

// No prefix with a lower score is in the next beam: there are W others that reach this one.
template <class Scalar, class Knowledge>
double Beam<Scalar, Knowledge>::least_of_next_beam(int64_t tokens, double worst) const {
  const int64_t W = p_.beam_size;
  double least = worst;
  if (head().size < W) return least;
  // Extensions of the best prefixes by the first 1, 2 or 4 tokens, without those that repeat a last token.
  const auto id = [&](int64_t k) { return k < tokens ? w_.tokens.token[k] : -1; };
  const int32_t first = id(0), second = id(1), third = id(2), fourth = id(3);
  int64_t by_one = 0, by_two = tokens < 2 ? -2 * W : 0, by_four = tokens < 4 ? -4 * W : 0;
  const auto reached = [&](int64_t& count, int64_t more, double score) {
    if (count < W && count + more >= W) least = std::max(least, score);
    count += more;
  };
  for (int64_t rank = 0; rank < W && by_one < W; ++rank) {
    const int32_t slot = s_.order[rank], last = s_.last[slot];
    const double total = now_.total[slot];
    const int repeats_one = last == first, repeats_two = repeats_one + (last == second);
    reached(by_one, 1 - repeats_one, total + w_.tokens.y[0]);
    reached(by_two, 2 - repeats_two, total + w_.tokens.y[std::min<int64_t>(1, tokens - 1)]);
    reached(by_four, 4 - repeats_two - (last == third) - (last == fourth),
            total + w_.tokens.y[std::min<int64_t>(3, tokens - 1)]);
  }
  for (int64_t k = 8; k <= tokens; k *= 2) {  // by the first k tokens; each prefix may repeat one
    const int64_t ranks = (W + k - 2) / (k - 1);
    least = std::max(least, now_.total[s_.order[ranks - 1]] + w_.tokens.y[k - 1]);
  }
  return least;
}

// Stays, then the extensions that beat the worst of them.
template <class Scalar, class Knowledge>
int64_t Beam<Scalar, Knowledge>::find_candidates(const Scalar* x, double denominator, double worst) {
  const double best = now_.total[s_.order[0]];
  const int64_t matter = tokens_that_matter(p_.classes, p_.beam_size);
  const int64_t tokens = find_tokens(x, denominator, worst, best, matter, matter).count;
  if (head().status != kOk) return 0;
  const double least = tokens > 0 ? least_of_next_beam(tokens, worst) : kNever;
  const Candidates& found = w_.candidates;
  int64_t count = 0;
  for (int64_t rank = 0; rank < head().size; ++rank) {
    const int32_t slot = s_.order[rank];
    const double score = next_.total[slot];
    found.score[count] = score;
    found.slot[count] = slot;
    found.token[count] = kStays;
    w_.dropped[slot] = 1;
    count += score >= least && score > kNever;
  }
  for (int64_t rank = 0; tokens > 0 && rank < head().size; ++rank) {
    const int32_t slot = s_.order[rank];
    const double total = now_.total[slot];
    const int64_t end = std::min(tokens, extensions_of_rank(rank, p_.beam_size));
    bool noted = w_.family.empty(slot);
    for (int64_t k = 0; k < end; ++k) {
      const int32_t token = w_.tokens.token[k];
      double score = total + w_.tokens.y[k];
      if (!(score > worst && score >= least)) {
        if (k == 0) return count;
        break;
      }
      if (token == s_.last[slot]) score = now_.blank[slot] + w_.tokens.y[k];
      if (!(score > worst && score >= least)) continue;
      if (!noted) note_children(slot);
      noted = true;
      if (has_child(slot, token, kNoWord)) continue;
      found.score[count] = score;
      found.slot[count] = slot;
      found.token[count] = int32_t(k);
      ++count;
    }
  }
  return count;
}

// ---- With a scorer: its weights are looked up only where its bounds allow a candidate.

template <class Scalar, class Knowledge>
int64_t Beam<Scalar, Knowledge>::find_weighed_candidates(const Scalar* x, double denominator, double worst) {
  const Candidates& found = w_.candidates;
  int64_t count = 0;
  for (int64_t rank = 0; rank < head().size; ++rank) {
    const int32_t slot = s_.order[rank];
    found.score[count] = next_.total[slot];
    found.slot[count] = slot;
    found.token[count] = kStays;
    w_.dropped[slot] = 1;
    count += next_.total[slot] > kNever;
  }
  frame_.x = x;
  frame_.denominator = denominator;
  const bool listed = list_tokens(count, worst);
  if ((listed && tokens_ == 0) || head().status != kOk) return count;
  for (int64_t rank = 0; rank < head().size; ++rank) {
    const int32_t slot = s_.order[rank];
    const int64_t chosen = listed ? choose_listed(slot, worst) : choose_unlisted(slot, count, worst);
    if (chosen > 0) note_children(slot);
    for (int64_t i = 0; i < chosen; ++i) {
      const int32_t k = w_.chosen[i];
      extend(slot, k, worst, [&](double score, const ScorerArc& arc) {
        if (!(score > worst)) return;
        found.score[count] = score;
        found.slot[count] = slot;
        found.token[count] = k;
        found.arc[count] = arc;
        if (++count == candidates_kept(p_.beam_size)) count = keep_best(count, worst);
      });
    }
  }
  for (int64_t k = 0; k < tokens_; ++k) w_.place[w_.tokens.token[k]] = -1;
  return count > p_.beam_size ? keep_best(count, worst) : count;  // fewer are ranked faster
}

// Calls f(score, arc) for the extensions of a prefix by the token in place k, but for prefixes of the beam. Those that
// score no more than `worst` may be left out. The children of `slot` are noted.
template <class Scalar, class Knowledge>
template <class F>
void Beam<Scalar, Knowledge>::extend(int32_t slot, int32_t k, double worst, const F& f) const {
  const int32_t token = w_.tokens.token[k];
  const double from = (token == s_.last[slot] ? now_.blank[slot] : now_.total[slot]) + w_.tokens.y[k];
  if (!(from + w_.bound[slot] > worst)) return;
  const auto steps = [&](int i, int32_t state, int32_t label) { return w_.steps.find(p_.scorer, i, state, label); };
  const auto is_new = [&](int32_t word) { return !has_child(slot, token, word); };
  p_.scorer.extend(s_.scorer[slot], token, worst - from, steps, is_new,
                   [&](const ScorerArc& arc) { f(from + arc.weight, arc); });
}

// A candidate that is not above this score is not in the next beam, because the best beam_size of the `count`
// candidates and of some extensions are. It is at least `worst`. for_each_pair(f) calls f(slot, k) for the extensions.
template <class Scalar, class Knowledge>
template <class ForEachPair>
double Beam<Scalar, Knowledge>::reached_by(int64_t count, double worst, const ForEachPair& for_each_pair) const {
  const int64_t W = p_.beam_size, room = 2 * candidates_kept(W);
  std::copy_n(w_.candidates.score, count, w_.copied);
  int32_t noted = -1;
  for_each_pair([&](int32_t slot, int32_t k) {
    if (noted != slot) note_children(slot);
    noted = slot;
    extend(slot, k, worst, [&](double score, const ScorerArc&) {
      if (score > worst && count < room) w_.copied[count++] = score;
    });
  });
  if (count < W) return worst;
  std::nth_element(w_.copied, w_.copied + W - 1, w_.copied + count, [](double a, double b) { return a > b; });
  return std::max(worst, std::nextafter(w_.copied[W - 1], -double(INFINITY)));
}

// An extension of the prefix in `slot` by a token whose weight has this bound scores at most this and the
// log-probability of the token.
template <class Scalar, class Knowledge>
double Beam<Scalar, Knowledge>::reach_of(int32_t slot, double bound) const {
  const double total = now_.total[slot];
  return total + bound + 4e-16 * std::abs(total);
}

template <class Scalar, class Knowledge>
double Beam<Scalar, Knowledge>::best_reach() const {
  double best = kNever;
  for (int64_t j = 0; j < head().size; ++j) best = std::max(best, reach_of(s_.order[j], w_.bound[s_.order[j]]));
  return best;
}

// Gives places to the tokens that may bring an extension above `worst`, which is raised. False if there are too many:
// then none has a place.
template <class Scalar, class Knowledge>
bool Beam<Scalar, Knowledge>::list_tokens(int64_t count, double& worst) {
  const int64_t most = p_.classes - 1, W = p_.beam_size;
  const int64_t few = p_.scorer.has_lexicon ? most : std::min(most, std::max(kFewTokens, 2 * W));
  const double best = best_reach();
  FoundTokens found = find_tokens(frame_.x, frame_.denominator, worst, best, few, std::min(few, W));
  if (found.count > 2 && !p_.scorer.has_lexicon) {
    worst = reached_by(count, worst, [&](const auto& f) {
      for (int64_t rank = 0; rank < head().size; ++rank) {
        const int64_t end = std::min(found.count, extensions_of_rank(rank, W) - 1);
        for (int32_t k = 0; k < end; ++k) f(s_.order[rank], k);
      }
    });
  }
  if (!found.all) found = find_tokens(frame_.x, frame_.denominator, worst, best, few, 0);
  tokens_ = found.all ? found.count : 0;
  for (int64_t k = 0; k < tokens_; ++k) w_.place[w_.tokens.token[k]] = int32_t(k);
  if (!found.all) sum_with_roots();
  return found.all;
}

// The places of the listed tokens that may bring an extension of a prefix above the worst score, in order. Their
// number.
template <class Scalar, class Knowledge>
int64_t Beam<Scalar, Knowledge>::choose_listed(int32_t slot, double worst) const {
  const double* const y = w_.tokens.y;
  const double total = reach_of(slot, 0);
  const ScorerState& state = s_.scorer[slot];
  const auto passes = [&](double bound, int64_t k) { return total + bound + y[k] > worst; };
  // How many of the tokens, best first, pass with a bound.
  const auto count_passing = [&](double bound) {
    int64_t low = 0;
    for (int64_t end = passes(bound, 0) ? tokens_ : 0; low < end;) {
      const int64_t middle = (low + end) / 2;
      const bool more = passes(bound, middle);
      low = more ? middle + 1 : low;
      end = more ? end : middle;
    }
    return low;
  };
  if (!passes(w_.bound[slot], 0)) return 0;
  const int32_t own = p_.scorer.count_own(state);
  int64_t count = own >= 0 && own <= kFewArcs ? tokens_ : count_passing(w_.bound[slot]);
  const bool walk = own >= 0 && own < 2 * count;
  if (walk) count = count_passing(p_.scorer.rest_bound(state));
  for (int64_t k = 0; k < count; ++k) w_.chosen[k] = int32_t(k);
  if (!walk) return count;
  const int64_t first = count;
  p_.scorer.own_bounds(state, [&](int32_t token, double bound) {
    if (token >= p_.classes) return;  // a scorer may have labels that the input lacks
    const int32_t k = w_.place[token];
    if (k >= first && passes(bound, k)) w_.chosen[count++] = k;
  });
  std::sort(w_.chosen + first, w_.chosen + count);
  return count;
}

// ---- Many tokens: with the weight in the roots added to each, few of them are left for a prefix. The others that it
// ---- may take have an arc on the way to a root.

// Prepares the frame for choose_unlisted().
template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::sum_with_roots() {
  if (!has_roots_) {
    has_roots_ = true;
    for (int32_t c = 0; c < p_.classes; ++c) {
      const double weight = p_.scorer.in_roots(c);
      w_.in_roots[c] = Scalar(weight);
      if (weight > kNever) largest_root_ = std::max(largest_root_, std::abs(weight));
    }
  }
  frame_.best = log_prob(double(row_max(frame_.x, p_.classes)), frame_.denominator);
  frame_.least = frame_.best - p_.token_threshold;
  const Scalar best = for_each_sum_from(frame_.x, w_.in_roots, p_.classes, Scalar(INFINITY), [](int32_t, Scalar) {});
  best_in_roots_ = double(best) - frame_.denominator + 1e-6 * (std::abs(double(best)) + 2 * largest_root_);
}

// The same as choose_listed(), where the tokens are not listed. Those that are chosen get a place. Raises `worst`.
template <class Scalar, class Knowledge>
int64_t Beam<Scalar, Knowledge>::choose_unlisted(int32_t slot, int64_t count, double& worst) {
  const int64_t W = p_.beam_size;
  int64_t choices = gather_choices(slot, worst);
  if (choices > 2 * W) {
    Choice* const all = w_.choices;
    std::nth_element(all, all + W, all + choices, [](const Choice& a, const Choice& b) { return a.reach > b.reach; });
    const double raised = reached_by(count, worst, [&](const auto& f) {
      for (int64_t i = 0; i < W; ++i) {
        const int32_t place = place_of(all[i].token);
        if (place >= 0) f(slot, place);
      }
    });
    if (raised > worst) {
      worst = raised;
      choices = gather_choices(slot, worst);
    }
  }
  int64_t chosen = 0;
  for (int64_t i = 0; i < choices; ++i) {
    w_.chosen[chosen] = place_of(w_.choices[i].token);
    chosen += w_.chosen[chosen] >= 0;
  }
  const FrameTokens<Scalar>& t = w_.tokens;
  std::sort(w_.chosen, w_.chosen + chosen,
            [&t](int32_t a, int32_t b) { return t.y[a] > t.y[b] || (t.y[a] == t.y[b] && t.token[a] < t.token[b]); });
  return chosen;
}

// The tokens that may extend a prefix to a score above `worst`. Their number.
template <class Scalar, class Knowledge>
int64_t Beam<Scalar, Knowledge>::gather_choices(int32_t slot, double worst) const {
  const double total = reach_of(slot, 0);
  if (!(total + w_.bound[slot] + frame_.best > worst)) return 0;
  int64_t choices = 0;
  // The first bound of a token is the one that counts.
  const auto add = [&](int32_t token, double reach) {
    if (token == p_.blank || w_.seen[token]) return;
    w_.seen[token] = 1;
    w_.choices[choices++] = {reach, token};
  };
  const RestBound rest = p_.scorer.for_each_arcs(s_.scorer[slot], [&](const ArcGroup& arcs) {
    if (!(total + arcs.more + arcs.largest + frame_.best > worst)) return;
    for_each_arc_from(frame_.x, p_.classes, arcs.label, arcs.weight, arcs.count,
                      least_sum(total + arcs.more, worst, std::abs(arcs.largest)),
                      [&](int32_t token, Scalar sum) { add(token, total + arcs.more + double(sum)); });
  });
  const double base = total + rest.weight;
  if (!rest.adds_roots) {
    const int64_t found = tokens_from(frame_.x, p_.classes, least_sum(base, worst, 0), p_.classes, w_.tokens.found);
    for (int64_t i = 0; i < found; ++i) add(w_.tokens.found[i].id, base + double(w_.tokens.found[i].x));
  } else if (base + best_in_roots_ > worst) {
    for_each_sum_from(frame_.x, w_.in_roots, p_.classes, least_sum(base, worst, largest_root_),
                      [&](int32_t token, Scalar sum) { add(token, base + double(sum)); });
  }
  for (int64_t i = 0; i < choices; ++i) w_.seen[w_.choices[i].token] = 0;
  return choices;
}

// A token whose score and weight sum to less brings no prefix from `base` above `worst`. `largest` is the absolute
// value of the largest weight.
template <class Scalar, class Knowledge>
Scalar Beam<Scalar, Knowledge>::least_sum(double base, double worst, double largest) const {
  const double sum = worst - base + frame_.denominator, best = frame_.best + frame_.denominator;
  return Scalar(std::isfinite(sum) ? sum - 1e-6 * (std::abs(sum) + std::abs(best) + 2 * largest) : sum);
}

// The place of a token, which it gets where it has none. -1 if no prefix may take it.
template <class Scalar, class Knowledge>
int32_t Beam<Scalar, Knowledge>::place_of(int32_t token) {
  int32_t& place = w_.place[token];
  if (place >= 0) return place;
  const double y = log_prob(double(frame_.x[token]), frame_.denominator);
  if (!(y >= frame_.least)) return -1;
  place = int32_t(tokens_++);
  w_.tokens.token[place] = token;
  w_.tokens.y[place] = y;
  return place;
}

// Keeps the best beam_size of the candidates, in their order. No further candidate matters that is not above the worst.
template <class Scalar, class Knowledge>
int64_t Beam<Scalar, Knowledge>::keep_best(int64_t count, double& worst) {
  const Candidates& found = w_.candidates;
  const int64_t W = p_.beam_size;
  std::copy_n(found.score, count, w_.copied);
  std::nth_element(w_.copied, w_.copied + W - 1, w_.copied + count, [](double a, double b) { return a > b; });
  worst = w_.copied[W - 1];
  int64_t equals = W;  // that are kept
  for (int64_t i = 0; i < W; ++i) equals -= w_.copied[i] > worst;
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double score = found.score[i];
    if (score < worst || (score == worst && equals-- <= 0)) continue;
    found.score[kept] = score;
    found.slot[kept] = found.slot[i];
    found.token[kept] = found.token[i];
    if (found.token[i] != kStays) found.arc[kept] = found.arc[i];
    ++kept;
  }
  return kept;
}

template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::note_children(int32_t slot) const {
  w_.family.for_each(slot, [&](int32_t child) { w_.family.note(s_.last[child], child); });
}

// The children of `slot` are noted, each for its last token. Notes of other slots may be there, too.
template <class Scalar, class Knowledge>
bool Beam<Scalar, Knowledge>::has_child(int32_t slot, int32_t token, int32_t word) const {
  const int32_t noted = w_.family.noted(token);
  if (noted < 0 || s_.parent[noted] != slot || s_.last[noted] != token) return false;
  if (!Knowledge::kWeighs || s_.word[noted] == word) return true;
  bool found = false;  // of the children with this token, one is noted
  w_.family.for_each(slot, [&](int32_t child) { found |= s_.last[child] == token && s_.word[child] == word; });
  return found;
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

// The candidates of a frame: which prefixes may be in the next beam. Included by beam.h.
#pragma once

#include "beam.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// So few are looked at one by one in any case.
constexpr int32_t kFewArcs = 8;

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
int64_t Beam<Scalar, Knowledge>::find_candidates(int64_t tokens, double worst) {
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

// The same with a scorer, whose weights are looked up only where its bounds allow a candidate.
template <class Scalar, class Knowledge>
int64_t Beam<Scalar, Knowledge>::find_weighed_candidates(int64_t tokens, double worst) {
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
  const auto steps = [&](int i, int32_t state, int32_t label) { return w_.steps.find(p_.scorer, i, state, label); };
  place_tokens(tokens);
  for (int64_t rank = 0; tokens > 0 && rank < head().size; ++rank) {
    const int32_t slot = s_.order[rank];
    bool noted = w_.family.empty(slot);
    const int64_t chosen = choose_tokens(slot, tokens, worst);
    for (int64_t i = 0; i < chosen; ++i) {
      const int32_t k = w_.chosen[i], token = w_.tokens.token[k];
      const double from = (token == s_.last[slot] ? now_.blank[slot] : now_.total[slot]) + w_.tokens.y[k];
      if (!(from + w_.bound[slot] > worst)) continue;
      if (!noted) note_children(slot);
      noted = true;
      const auto is_new = [&](int32_t word) { return !has_child(slot, token, word); };
      p_.scorer.extend(s_.scorer[slot], token, worst - from, steps, is_new, [&](const ScorerArc& arc) {
        const double score = from + arc.weight;
        if (!(score > worst)) return;
        found.score[count] = score;
        found.slot[count] = slot;
        found.token[count] = k;
        found.arc[count] = arc;
        if (++count == candidates_kept(p_.beam_size)) count = keep_best(count, worst);
      });
    }
  }
  for (int64_t k = 0; k < tokens; ++k) w_.place[w_.tokens.token[k]] = -1;
  return count;
}

template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::place_tokens(int64_t tokens) const {
  for (int64_t k = 0; k < tokens; ++k) w_.place[w_.tokens.token[k]] = int32_t(k);
}

// The places of the tokens that may bring an extension of a prefix above the worst score, in order. Their number.
template <class Scalar, class Knowledge>
int64_t Beam<Scalar, Knowledge>::choose_tokens(int32_t slot, int64_t tokens, double worst) const {
  const double* const y = w_.tokens.y;
  const double total = now_.total[slot] + 4e-16 * std::abs(now_.total[slot]);
  const ScorerState& state = s_.scorer[slot];
  const auto passes = [&](double bound, int64_t k) { return total + bound + y[k] > worst; };
  // How many of the tokens, best first, pass with a bound.
  const auto count_passing = [&](double bound) {
    int64_t low = 0;
    for (int64_t end = passes(bound, 0) ? tokens : 0; low < end;) {
      const int64_t middle = (low + end) / 2;
      const bool more = passes(bound, middle);
      low = more ? middle + 1 : low;
      end = more ? end : middle;
    }
    return low;
  };
  if (!passes(w_.bound[slot], 0)) return 0;
  const int32_t own = p_.scorer.count_own(state);
  int64_t count = own >= 0 && own <= kFewArcs ? tokens : count_passing(w_.bound[slot]);
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

// An extension of the prefix in `slot` by a token scores at most this and the log-probability of the token.
template <class Scalar, class Knowledge>
double Beam<Scalar, Knowledge>::reach_of(int32_t slot) const {
  const double total = now_.total[slot];
  return total + w_.bound[slot] + 4e-16 * std::abs(total);
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

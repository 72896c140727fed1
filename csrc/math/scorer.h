// What weighs the prefixes of a search: up to three automata over tokens, the first of which may be one over words
// behind a lexicon. Their weights are added.
#pragma once

#include "lexicon.h"

namespace fastctc {

constexpr int kLargestScorer = 3;  // automata

// Bounds of sums of weights have this much to spare: they are rounded in another order than the sums.
constexpr double kSlack = 1e-12;

struct ScorerState {
  int32_t automaton[kLargestScorer];
  int32_t node;  // of the lexicon
};

// One way to take a token.
struct ScorerArc {
  ScorerState state;
  int32_t word;   // that it completes, or kNoWord; the ways of one token differ by it
  double weight;  // a natural logarithm; -inf: there is no such way
};

// One way to end.
struct ScorerEnd {
  int32_t word;
  double weight;
};

// Arcs of one state. A token with one of them has at most its weight and `more`, and any token `largest` and `more`.
struct ArcGroup {
  const int32_t* label;  // in order
  const float* weight;
  int32_t count;
  double more, largest;
};

// A bound of the labels that have no arc on the ways to the roots.
struct RestBound {
  double weight;
  bool adds_roots;  // the weight of the label in the roots is added to it
};

struct Scorer {
  static constexpr bool kWeighs = true;
  AutomatonView automata[kLargestScorer];
  LexiconView lexicon;  // its words are the labels of automata[0]
  int32_t count;        // automata
  bool has_lexicon;

  FASTCTC_HD ScorerState start() const {
    ScorerState s = {{0, 0, 0}, kRoot};
    for (int i = 0; i < count; ++i) s.automaton[i] = automata[i].start;
    return s;
  }

  // No token has more weight from this state.
  FASTCTC_HD double bound(const ScorerState& s) const {
    const double first = has_lexicon ? bound_of(lexicon, automata[0], s.node, s.automaton[0])
                                     : double(automata[0].largest_weight[s.automaton[0]]);
    return first + others_bound(s);
  }

  // The number of tokens that own_bounds() gives a bound of their own; -1: bound() is the only one.
  FASTCTC_HD int32_t count_own(const ScorerState& s) const {
    if (!has_lexicon) {
      const ArcRange arcs = own_arcs(automata[0], s.automaton[0]);
      return arcs.end - arcs.first;
    }
    if (!has_own_bounds(lexicon, s.node)) return -1;
    const int32_t children = s.node == kOutside ? 0 : lexicon.first_arc[s.node + 1] - lexicon.first_arc[s.node];
    return children + (lexicon.boundary == Boundary::kSeparator);
  }
  // Calls f(token, bound) for them.
  template <class F>
  FASTCTC_HD void own_bounds(const ScorerState& s, const F& f) const {
    const double others = others_bound(s);
    if (!has_lexicon) {
      const AutomatonView& a = automata[0];
      const ArcRange arcs = own_arcs(a, s.automaton[0]);
      for (int32_t arc = arcs.first; arc < arcs.end; ++arc) f(a.label[arc], double(a.weight[arc]) + others);
      return;
    }
    if (lexicon.boundary == Boundary::kSeparator) {
      f(lexicon.separator, separator_bound(lexicon, automata[0], s.node, s.automaton[0]) + others);
    }
    if (s.node == kOutside) return;
    for (int32_t arc = lexicon.first_arc[s.node]; arc < lexicon.first_arc[s.node + 1]; ++arc) {
      f(lexicon.label[arc], lexicon.arc_bound[arc + 1] + others);
    }
  }
  // No other token has more weight.
  FASTCTC_HD double rest_bound(const ScorerState& s) const {
    const double first =
        has_lexicon ? fastctc::rest_bound(lexicon, s.node) : fastctc::rest_bound(automata[0], s.automaton[0]);
    return first + others_bound(s);
  }

  // Without a lexicon: calls f(group) for the states on the way of each automaton to its root, most specific first.
  template <class F>
  RestBound for_each_arcs(const ScorerState& s, const F& f) const {
    RestBound rest = {kSlack, true};
    for (int i = 0; i < count; ++i) {
      const AutomatonView& a = automata[i];
      const double others = others_bound(s, i);
      double sum = others;
      int32_t state = s.automaton[i];
      for (; state >= 0 && state != a.dense_state; state = a.failure_state[state]) {
        const ArcRange own = own_arcs(a, state);
        if (own.first > a.first_arc[state]) return {bound(s), false};  // an arc for all others ends the way
        f(ArcGroup{a.label + own.first, a.weight + own.first, own.end - own.first, sum,
                   double(a.largest_weight[state])});
        sum += double(a.failure_weight[state]);
      }
      rest.weight += state < 0 ? -double(INFINITY) : sum - others;
    }
    return rest;
  }
  // The weight of a token in the roots of all automata; -inf if one has no root.
  double in_roots(int32_t token) const {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += step(automata[i], automata[i].dense_state, token).weight;
    return sum;
  }

  // The number of ways to take a token that place() and arc() number; some of them may have the weight -inf.
  FASTCTC_HD int32_t choices(const ScorerState& s, int32_t token) const {
    return has_lexicon ? find_place(lexicon, s.node, token).choices : 1;
  }
  // A step of automaton i. In its place extend() and arc() take what remembers such steps.
  FASTCTC_HD Step operator()(int i, int32_t state, int32_t label) const { return step(automata[i], state, label); }

  // Calls f(arc) for each way to take a token for which wanted(word) is true, in order. Those of a weight below `least`
  // may be left out.
  template <class Steps, class Wanted, class F>
  FASTCTC_HD void extend(const ScorerState& s, int32_t token, double least, const Steps& steps, const Wanted& wanted,
                         const F& f) const {
    const WordPlace place = has_lexicon ? find_place(lexicon, s.node, token) : WordPlace{kNothingEnds, kRoot, 1};
    ScorerArc arc = {s, kNoWord, 0.0};
    bool stepped = false;  // the automata but the one behind the lexicon
    double others = 0;
    for (int32_t choice = 0; choice < place.choices; ++choice) {
      if (!wanted(has_lexicon ? word_of(lexicon, place, choice) : kNoWord)) continue;
      if (!stepped) others = step_others(token, steps, arc.state);
      stepped = true;
      if (!(others > -double(INFINITY))) return;
      arc.weight = others;
      if (!has_lexicon || add_lexicon(s, place, choice, others, least, steps, arc)) f(arc);
    }
  }
  // The way of this number.
  FASTCTC_HD ScorerArc arc(const ScorerState& s, int32_t token, int32_t choice, double least) const {
    ScorerArc arc = {s, kNoWord, -double(INFINITY)};
    const double others = step_others(token, *this, arc.state);
    if (!(others > -double(INFINITY))) return arc;
    if (!has_lexicon) {
      arc.weight = others;
    } else {
      add_lexicon(s, find_place(lexicon, s.node, token), choice, others, least, *this, arc);
    }
    return arc;
  }

  FASTCTC_HD int32_t ways_to_end(const ScorerState& s) const {
    if (!has_lexicon) return 1;
    if (lexicon.boundary == Boundary::kNothing) return s.node == kRoot;
    return fastctc::ways_to_end(lexicon, s.node);
  }
  FASTCTC_HD ScorerEnd end(const ScorerState& s, int32_t choice) const {
    WordArc arc = {s.node, s.automaton[0], kNoWord, 0.0};
    const auto model = [&](int32_t state, int32_t label) { return step(automata[0], state, label); };
    if (has_lexicon) end_word(lexicon, model, s.node, choice, -double(INFINITY), arc);
    if (!(arc.weight > -double(INFINITY))) return {arc.word, arc.weight};
    for (int i = 0; i < count; ++i) {
      arc.weight += double(automata[i].final_weight[i == 0 ? arc.model : s.automaton[i]]);
    }
    return {arc.word, arc.weight};
  }

 private:
  FASTCTC_HD double others_bound(const ScorerState& s, int but = 0) const {
    double sum = kSlack;
    for (int i = 0; i < count; ++i) {
      if (i != but) sum += double(automata[i].largest_weight[s.automaton[i]]);
    }
    return sum;
  }
  // All automata but the one behind the lexicon: the sum of their weights.
  template <class Steps>
  FASTCTC_HD double step_others(int32_t token, const Steps& steps, ScorerState& state) const {
    double sum = 0;
    for (int i = has_lexicon; i < count; ++i) {
      const Step s = steps(i, state.automaton[i], token);
      state.automaton[i] = s.state;
      sum += s.weight;
      if (s.state == kRejected) break;
    }
    return sum;
  }
  template <class Steps>
  FASTCTC_HD bool add_lexicon(const ScorerState& s, const WordPlace& place, int32_t choice, double others, double least,
                              const Steps& steps, ScorerArc& arc) const {
    const auto model = [&](int32_t state, int32_t label) { return steps(0, state, label); };
    const WordArc word = take_token(lexicon, model, s.node, s.automaton[0], place, choice, least - others);
    arc.state.node = word.node;
    arc.state.automaton[0] = word.model;
    arc.word = word.word;
    arc.weight = word.weight + others;
    return arc.weight > -double(INFINITY);
  }
};

// A search without a scorer.
struct NoScorer {
  static constexpr bool kWeighs = false;
};

}  // namespace fastctc

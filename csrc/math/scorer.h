// What weighs the prefixes of a search: up to three automata over tokens, the first of which may be one over words
// behind a lexicon. Their weights are added.
#pragma once

#include "lexicon.h"

namespace fastctc {

constexpr int kLargestScorer = 3;  // automata

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
    double sum = has_lexicon ? bound_of(lexicon, automata[0], s.node, s.automaton[0]) : 0.0;
    for (int i = has_lexicon; i < count; ++i) sum += double(automata[i].largest_weight[s.automaton[i]]);
    return sum;
  }

  // The number of ways to take a token that place() and arc() number; some of them may have the weight -inf.
  FASTCTC_HD int32_t choices(const ScorerState& s, int32_t token) const {
    return has_lexicon ? find_place(lexicon, s.node, token).choices : 1;
  }
  // Calls f(arc) for each way to take a token, in order. Those of a weight below `least` may be left out.
  template <class F>
  FASTCTC_HD void extend(const ScorerState& s, int32_t token, double least, const F& f) const {
    ScorerArc arc = {s, kNoWord, 0.0};
    const double others = step_others(token, arc.state);
    if (!(others > -double(INFINITY))) return;
    if (!has_lexicon) {
      arc.weight = others;
      f(arc);
      return;
    }
    const WordPlace place = find_place(lexicon, s.node, token);
    for (int32_t choice = 0; choice < place.choices; ++choice) {
      if (add_lexicon(s, place, choice, others, least, arc)) f(arc);
    }
  }
  // The way of this number.
  FASTCTC_HD ScorerArc arc(const ScorerState& s, int32_t token, int32_t choice, double least) const {
    ScorerArc arc = {s, kNoWord, -double(INFINITY)};
    const double others = step_others(token, arc.state);
    if (!(others > -double(INFINITY))) return arc;
    if (!has_lexicon) {
      arc.weight = others;
    } else {
      add_lexicon(s, find_place(lexicon, s.node, token), choice, others, least, arc);
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
    if (has_lexicon) end_word(lexicon, automata[0], s.node, choice, -double(INFINITY), arc);
    if (!(arc.weight > -double(INFINITY))) return {arc.word, arc.weight};
    for (int i = 0; i < count; ++i) {
      arc.weight += double(automata[i].final_weight[i == 0 ? arc.model : s.automaton[i]]);
    }
    return {arc.word, arc.weight};
  }

 private:
  // All automata but the one behind the lexicon: the sum of their weights.
  FASTCTC_HD double step_others(int32_t token, ScorerState& state) const {
    double sum = 0;
    for (int i = has_lexicon; i < count; ++i) {
      const Step s = step(automata[i], state.automaton[i], token);
      state.automaton[i] = s.state;
      sum += s.weight;
      if (s.state == kRejected) break;
    }
    return sum;
  }
  FASTCTC_HD bool add_lexicon(const ScorerState& s, const WordPlace& place, int32_t choice, double others, double least,
                              ScorerArc& arc) const {
    const WordArc word = take_token(lexicon, automata[0], s.node, s.automaton[0], place, choice, least - others);
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

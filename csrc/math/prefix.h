// Prefix beam search (Graves, 2012, "Supervised Sequence Labeling", 7.5.3; Hannun et al., 2014, arXiv:1408.2873): the
// rules of one frame, for both machines.
//
// A beam holds up to W prefixes. Each has the probability of all paths that spell it, separately for paths that end in
// the blank and for paths that end in its last token:
//
//               blank'                 total = blank + label
//    stay       total * y(blank)       blank: by the blank                           y(c): probability of class c
//    stay       label'                 label: by repeating the last token,           in this frame
//               (label + reach) * y(last)     or from the prefix one token shorter, if that is in the beam too:
//                                             reach = its total, or its blank if its last token is the same
//    extend     reach * y(c)           a new prefix, unless that is in the beam already
//
// Then the best W of all stays and extensions make the next beam. Equal scores are ordered: stays before extensions;
// stays by rank; extensions by the rank of the prefix, then by the probability of the token, then by the token.
//
// Each prefix also has its best path of each kind. The results report the runs of the tokens on it.
//
// A scorer (scorer.h) multiplies y(c) where a token enters a prefix, in extensions and in what comes from the prefix
// one token shorter, by exp(weight). The weight depends on the prefix alone, so sums over paths stay sums over paths.
// If the scorer has several ways to take the token, each is a prefix of its own, told apart by the word that it
// completes.
#pragma once

#include <cstdint>

#include "emission.h"
#include "log_space.h"
#include "scorer.h"

namespace fastctc {

// A larger score is no log-probability: the input is probabilities or logits. Rounding may exceed 0.
constexpr double kLargestLogProb = 0.01;

// The log-probability of a class: its score less the softmax denominator of the frame, which is 0 for
// log-probabilities. A masked class has -inf.
FASTCTC_HD double log_prob(double score, double log_denominator) {
  return score < double(kZeroLog) ? -INFINITY : score - log_denominator;
}

// The probabilities of prefixes, one per lane; natural logarithms.
template <class W>
struct Prefixes {
  typename W::F total, blank, label;     // of all paths, of those that end in the blank, in the last token
  typename W::F best_blank, best_label;  // of the best path of each kind
};

// One frame later. `reach` and `best_reach` lead here from the prefix one token shorter, y and y_blank are the
// log-probabilities of the last token and of the blank.
template <class W>
FASTCTC_HD Prefixes<W> stay(const Prefixes<W>& p, typename W::F reach, typename W::F best_reach, typename W::F y,
                            typename W::F y_blank) {
  Prefixes<W> next;
  next.blank = p.total + y_blank;
  next.label = log_add<W>(p.label, reach) + y;
  next.total = log_add<W>(next.blank, next.label);
  next.best_blank = W::max(p.best_blank, p.best_label) + y_blank;
  next.best_label = W::max(p.best_label, best_reach) + y;
  return next;
}

// How many of a frame's tokens, most probable first, the prefix of this rank can be extended by. The extension of rank
// r by token k scores no more than those of ranks <= r by tokens <= k, of which one for each rank may not exist (the
// repeated last token): with (r + 1) k > W there are W before it. Where an extension is in the beam already, its stay
// is before it.
FASTCTC_HD int64_t extensions_of_rank(int64_t rank, int64_t beam_size) { return beam_size / (rank + 1) + 1; }

// The number of a frame's tokens that can enter the beam.
FASTCTC_HD int64_t tokens_that_matter(int64_t classes, int64_t beam_size) {
  return beam_size + 1 < classes - 1 ? beam_size + 1 : classes - 1;
}

// With a scorer there may be any number of extensions. When so many candidates are there, only the best beam_size stay.
FASTCTC_HD int64_t candidates_kept(int64_t beam_size) { return 2 * beam_size + 64; }

// The identity of a prefix, up to coincidences that are checked for.
constexpr uint64_t kEmptyPrefix = 0x9e3779b97f4a7c15u;
FASTCTC_HD uint64_t extend_hash(uint64_t prefix, int32_t token, int32_t word) {
  const uint64_t arc = uint64_t(uint32_t(word + 1)) << 32 | uint32_t(token);
  uint64_t h = (prefix ^ (arc + 1)) * 0xff51afd7ed558ccdu;
  h = (h ^ h >> 32) * 0xc4ceb9fe1a85ec53u;
  return h ^ h >> 29;
}

// The run of a token on a path: the consecutive frames of the token, from its first one on.
struct TokenRun {
  int32_t end;         // the frame after the last
  int32_t peak_frame;  // the first frame of the highest log-probability
  float peak, sum;     // the highest log-probability, and the sum over the run
};

// A token on a path, in the arena of its sample. Nodes are never changed, so paths share their beginnings.
struct BeamNode {
  int32_t previous;  // the token before, or -1
  int32_t token;
  int32_t frame;          // the first frame of its run
  TokenRun previous_run;  // of the token before
  int32_t word;           // that the arc of the token completes, or kNoWord
};

// True if two paths have the same tokens and words. From their first common node on they do.
FASTCTC_HD bool spell_the_same(const BeamNode* arena, int64_t a, int64_t b) {
  while (a != b) {
    if (a < 0 || b < 0 || arena[a].token != arena[b].token || arena[a].word != arena[b].word) return false;
    a = arena[a].previous;
    b = arena[b].previous;
  }
  return true;
}

}  // namespace fastctc

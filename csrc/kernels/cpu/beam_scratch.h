// The working memory of a prefix search, for one thread.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../beam_search.h"
#include "beam_family.h"
#include "rank.h"
#include "step_memory.h"
#include "top_tokens.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

constexpr double kNever = -INFINITY;

// Prefixes that may be in the next beam, in the order of equal scores: stays, then extensions.
struct Candidates {
  double* score;
  int32_t* slot;   // of the prefix that stays or is extended
  int32_t* token;  // its place in the frame's tokens; kStays
  ScorerArc* arc;  // of an extension, with a scorer
};
constexpr int32_t kStays = -1;

// A token that may extend a prefix, to a score of at most `reach`.
struct Choice {
  double reach;
  int32_t token;
};

// A prefix that was not in the beam.
struct Birth {
  double score, best, y;
  uint64_t hash, parent_hash;
  int32_t token, parent, length, node;
  ScorerArc arc;  // with a scorer
  double model;
};

inline int64_t max_extensions(int64_t beam_size) {
  int64_t sum = 0;
  for (int64_t rank = 0; rank < beam_size; ++rank) sum += extensions_of_rank(rank, beam_size);
  return sum;
}

// The working memory of a thread.
template <class Scalar, class Knowledge = NoScorer>
struct BeamScratch {
  Workspace memory;
  BeamScores next;
  Scalar* row;
  FrameTokens<Scalar> tokens;
  double* y_last;  // of each slot: the log-probability of its last token
  int32_t* reach;  // of each slot: the place of its parent's contribution, counted from total[0] (and best[0])
  BeamFamily family;
  int32_t* vacant;    // slots
  uint8_t* restarts;  // of each slot: true if its best path now comes from the parent
  uint8_t* dropped;   // of each slot
  double* bound;      // of each slot: the scorer gives no token more weight
  int32_t* place;     // of each class: its place in the frame's tokens, or -1
  Scalar* in_roots;   // of each class: its weight in the roots of the scorer
  uint8_t* seen;      // of each class: true if it is among the choices
  Choice* choices;
  int32_t* chosen;  // places of tokens
  Candidates candidates;
  double* copied;   // scores of the candidates
  int32_t* ranked;  // candidates or tokens, best first
  Birth* births;
  std::conditional_t<Knowledge::kWeighs, StepMemory, NoSteps> steps;

  BeamScratch(void* base, const BeamSearchParams& p)
      : memory(base),
        next(memory, BeamState::stride_for(p.beam_size)),
        row(memory.take<Scalar>(p.classes)),
        family(memory, BeamState::stride_for(p.beam_size), p.classes),
        steps(memory) {
    const int64_t slots = BeamState::stride_for(p.beam_size);
    tokens.maxima = memory.take<Scalar>(p.classes);
    tokens.found = memory.take<Token<Scalar>>(p.classes);
    tokens.token = memory.take<int32_t>(p.classes);
    tokens.y = memory.take<double>(p.classes + kRankedTogether);
    y_last = memory.take<double>(slots);
    reach = memory.take<int32_t>(slots);
    vacant = memory.take<int32_t>(slots);
    restarts = memory.take<uint8_t>(slots);
    dropped = memory.take<uint8_t>(slots);
    bound = memory.take<double>(Knowledge::kWeighs ? slots : 0);
    place = memory.take<int32_t>(Knowledge::kWeighs ? p.classes : 0);
    in_roots = memory.take<Scalar>(Knowledge::kWeighs ? p.classes : 0);
    seen = memory.take<uint8_t>(Knowledge::kWeighs ? p.classes : 0);
    choices = memory.take<Choice>(Knowledge::kWeighs ? p.classes : 0);
    chosen = memory.take<int32_t>(Knowledge::kWeighs ? p.classes : 0);
    const int64_t most = Knowledge::kWeighs ? candidates_kept(p.beam_size) : p.beam_size + max_extensions(p.beam_size);
    const int64_t count = std::max(most, p.classes) + kRankedTogether;
    candidates = {memory.take<double>(count), memory.take<int32_t>(count), memory.take<int32_t>(count),
                  memory.take<ScorerArc>(Knowledge::kWeighs ? count : 0)};
    copied = memory.take<double>(Knowledge::kWeighs ? 2 * candidates_kept(p.beam_size) : 0);
    ranked = tokens.ranked = memory.take<int32_t>(count);
    births = memory.take<Birth>(p.beam_size);
  }
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

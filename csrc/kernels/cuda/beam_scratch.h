// The working memory of a prefix search, for one block, and the values of a prefix that a thread keeps in registers.
#pragma once

#include "../beam_search.h"
#include "block_team.h"
#include "top_tokens.h"

namespace fastctc {
namespace cuda {

constexpr int64_t kSharedCandidates = 2048;  // more are ranked in global memory
constexpr double kNever = -INFINITY;

// The values that depend on the shapes alone.
struct BeamShape {
  int64_t beam_size, tokens;  // tokens of a frame
  int64_t candidates;         // at most, rounded up to a power of two
  size_t shared_bytes;
};

// The working memory of a block, but for the state.
template <class Scalar, bool kOneWarp>
struct BeamScratch {
  using Team = BlockTeam<kOneWarp>;
  typename Team::Shared* shared;
  double* scores;          // of the candidates
  double* winner_score;    // by next rank
  int32_t* candidates;     // their numbers, for sorting
  int32_t* winner;         // by next rank: a candidate
  int32_t *rank, *stayed;  // of each slot
  int32_t* first;          // of each rank: the number of its first extension
  int32_t* vacant;         // slots for new prefixes
  double* many_scores;     // the same in global memory, for as many as there can be
  int32_t* many_candidates;
  FrameScores* frame;  // two frames: this one and the one that is loaded meanwhile
  Scalar* x;           // scores of the tokens of each of them, most probable first
  int32_t* token;      // the tokens
  size_t size;

  __host__ __device__ BeamScratch(void* base, const BeamShape& shape, double* many_scores, int32_t* many_candidates)
      : many_scores(many_scores), many_candidates(many_candidates) {
    const int64_t W = shape.beam_size;
    const int64_t n = shape.candidates < kSharedCandidates ? shape.candidates : kSharedCandidates;
    Workspace w(base);
    shared = w.take<typename Team::Shared>(1);
    scores = w.take<double>(n);
    winner_score = w.take<double>(W);
    candidates = w.take<int32_t>(n);
    winner = w.take<int32_t>(W);
    rank = w.take<int32_t>(W);
    stayed = w.take<int32_t>(W);
    first = w.take<int32_t>(W + 1);
    vacant = w.take<int32_t>(W);
    frame = w.take<FrameScores>(2);
    x = w.take<Scalar>(2 * shape.tokens);
    token = w.take<int32_t>(2 * shape.tokens);
    size = w.size();
  }
};

// Where a prefix one token longer comes from: all paths that it may continue, and the best of them.
struct Source {
  double total, best;
};

// What becomes of the prefix in a slot; kept in registers until all threads have read the old beam.
struct Stay {
  Prefixes<Lanes<double>> next;
  double y;       // of its last token
  bool restarts;  // true if its best path in that token now comes from the parent
};

// A new prefix.
struct Birth {
  double best, y;
  int32_t token, parent, length;
  uint64_t parent_hash;
};

}  // namespace cuda
}  // namespace fastctc

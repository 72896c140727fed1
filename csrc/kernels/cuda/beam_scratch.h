// The working memory of a prefix search, for one block, and the values of a prefix that a thread keeps in registers.
#pragma once

#include "../beam_search.h"
#include "block_team.h"
#include "top_tokens.h"

namespace fastctc {
namespace cuda {

constexpr int64_t kSharedCandidates = 2048;  // more are ranked in global memory; a beam of one warp has fewer
constexpr int kSharedBeam = 256;             // the state of a wider beam is in global memory
constexpr double kNever = -INFINITY;

// The values that depend on the shapes alone.
struct BeamShape {
  int64_t beam_size, tokens;  // tokens of a frame in shared memory
  int64_t candidates;         // at most, rounded up to a power of two
  int64_t sorted;             // tokens of a row that the search may have to sort, rounded up; 0: all are listed
  size_t shared_bytes;
};

// Where a candidate comes from.
struct Origin {
  int32_t slot;    // of the prefix that stays or is extended
  int32_t place;   // of the token in the order of the frame, or kStays
  int32_t choice;  // of the scorer's ways to take the token
};
constexpr int32_t kStays = -1;

// With a scorer, the extensions of a rank by a token from one choice on, and what they must be above.
struct Pair {
  int32_t rank, place, choice;
  double worst;
};

// The part of the working memory of a block that is in global memory.
template <class Scalar>
struct GlobalScratch {
  double* scores;       // of the candidates, where they do not fit into shared memory
  int32_t* candidates;  // the same
  // With a scorer:
  Origin* origins;  // of the candidates
  Scalar* x;        // scores of all tokens of a frame, and the tokens, where not all of them are listed
  int32_t* token;

  __host__ __device__ GlobalScratch(Workspace& w, const BeamShape& shape, int64_t batch, bool weighs) {
    const int64_t many = shape.candidates > kSharedCandidates ? batch * shape.candidates : 0;
    scores = w.take<double>(many);
    candidates = w.take<int32_t>(many);
    origins = w.take<Origin>(weighs && shape.beam_size > kSharedBeam ? batch * shape.candidates : 0);
    x = w.take<Scalar>(batch * shape.sorted);
    token = w.take<int32_t>(batch * shape.sorted);
  }
  // The part of a sample.
  __device__ __forceinline__ GlobalScratch of(int64_t n, const BeamShape& shape) const {
    GlobalScratch g = *this;
    g.scores += n * shape.candidates;
    g.candidates += n * shape.candidates;
    g.origins += n * shape.candidates;
    g.x += n * shape.sorted;
    g.token += n * shape.sorted;
    return g;
  }
};

// The working memory of a block, but for the state.
template <class Scalar, bool kOneWarp, class Knowledge>
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
  FrameScores* frame;      // two frames: this one and the one that is loaded meanwhile
  Scalar* x;               // scores of the tokens of each of them, most probable first
  int32_t* token;          // the tokens
  // With a scorer:
  double* bound;    // of each slot: the scorer gives no token more weight
  double* raised;   // what candidates must be above
  Origin* origins;  // of the candidates
  Pair* next;       // whose extensions are found next
  size_t size;
  GlobalScratch<Scalar> global;

  __host__ __device__ BeamScratch(void* base, const BeamShape& shape, const GlobalScratch<Scalar>& global)
      : global(global) {
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
    if constexpr (Knowledge::kWeighs) {
      bound = w.take<double>(W);
      raised = w.take<double>(1);
      next = w.take<Pair>(1);
      const bool few = kOneWarp || W <= kSharedBeam;
      origins = few ? w.take<Origin>(candidates_kept(W)) : global.origins;
      if (!kOneWarp && shape.candidates > kSharedCandidates) {
        scores = global.scores;
        candidates = global.candidates;
      }
    }
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
  // With a scorer:
  ScorerArc arc;
  double model;
};

}  // namespace cuda
}  // namespace fastctc

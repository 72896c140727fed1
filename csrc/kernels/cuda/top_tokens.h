// The softmax denominator and the most probable tokens of each frame, computed before the beam search.
#pragma once

#include "../beam_search.h"
#include "launch.h"

namespace fastctc {
namespace cuda {

struct FrameScores {
  double log_denominator, best, blank;  // best and blank are log-probabilities
  int64_t status;                       // kOk, kNotANumber, or kInvalid where a log-probability is too large for one
};

// The number of tokens of a frame that are listed. With a scorer more may matter: the search sorts the row where they
// do.
inline __host__ __device__ int64_t tokens_listed(const BeamSearchParams& p) {
  constexpr int64_t kMost = cuda::kLargestBeam + 1;
  if (!p.weighs) return tokens_that_matter(p.classes, p.beam_size);
  return kMost < p.classes - 1 ? kMost : p.classes - 1;
}

// Of a chunk of frames of all samples.
template <class Scalar>
struct TopTokens {
  int64_t frames, count;  // of the chunk; tokens of a frame
  FrameScores* scores;    // (N, frames)
  Scalar* x;       // (N, frames, count) the scores of the tokens, larger ones first; of equal ones the lower token
  int32_t* token;  // (N, frames, count)

  TopTokens(Workspace& w, const BeamSearchParams& p, int64_t frames)
      : frames(frames),
        count(tokens_listed(p)),
        scores(w.take<FrameScores>(p.batch * frames)),
        x(w.take<Scalar>(p.batch * frames * count)),
        token(w.take<int32_t>(p.batch * frames * count)) {}
};

// Of the frames from `first` on; those beyond the length of a sample are left out.
template <class Scalar>
cudaError_t find_top_tokens(const BeamSearchParams& p, int64_t first, const TopTokens<Scalar>& out,
                            cudaStream_t stream);

}  // namespace cuda
}  // namespace fastctc

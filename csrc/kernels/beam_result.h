// The result of a beam search, for a warp of lanes `W` of double on either machine (math/scaled_float.h).
#pragma once

#include "../math/log_space.h"
#include "beam_search.h"

namespace fastctc {

// Writes hypothesis `rank` of sample n. One lane follows its path backwards, then all lanes do the rest.
template <class W, class Scalar>
FASTCTC_HD void write_hypothesis(const BeamResultParams& p, int64_t n, int64_t rank) {
  const BeamState s(const_cast<char*>(p.state) + n * p.state_stride, p.beam_size);
  const BeamNode* const arena = p.arena + n * p.arena_stride;
  const BeamHeader& header = *s.header;
  const int64_t hypothesis = n * p.nbest + rank;
  const int64_t first = hypothesis * p.max_length;
  int64_t *const tokens = p.tokens + first, *const timesteps = p.timesteps + first;
  int64_t *const ends = p.ends + first, *const peaks = p.peaks + first;
  Scalar* const confidences = static_cast<Scalar*>(p.confidences) + first;
  Scalar* const token_scores = static_cast<Scalar*>(p.token_scores) + first;
  int64_t length = 0, node = -1;
  TokenRun run = {};
  double score = -double(INFINITY), path_score = score;
  if (header.status != kOk || (rank < header.size && s.length[s.order[rank]] > p.max_length)) {
    score = path_score = double(NAN);
  } else if (!header.started) {  // the empty prefix, of probability 1
    if (rank == 0) score = path_score = 0;
  } else if (rank < header.size) {
    const int32_t slot = s.order[rank];
    length = s.length[slot];
    score = at_most_zero(s.scores.total[slot]);
    path_score = at_most_zero(s.scores.path_score(slot));
    node = s.scores.node(slot);
    run = s.scores.last_run(slot, s.scores.ends_in_label(slot), header.frame);
  }
  W::for_each(1, [&](int64_t) {
    for (int64_t i = length - 1; i >= 0; --i) {
      const BeamNode a = arena[node];
      tokens[i] = a.token;
      timesteps[i] = a.frame;
      ends[i] = run.end;
      peaks[i] = run.peak_frame;
      confidences[i] = Scalar(run.peak);  // its logarithm
      token_scores[i] = Scalar(at_most_zero(double(run.sum) / (run.end - a.frame)));
      run = a.previous_run;
      node = a.previous;
    }
    p.lengths[hypothesis] = length;
    static_cast<Scalar*>(p.scores)[hypothesis] = Scalar(score);
    static_cast<Scalar*>(p.path_scores)[hypothesis] = Scalar(path_score);
  });
  W::sync();
  W::for_each(length, [&](int64_t i) {
    const double x = at_most_zero(double(confidences[i]));
    confidences[i] = x < -700 ? Scalar(0) : Scalar(W::single(exp_of_negative<W>(W::set(x))));
  });
  W::for_each(p.max_length - length, [&](int64_t i) {
    tokens[length + i] = timesteps[length + i] = ends[length + i] = peaks[length + i] = -1;
    confidences[length + i] = token_scores[length + i] = 0;
  });
}

}  // namespace fastctc

// The result of a beam search, for a warp of lanes `W` of double on either machine (math/scaled_float.h).
#pragma once

#include "../math/log_space.h"
#include "beam_search.h"

namespace fastctc {

// Writes hypothesis `rank` of sample n. One lane walks its path backwards, then all of them do the rest.
template <class W, class Scalar>
FASTCTC_HD void write_hypothesis(const BeamResultParams& p, int64_t n, int64_t rank) {
  const BeamState s(const_cast<char*>(p.state) + n * p.state_stride, p.beam_size);
  const BeamNode* const arena = p.arena + n * p.arena_stride;
  const BeamHeader& header = *s.header;
  const int64_t hypothesis = n * p.nbest + rank;
  int64_t* const tokens = p.tokens + hypothesis * p.max_length;
  int64_t* const timesteps = p.timesteps + hypothesis * p.max_length;
  Scalar* const confidences = static_cast<Scalar*>(p.confidences) + hypothesis * p.max_length;
  int64_t length = 0, node = -1;
  float peak = 0;
  double score = -double(INFINITY);
  if (header.status != kOk) {
    score = double(NAN);
  } else if (!header.started) {  // the empty prefix, of probability 1
    if (rank == 0) score = 0;
  } else if (rank < header.size && s.length[s.order[rank]] > p.max_length) {
    score = double(NAN);
  } else if (rank < header.size) {
    const int32_t slot = s.order[rank];
    length = s.length[slot];
    score = s.scores.total[slot];
    node = s.scores.path(slot);
    peak = float(s.scores.peak(slot));
  }
  W::for_each(1, [&](int64_t) {
    for (int64_t i = length - 1; i >= 0; --i) {
      const BeamNode a = arena[node];
      tokens[i] = a.token;
      timesteps[i] = a.frame;
      confidences[i] = Scalar(peak);
      peak = a.previous_peak;
      node = a.previous;
    }
    p.lengths[hypothesis] = length;
    static_cast<Scalar*>(p.scores)[hypothesis] = Scalar(score);
  });
  W::sync();
  W::for_each(length, [&](int64_t i) {
    const double logarithm = double(confidences[i]);
    const double x = logarithm < 0 ? logarithm : 0.0;
    confidences[i] = x < -700 ? Scalar(0) : Scalar(W::single(exp_of_negative<W>(W::set(x))));
  });
  W::for_each(p.max_length - length, [&](int64_t i) {
    tokens[length + i] = timesteps[length + i] = -1;
    confidences[length + i] = 0;
  });
}

}  // namespace fastctc

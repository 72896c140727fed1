// Greedy (best path) decoding: the most probable class of every frame, repeats merged, blanks dropped.
//
// Ties go to the lowest class. A sample gets length 0 and score NaN where its input length is out of range, or where a
// frame in use has a NaN, a logit of +inf, or a log-probability above kLargestLogProb.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "../math/log_space.h"
#include "dtype.h"

namespace fastctc {

struct GreedyDecodeParams {
  const void* input;  // (N, T, C) log-probabilities or logits; strides in elements
  DType dtype;
  int64_t stride_n, stride_t, stride_c;
  int64_t batch, frames, classes;
  const int64_t* input_lengths;  // (N)
  int64_t blank;
  bool from_logits;  // scores are then those of the log-softmax
  int64_t* tokens;   // (N, T), padded with -1
  int64_t* lengths;  // (N)
  void* scores;      // (N) float, or double for kFloat64: natural-log probability of the best path
  // (N, T), of each token's run:
  int64_t* timesteps;  // the first frame, padded with -1
  int64_t* ends;       // the frame after the last, padded with -1
  int64_t* peaks;      // the first frame of the highest probability, padded with -1
  void* confidences;   // like scores: the highest probability, padded with 0
  void* token_scores;  // like scores: the mean of the natural-log probabilities, padded with 0
};

// The outputs of one sample.
template <class Scalar>
struct GreedyOutput {
  int64_t *tokens, *timesteps, *ends, *peaks;
  Scalar *confidences, *token_scores;

  FASTCTC_HD GreedyOutput(const GreedyDecodeParams& p, int64_t n) {
    const int64_t first = n * p.frames;
    tokens = p.tokens + first;
    timesteps = p.timesteps + first;
    ends = p.ends + first;
    peaks = p.peaks + first;
    confidences = static_cast<Scalar*>(p.confidences) + first;
    token_scores = static_cast<Scalar*>(p.token_scores) + first;
  }
  // A run of frames [start, end) with its highest log-probability and the sum of all. W is of doubles.
  template <class W>
  FASTCTC_HD void put(int64_t i, int64_t token, int64_t start, int64_t end, int64_t peak_frame, double peak,
                      double sum) const {
    tokens[i] = token;
    timesteps[i] = start;
    ends[i] = end;
    peaks[i] = peak_frame;
    confidences[i] = Scalar(probability_of<W>(at_most_zero(peak)));
    token_scores[i] = Scalar(at_most_zero(sum / double(end - start)));
  }
  FASTCTC_HD void pad(int64_t i) const {
    tokens[i] = timesteps[i] = ends[i] = peaks[i] = -1;
    confidences[i] = token_scores[i] = 0;
  }
};

namespace cpu {
// Samples [begin, end), with a workspace for one thread.
size_t greedy_decode_workspace(const GreedyDecodeParams& p);
void greedy_decode(const GreedyDecodeParams& p, int64_t begin, int64_t end, void* workspace);
}  // namespace cpu

namespace cuda {
size_t greedy_decode_workspace(const GreedyDecodeParams& p);
int greedy_decode(const GreedyDecodeParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace fastctc

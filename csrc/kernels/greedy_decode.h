// Greedy (best path) decoding: the most probable class of every frame, repeats merged, blanks dropped.
//
// Ties go to the lowest class. A sample with a NaN in a used frame gets length 0 and score NaN; so does one whose input
// length is out of range.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtype.h"

namespace fastctc {

struct GreedyDecodeParams {
  const void* input;  // (N, T, C) log-probabilities or logits; strides in elements
  DType dtype;
  int64_t stride_n, stride_t, stride_c;
  int64_t batch, frames, classes;
  const int64_t* input_lengths;  // (N)
  int64_t blank;
  bool from_logits;    // scores are then those of the log-softmax
  int64_t* tokens;     // (N, T), padded with -1
  int64_t* lengths;    // (N)
  void* scores;        // (N) float, or double for kFloat64: natural-log probability of the best path
  int64_t* timesteps;  // (N, T) the first frame of each token's run, padded with -1
  void* confidences;   // (N, T) like scores: the highest probability of the token in its run, padded with 0
};

namespace cpu {
// Samples [begin, end).
void greedy_decode(const GreedyDecodeParams& p, int64_t begin, int64_t end);
}  // namespace cpu

namespace cuda {
size_t greedy_decode_workspace(const GreedyDecodeParams& p);
int greedy_decode(const GreedyDecodeParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace fastctc

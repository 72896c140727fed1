// CTC prefix beam search: math/prefix.h over all frames of a batch.
//
// Between calls the beam of a sample is in its BeamState, so an utterance may come in chunks of any size. A state of
// zero bytes is the state before the first frame. Paths are tokens with frames in the arena of the sample. Nodes are
// added to it and never changed. A state and an arena that cpu:: wrote are not valid for cuda::, nor the reverse.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../math/lattice.h"
#include "../math/prefix.h"
#include "dtype.h"
#include "workspace.h"

namespace fastctc {

constexpr int64_t kLargestArena = INT32_MAX;  // nodes: an int32 numbers them

struct BeamSearchParams {
  const void* input;  // (N, T, C) log-probabilities or logits; strides in elements
  DType dtype;
  int64_t stride_n, stride_t, stride_c;
  int64_t batch, frames, classes;
  const int64_t* input_lengths;  // (N) frames in use
  int64_t beam_size, blank;
  bool from_logits;  // search under the log-softmax
  // Natural logarithms. With infinity there is no cut, and the search is exact.
  double beam_threshold;               // a prefix this far below the best is dropped
  double token_threshold;              // a token this far below the best class of its frame is not tried
  double blank_skip;                   // a frame whose blank has more than this counts as blank for certain
  Scorer scorer;                       // where `weighs`
  bool weighs;                         // by the scorer
  char* state;                         // (N, BeamState::bytes(beam_size, weighs)), 64-byte aligned
  BeamNode* arena;                     // (N, capacity)
  int64_t state_stride, arena_stride;  // bytes and nodes from sample to sample; 0: all samples use the same
  int64_t capacity;                    // nodes: at least beam_size for each frame since the start
};

// Calls f with a value of the type Scorer or NoScorer.
template <class F>
auto with_knowledge(const BeamSearchParams& p, const F& f) {
  return p.weighs ? f(Scorer{}) : f(NoScorer{});
}

struct BeamHeader {
  int64_t frame;  // frames searched
  int64_t nodes;  // of the arena in use (CPU)
  int32_t started;
  int32_t size;   // prefixes in the beam
  int32_t slots;  // slots in use so far
  Status status;  // kNotANumber, or kInvalid: log-probabilities above kLargestLogProb, wrong lengths, arena full
};

// The values that change with every frame, for the prefixes in `stride` slots. The arrays are contiguous in this order.
struct BeamScores {
  double *total, *blank, *nothing;           // Prefixes, and -inf
  double *best, *best_blank, *best_nothing;  // the better of best_blank and best_label; and -inf
  double *label, *best_label;
  // Of the best path of each kind:
  double *peak_blank, *peak_label;   // the highest log-probability in its last run
  double *sum_blank, *sum_label;     // the sum of log-probabilities over that run
  int64_t *path_blank, *path_label;  // its last node, and in the upper half the frame of the peak
  int64_t* end_blank;                // the frame after its last run; with path_label the run has not ended yet

  static constexpr int kArrays = 15;

  FASTCTC_HD BeamScores(Workspace& w, int64_t stride) {
    total = w.take<double>(stride);
    blank = w.take<double>(stride);
    nothing = w.take<double>(stride);
    best = w.take<double>(stride);
    best_blank = w.take<double>(stride);
    best_nothing = w.take<double>(stride);
    label = w.take<double>(stride);
    best_label = w.take<double>(stride);
    peak_blank = w.take<double>(stride);
    peak_label = w.take<double>(stride);
    sum_blank = w.take<double>(stride);
    sum_label = w.take<double>(stride);
    path_blank = w.take<int64_t>(stride);
    path_label = w.take<int64_t>(stride);
    end_blank = w.take<int64_t>(stride);
  }

  static FASTCTC_HD int64_t pack(int64_t peak_frame, int64_t node) { return peak_frame << 32 | node; }
  static FASTCTC_HD int32_t node_of(int64_t path) { return int32_t(path); }

  // Of the best path of the prefix in a slot.
  FASTCTC_HD bool ends_in_label(int64_t slot) const { return best_label[slot] > best_blank[slot]; }
  FASTCTC_HD double path_score(int64_t slot) const { return ends_in_label(slot) ? best_label[slot] : best_blank[slot]; }
  FASTCTC_HD int32_t node(int64_t slot) const {
    return node_of(ends_in_label(slot) ? path_label[slot] : path_blank[slot]);
  }
  // The last run of the best path of one kind, after `frames` frames.
  FASTCTC_HD TokenRun last_run(int64_t slot, bool in_label, int64_t frames) const {
    const int64_t path = in_label ? path_label[slot] : path_blank[slot];
    return {int32_t(in_label ? frames : end_blank[slot]), int32_t(path >> 32),
            float(in_label ? peak_label[slot] : peak_blank[slot]), float(in_label ? sum_label[slot] : sum_blank[slot])};
  }
};

// A prefix keeps its slot for as long as it is in the beam. A slot without a prefix has total -inf.
struct BeamState {
  // beam_size, rounded up: arrays have room for full vectors and are 64-byte aligned.
  static FASTCTC_HD int64_t stride_for(int64_t beam_size) { return (beam_size + 15) / 16 * 16; }

  Workspace memory;
  int64_t stride;
  BeamHeader* header;
  BeamScores scores;
  int32_t* last;    // token; the blank for the empty prefix and for no prefix
  int32_t* parent;  // slot of the prefix one token shorter, -1 if it is not in the beam
  int32_t* length;
  uint64_t *hash, *parent_hash;
  int32_t* order;  // slots by rank
  // With a scorer, of each slot:
  ScorerState* scorer;          // after the prefix
  double *model, *last_weight;  // the weights of all tokens, and of the last one
  int32_t* word;                // that the last token completes, or kNoWord

  FASTCTC_HD BeamState(void* base, int64_t beam_size, bool weighs)
      : memory(base),
        stride(stride_for(beam_size)),
        header(memory.take<BeamHeader>(1)),
        scores(memory, stride),
        last(memory.take<int32_t>(stride)),
        parent(memory.take<int32_t>(stride)),
        length(memory.take<int32_t>(stride)),
        hash(memory.take<uint64_t>(stride)),
        parent_hash(memory.take<uint64_t>(stride)),
        order(memory.take<int32_t>(stride)),
        scorer(memory.take<ScorerState>(weighs ? stride : 0)),
        model(memory.take<double>(weighs ? stride : 0)),
        last_weight(memory.take<double>(weighs ? stride : 0)),
        word(memory.take<int32_t>(weighs ? stride : 0)) {}
  static FASTCTC_HD size_t bytes(int64_t beam_size, bool weighs) {
    return BeamState(nullptr, beam_size, weighs).memory.size();
  }
};

// A prefix of the last beam, and a way of the scorer to end it.
struct Ending {
  double weight;
  int32_t slot;  // -1: there is no such hypothesis
  int32_t word;  // that the end completes, or kNoWord
};

struct BeamResultParams {
  const char* state;
  const BeamNode* arena;
  int64_t state_stride, arena_stride;
  int64_t batch, beam_size, nbest, max_length;
  DType dtype;    // of the input; scores and confidences are double for kFloat64, else float
  Scorer scorer;  // of the search, where `weighs`
  bool weighs;
  Ending* endings;    // (N, nbest) where `weighs`: scratch
  int64_t* tokens;    // (N, nbest, max_length), padded with -1
  int64_t* lengths;   // (N, nbest); 0 if there is no such hypothesis
  void* scores;       // (N, nbest) natural-log probability of the prefix; -inf if there is no such hypothesis;
                      // NaN for a sample of status kNotANumber or kInvalid, or longer than max_length;
                      // with a scorer the sum of acoustic_scores and model_scores
  void* path_scores;  // (N, nbest) like scores: natural-log probability of the best path
  // (N, nbest, max_length), of each token's run on the best path:
  int64_t* timesteps;  // the first frame, padded with -1
  int64_t* ends;       // the frame after the last, padded with -1
  int64_t* peaks;      // the first frame of the highest probability, padded with -1
  void* confidences;   // the highest probability, padded with 0
  void* token_scores;  // the mean of the natural-log probabilities, padded with 0
  // With a scorer:
  void *acoustic_scores, *model_scores;  // (N, nbest) like scores
  int64_t* words;                        // (N, nbest, max_length) that each token completes, padded with -1
  int64_t* last_words;                   // (N, nbest) that the end completes, or -1
};

namespace cpu {
constexpr int64_t kLargestBeam = int64_t(1) << 20;
// Samples [begin, end), with a workspace for one thread.
size_t beam_search_workspace(const BeamSearchParams& p);
void beam_search(const BeamSearchParams& p, int64_t begin, int64_t end, void* workspace);
void beam_search_result(const BeamResultParams& p, int64_t begin, int64_t end);
}  // namespace cpu

namespace cuda {
constexpr int64_t kLargestBeam = 1024;
size_t beam_search_workspace(const BeamSearchParams& p);
int beam_search(const BeamSearchParams& p, void* workspace, void* stream);
int beam_search_result(const BeamResultParams& p, void* stream);
}  // namespace cuda

}  // namespace fastctc

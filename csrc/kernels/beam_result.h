// The result of a beam search, for a warp of lanes `W` of double on either machine (math/scaled_float.h).
#pragma once

#include "../math/log_space.h"
#include "beam_search.h"

namespace fastctc {

// The best endings of sample n, in one lane. Of equal scores the one of the better prefix is first, then the one that
// the scorer has first. If the scorer rejects all prefixes, they are returned with the weight -inf.
struct BestEndings {
  const BeamState s;
  const int64_t size, nbest;  // prefixes, endings
  Ending* const best;
  int64_t found = 0;

  FASTCTC_HD BestEndings(const BeamResultParams& p, int64_t n)
      : s(const_cast<char*>(p.state) + n * p.state_stride, p.beam_size, true),
        size(s.header->started ? s.header->size : 0),
        nbest(p.nbest),
        best(p.endings + n * p.nbest) {}

  // Takes an ending of the prefix in `slot`. They come by rank, and those of one prefix in the order of the scorer.
  FASTCTC_HD void add(int32_t slot, const ScorerEnd& end) {
    if (!(end.weight > -double(INFINITY))) return;
    const double score = s.scores.total[slot] + end.weight;
    int64_t place = found;
    while (place > 0 && s.scores.total[best[place - 1].slot] + best[place - 1].weight < score) --place;
    if (place == nbest) return;
    found = found < nbest ? found + 1 : found;
    for (int64_t i = found - 1; i > place; --i) best[i] = best[i - 1];
    best[place] = {end.weight, slot, end.word};
  }
  FASTCTC_HD void finish() {
    for (int64_t i = found; i < nbest; ++i) {
      const bool exists = found == 0 && i < size;
      best[i] = {-double(INFINITY), exists ? s.order[i] : -1, kNoWord};
    }
  }
};

// The prefix of hypothesis `rank` of sample n and how it ends. Without a frame it is the empty prefix in no slot.
FASTCTC_HD Ending find_ending(const BeamResultParams& p, const BeamState& s, int64_t n, int64_t rank) {
  if (!s.header->started) {
    const ScorerEnd end = p.weighs && rank == 0 ? p.scorer.end(p.scorer.start(), 0) : ScorerEnd{kNoWord, 0.0};
    return {end.weight, -1, end.word};
  }
  if (p.weighs) return p.endings[n * p.nbest + rank];
  return {0.0, rank < s.header->size ? s.order[rank] : -1, kNoWord};
}

// A hypothesis without its tokens.
struct HypothesisScores {
  double acoustic, path, model;
  int64_t length, node;  // of its last token
  TokenRun run;
  int32_t last_word;
};

FASTCTC_HD HypothesisScores read_hypothesis(const BeamResultParams& p, const BeamState& s, int64_t n, int64_t rank) {
  const BeamHeader& header = *s.header;
  const Ending ending = find_ending(p, s, n, rank);
  const int32_t slot = ending.slot;
  const double never = -double(INFINITY);
  HypothesisScores h = {never, never, never, 0, -1, {}, ending.word};
  if (header.status != kOk || (slot >= 0 && s.length[slot] > p.max_length)) {
    h.acoustic = h.path = h.model = double(NAN);
  } else if (!header.started && rank == 0) {  // the empty prefix, of probability 1
    h.acoustic = h.path = 0;
    h.model = ending.weight;
  } else if (slot >= 0) {
    const double before = p.weighs ? s.model[slot] : 0.0;
    h.acoustic = at_most_zero(s.scores.total[slot] - before);
    h.path = at_most_zero(s.scores.path_score(slot) - before);
    h.model = before + ending.weight;
    h.length = s.length[slot];
    h.node = s.scores.node(slot);
    h.run = s.scores.last_run(slot, s.scores.ends_in_label(slot), header.frame);
  }
  return h;
}

// Writes hypothesis `rank` of sample n. One lane follows its path backwards, then all lanes do the rest.
template <class W, class Scalar>
FASTCTC_HD void write_hypothesis(const BeamResultParams& p, int64_t n, int64_t rank) {
  const BeamState s(const_cast<char*>(p.state) + n * p.state_stride, p.beam_size, p.weighs);
  const BeamNode* const arena = p.arena + n * p.arena_stride;
  const int64_t hypothesis = n * p.nbest + rank;
  const int64_t first = hypothesis * p.max_length;
  int64_t *const tokens = p.tokens + first, *const timesteps = p.timesteps + first;
  int64_t *const ends = p.ends + first, *const peaks = p.peaks + first;
  Scalar* const confidences = static_cast<Scalar*>(p.confidences) + first;
  Scalar* const token_scores = static_cast<Scalar*>(p.token_scores) + first;
  const HypothesisScores h = read_hypothesis(p, s, n, rank);
  const int64_t length = h.length;
  W::for_each(1, [&](int64_t) {
    TokenRun run = h.run;
    int64_t node = h.node;
    for (int64_t i = length - 1; i >= 0; --i) {
      const BeamNode a = arena[node];
      tokens[i] = a.token;
      timesteps[i] = a.frame;
      ends[i] = run.end;
      peaks[i] = run.peak_frame;
      confidences[i] = Scalar(run.peak);  // its logarithm
      token_scores[i] = Scalar(at_most_zero(double(run.sum) / (run.end - a.frame)));
      if (p.weighs) p.words[first + i] = a.word;
      run = a.previous_run;
      node = a.previous;
    }
    p.lengths[hypothesis] = length;
    static_cast<Scalar*>(p.scores)[hypothesis] = Scalar(p.weighs ? h.acoustic + h.model : h.acoustic);
    static_cast<Scalar*>(p.path_scores)[hypothesis] = Scalar(h.path);
    if (!p.weighs) return;
    static_cast<Scalar*>(p.acoustic_scores)[hypothesis] = Scalar(h.acoustic);
    static_cast<Scalar*>(p.model_scores)[hypothesis] = Scalar(h.model);
    p.last_words[hypothesis] = h.last_word;
  });
  W::sync();
  W::for_each(length,
              [&](int64_t i) { confidences[i] = Scalar(probability_of<W>(at_most_zero(double(confidences[i])))); });
  W::for_each(p.max_length - length, [&](int64_t i) {
    tokens[length + i] = timesteps[length + i] = ends[length + i] = peaks[length + i] = -1;
    confidences[length + i] = token_scores[length + i] = 0;
    if (p.weighs) p.words[first + length + i] = -1;
  });
}

}  // namespace fastctc

// Problems for tests of the beam search, the results of the kernels, and a plain search to compare them with: a map of
// prefixes without cuts.
#pragma once

#include <algorithm>
#include <map>
#include <random>

#include "../kernels/beam_search.h"
#include "../kernels/cuda/lanes.h"
#include "brute_force.h"
#include "check.h"

namespace fastctc::testing {

using W = cuda::Lanes<double>;
constexpr double kNever = kMinusInfinity;
constexpr double kNoCut = std::numeric_limits<double>::infinity();

// One utterance, or some of the same shape.
template <class Scalar>
struct Problem {
  int N = 1, T = 0, C = 0, blank = 0, beam = 1;
  std::vector<Scalar> x;         // (N, T, C)
  std::vector<int64_t> lengths;  // empty: T for all
  bool from_logits = false;
  double beam_threshold = kNoCut, token_threshold = kNoCut, blank_skip = kNoCut;
  const Scorer* scorer = nullptr;

  int64_t length(int n) const { return lengths.empty() ? T : lengths[n]; }
};

template <class Scalar>
struct Decoded {
  std::vector<int64_t> tokens, timesteps, ends, peaks;  // (N, beam, T)
  std::vector<Scalar> confidences, token_scores;
  std::vector<int64_t> lengths;  // (N, beam)
  std::vector<Scalar> scores, path_scores;
  // With a scorer:
  std::vector<Scalar> acoustic_scores, model_scores;
  std::vector<int64_t> words, last_words;
  std::vector<Ending> endings;  // scratch

  void set(BeamResultParams& r, int64_t hypotheses, int64_t frames) {
    for (auto* v : {&tokens, &timesteps, &ends, &peaks}) v->assign(size_t(hypotheses * frames), 7);
    for (auto* v : {&confidences, &token_scores}) v->assign(size_t(hypotheses * frames), 7);
    for (auto* v : {&scores, &path_scores}) v->assign(size_t(hypotheses), 7);
    lengths.assign(size_t(hypotheses), 7);
    r.tokens = tokens.data(), r.timesteps = timesteps.data(), r.ends = ends.data(), r.peaks = peaks.data();
    r.confidences = confidences.data(), r.token_scores = token_scores.data();
    r.lengths = lengths.data(), r.scores = scores.data(), r.path_scores = path_scores.data();
  }
  void set_scorer(BeamResultParams& r, const Scorer& scorer) {
    for (auto* v : {&acoustic_scores, &model_scores}) v->assign(scores.size(), 7);
    words.assign(tokens.size(), 7);
    last_words.assign(scores.size(), 7);
    endings.resize(scores.size());
    r.acoustic_scores = acoustic_scores.data(), r.model_scores = model_scores.data();
    r.words = words.data(), r.last_words = last_words.data(), r.endings = endings.data();
    r.scorer = scorer, r.weighs = true;
  }
  bool operator==(const Decoded& other) const {
    const auto same = [](const std::vector<Scalar>& a, const std::vector<Scalar>& b) {
      return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(Scalar)) == 0);
    };
    return tokens == other.tokens && lengths == other.lengths && timesteps == other.timesteps && ends == other.ends &&
           peaks == other.peaks && same(scores, other.scores) && same(path_scores, other.path_scores) &&
           same(confidences, other.confidences) && same(token_scores, other.token_scores) &&
           same(acoustic_scores, other.acoustic_scores) && same(model_scores, other.model_scores) &&
           words == other.words && last_words == other.last_words;
  }
};

struct Memory {
  std::vector<char> bytes;
  explicit Memory(size_t size) : bytes(size + 64) {}
  char* aligned() { return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64); }
};

// In chunks of so many frames; negative: all at once.
template <class Scalar>
Decoded<Scalar> decode(const Problem<Scalar>& q, bool on_cuda, std::vector<int> chunks = {}, int64_t room = -1) {
  if (chunks.empty()) chunks = {q.T};
  BeamSearchParams p{};
  p.dtype = sizeof(Scalar) == 8 ? DType::kFloat64 : DType::kFloat32;
  p.stride_n = int64_t(q.T) * q.C, p.stride_t = q.C, p.stride_c = 1;
  p.batch = q.N, p.classes = q.C, p.beam_size = q.beam, p.blank = q.blank;
  p.from_logits = q.from_logits;
  p.beam_threshold = q.beam_threshold, p.token_threshold = q.token_threshold, p.blank_skip = q.blank_skip;
  p.capacity = p.arena_stride = room >= 0 ? room : int64_t(q.T) * q.beam;
  p.weighs = q.scorer != nullptr;
  if (q.scorer) p.scorer = *q.scorer;
  p.state_stride = int64_t(BeamState::bytes(q.beam, p.weighs));
  Memory state(size_t(q.N * p.state_stride));
  std::vector<BeamNode> arena(size_t(q.N * p.arena_stride));
  p.state = state.aligned(), p.arena = arena.data();

  int start = 0;
  for (int frames : chunks) {
    std::vector<int64_t> lengths(q.N);
    for (int n = 0; n < q.N; ++n) {
      lengths[n] = q.length(n);
      if (chunks.size() > 1) lengths[n] = std::clamp<int64_t>(lengths[n] - start, 0, frames);
    }
    p.frames = frames, p.input_lengths = lengths.data();
    p.input = q.x.data() + int64_t(start) * q.C;
    Memory workspace(on_cuda ? cuda::beam_search_workspace(p) : cpu::beam_search_workspace(p));
    if (on_cuda) CHECK(cuda::beam_search(p, workspace.aligned(), nullptr) == 0);
    if (!on_cuda) cpu::beam_search(p, 0, q.N, workspace.aligned());
    start += frames;
  }

  Decoded<Scalar> out;
  BeamResultParams r{};
  out.set(r, int64_t(q.N) * q.beam, q.T);
  if (q.scorer) out.set_scorer(r, *q.scorer);
  r.state = p.state, r.arena = p.arena, r.state_stride = p.state_stride, r.arena_stride = p.arena_stride;
  r.batch = q.N, r.beam_size = q.beam, r.nbest = q.beam, r.max_length = q.T, r.dtype = p.dtype;
  if (on_cuda) CHECK(cuda::beam_search_result(r, nullptr) == 0);
  if (!on_cuda) cpu::beam_search_result(r, 0, q.N);
  return out;
}

// ---- the plain search -----------------------------------------------------------------------------------------------

struct Run {
  int start, end, peak_frame;
  double peak, sum;
};
// The runs of the tokens on a path.
struct Track {
  std::vector<Run> runs;

  void enter(int t, double y) { runs.push_back({t, t + 1, t, y, y}); }
  void go_on(int t, double y) {
    if (runs.empty()) return;
    Run& run = runs.back();
    run.end = t + 1;
    run.sum += y;
    if (y > run.peak) run.peak = y, run.peak_frame = t;
  }
};
struct Hypothesis {
  Prefixes<W> p;
  Track blank, label;
  const Track& best() const { return p.best_label > p.best_blank ? label : blank; }
};
struct Ranked {
  Labeling prefix;
  Hypothesis h;
};

inline Hypothesis stayed(const std::map<Labeling, const Hypothesis*>& beam, const Labeling& prefix, double y_last,
                         double y_blank, int t) {
  const Hypothesis& old = *beam.at(prefix);
  double reach = kNever, best_reach = kNever;
  const Track* from = nullptr;
  if (!prefix.empty()) {
    const Labeling shorter(prefix.begin(), prefix.end() - 1);
    const auto found = beam.find(shorter);
    if (found != beam.end()) {
      const Hypothesis& h = *found->second;
      const bool repeats = !shorter.empty() && shorter.back() == prefix.back();
      reach = repeats ? h.p.blank : h.p.total;
      best_reach = repeats ? h.p.best_blank : std::max(h.p.best_blank, h.p.best_label);
      from = repeats ? &h.blank : &h.best();
    }
  }
  Hypothesis next = old;
  next.p = stay<W>(old.p, reach, best_reach, y_last, y_blank);
  next.blank = old.best();
  if (best_reach > old.p.best_label) {
    next.label = *from;
    next.label.enter(t, y_last);
  } else {
    next.label.go_on(t, y_last);
  }
  return next;
}

inline Hypothesis extended(const Hypothesis& from, bool repeats, double y, int t) {
  const double score = (repeats ? from.p.blank : from.p.total) + y;
  const double best = (repeats ? from.p.best_blank : std::max(from.p.best_blank, from.p.best_label)) + y;
  Hypothesis next{{score, kNever, score, kNever, best}, {}, repeats ? from.blank : from.best()};
  next.label.enter(t, y);
  return next;
}

template <class Scalar>
std::vector<double> log_probs(const Problem<Scalar>& q, int n, int t) {
  std::vector<double> y(q.C);
  double max = kNever, sum = 0;
  const Scalar* const x = &q.x[(size_t(n) * q.T + t) * q.C];
  for (int c = 0; c < q.C; ++c) max = std::max(max, double(x[c]));
  for (int c = 0; c < q.C; ++c) sum += std::exp(double(x[c]) - max);
  for (int c = 0; c < q.C; ++c) y[c] = log_prob(double(x[c]), q.from_logits ? max + std::log(sum) : 0);
  return y;
}

template <class Scalar>
std::vector<Ranked> plain_search(const Problem<Scalar>& q, int n) {
  std::vector<Ranked> beam = {{{}, {{0, 0, kNever, 0, kNever}, {}, {}}}};
  for (int t = 0; t < q.length(n) && !beam.empty(); ++t) {
    const std::vector<double> y = log_probs(q, n, t);
    const bool skip = y[q.blank] > q.blank_skip;
    const double least = *std::max_element(y.begin(), y.end()) - q.token_threshold;
    std::map<Labeling, const Hypothesis*> in_beam;
    for (const Ranked& r : beam) in_beam[r.prefix] = &r.h;
    std::vector<int> tokens;
    for (int c = 0; c < q.C; ++c) {
      if (c != q.blank && y[c] >= least && !skip) tokens.push_back(c);
    }
    std::stable_sort(tokens.begin(), tokens.end(), [&](int a, int b) { return y[a] > y[b]; });
    std::vector<Ranked> next;  // in the order of equals
    for (const Ranked& r : beam) {
      if (skip) {
        const Prefixes<W> p = r.h.p;
        const double best = std::max(p.best_blank, p.best_label) + y[q.blank], total = p.total + y[q.blank];
        next.push_back({r.prefix, {{total, total, kNever, best, kNever}, r.h.best(), {}}});
      } else {
        const int last = r.prefix.empty() ? q.blank : r.prefix.back();
        next.push_back({r.prefix, stayed(in_beam, r.prefix, y[last], y[q.blank], t)});
      }
    }
    for (const Ranked& r : beam) {
      for (int token : tokens) {
        Labeling prefix = r.prefix;
        prefix.push_back(token);
        const bool repeats = !r.prefix.empty() && r.prefix.back() == token;
        if (!in_beam.count(prefix)) next.push_back({prefix, extended(r.h, repeats, y[token], t)});
      }
    }
    std::stable_sort(next.begin(), next.end(),
                     [](const Ranked& a, const Ranked& b) { return a.h.p.total > b.h.p.total; });
    const double lowest = next[0].h.p.total - q.beam_threshold;
    beam.clear();
    for (const Ranked& r : next) {
      if (int(beam.size()) < q.beam && r.h.p.total > kNever && !(r.h.p.total < lowest)) beam.push_back(r);
    }
  }
  return beam;
}

template <class Scalar>
void check_sample(const Problem<Scalar>& q, int n, const Decoded<Scalar>& got) {
  const std::vector<Ranked> expected = plain_search(q, n);
  for (int k = 0; k < q.beam; ++k) {
    const int64_t h = int64_t(n) * q.beam + k;
    const bool exists = k < int(expected.size());
    const Labeling prefix = exists ? expected[k].prefix : Labeling{};
    CHECK(got.lengths[h] == int64_t(prefix.size()));
    for (int i = 0; i < q.T; ++i) {
      const bool inside = i < int(prefix.size());
      CHECK(got.tokens[h * q.T + i] == (inside ? prefix[i] : -1));
      const Run run = inside ? expected[k].h.best().runs[i] : Run{-1, -1, -1, 0, 0};
      CHECK(got.timesteps[h * q.T + i] == run.start);
      CHECK(got.ends[h * q.T + i] == run.end);
      CHECK(got.peaks[h * q.T + i] == run.peak_frame);
      CHECK_NEAR(got.confidences[h * q.T + i], inside ? std::exp(std::min(run.peak, 0.0)) : 0, 1e-5);
      const double mean = inside ? std::min(run.sum / (run.end - run.start), 0.0) : 0;
      CHECK_NEAR(got.token_scores[h * q.T + i], mean, 1e-5 * (1 - mean));
    }
    const auto check_score = [&](Scalar actual, double expected_score) {
      const Scalar score = Scalar(std::min(expected_score, 0.0));
      if (q.from_logits) CHECK_NEAR(actual, score, 1e-5 * (1 + std::fabs(double(score))));
      if (!q.from_logits) CHECK(actual == score);
    };
    const Prefixes<W> p = exists ? expected[k].h.p : Prefixes<W>{kNever, kNever, kNever, kNever, kNever};
    check_score(got.scores[h], p.total);
    check_score(got.path_scores[h], std::max(p.best_blank, p.best_label));
  }
}

// The CPU kernel against the plain search, and the CUDA kernel against that to the bit.
template <class Scalar>
void check(const Problem<Scalar>& q) {
  const Decoded<Scalar> on_cpu = decode(q, false);
  for (int n = 0; n < q.N; ++n) check_sample(q, n, on_cpu);
  CHECK(decode(q, true) == on_cpu);
}

// ---- problems -------------------------------------------------------------------------------------------------------

using Random = std::mt19937;

inline double uniform(Random& random) { return (random() + 0.5) / 4294967296.0; }

// Log-probabilities that add up to one, or logits. Sharper where `scale` is larger; the blank is more probable by
// `bias`; of `holes` one class in so many is at -inf.
template <class Scalar>
void fill(Problem<Scalar>& q, Random& random, double scale, double bias, int holes = 0) {
  q.x.resize(size_t(q.N) * q.T * q.C);
  for (int64_t row = 0; row < int64_t(q.N) * q.T; ++row) {
    std::vector<double> x(q.C);
    double sum = 0;
    for (int c = 0; c < q.C; ++c) {
      x[c] = scale * (uniform(random) + uniform(random) + uniform(random)) + (c == q.blank ? bias : 0);
      if (holes && random() % holes == 0) x[c] = kNever;
      sum += std::exp(x[c]);
    }
    for (int c = 0; c < q.C; ++c) {
      q.x[row * q.C + c] = Scalar(q.from_logits || sum == 0 ? x[c] : std::min(x[c] - std::log(sum), 0.0));
    }
  }
}

// Whole numbers, so that many sums are the same; among them zeros of both signs.
template <class Scalar>
void fill_with_ties(Problem<Scalar>& q, Random& random, int values) {
  q.x.resize(size_t(q.N) * q.T * q.C);
  for (Scalar& x : q.x) x = random() % 2 ? -Scalar(random() % values) : 0 - Scalar(random() % values);
}

template <class Scalar>
Problem<Scalar> problem(int N, int T, int C, int blank, int beam) {
  Problem<Scalar> q;
  q.N = N, q.T = T, q.C = C, q.blank = blank, q.beam = beam;
  return q;
}

}  // namespace fastctc::testing

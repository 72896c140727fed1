// The prefix beam search with a scorer on the CPU: a bigram model against a plain search.
#include <cmath>
#include <map>
#include <random>

#include "../kernels/cpu/beam.h"
#include "brute_force.h"
#include "check.h"

using namespace fastctc;
using namespace fastctc::cpu::FASTCTC_ISA;
using namespace fastctc::testing;

namespace {

// ln p(token | previous token), which may be above 0; -inf forbids. The state is the previous token, at first the
// blank.
struct Bigrams {
  int32_t classes, blank;
  std::vector<double> log_p;  // (classes, classes), multiples of 1/8

  double of(const Labeling& prefix) const {
    double sum = 0;
    int32_t previous = blank;
    for (int token : prefix) {
      sum += log_p[size_t(previous * classes + token)];
      previous = token;
    }
    return sum;
  }
};

// The same as an automaton. Half of the states with the same arcs as another one have a failure arc to that instead.
struct BigramAutomaton {
  std::vector<int32_t> first_arc = {0}, label, next_state, failure_state, dense;
  std::vector<float> weight, failure_weight, final_weight, largest_weight;
  AutomatonView view{};

  explicit BigramAutomaton(const Bigrams& b) {
    for (int32_t state = 0; state < b.classes; ++state) {
      const double* row = b.log_p.data() + state * b.classes;
      const double* other = row - b.classes;
      const bool fails = state % 2 && std::equal(row, row + b.classes, other, other + b.classes);
      float largest = fails ? largest_weight.back() : -INFINITY;
      for (int32_t token = 0; !fails && token < b.classes; ++token) {
        if (row[token] == -INFINITY) continue;
        label.push_back(token);
        next_state.push_back(token);
        weight.push_back(float(row[token]));
        largest = std::max(largest, weight.back());
      }
      first_arc.push_back(int32_t(label.size()));
      failure_state.push_back(fails ? state - 1 : -1);
      failure_weight.push_back(0);
      final_weight.push_back(0);
      largest_weight.push_back(largest);
    }
    view = {first_arc.data(),
            label.data(),
            next_state.data(),
            weight.data(),
            failure_state.data(),
            failure_weight.data(),
            final_weight.data(),
            largest_weight.data(),
            dense.data(),
            b.blank,
            -1,
            0};
  }
};

struct Hypothesis {
  Labeling tokens;
  double score;
};

struct Problem {
  int T, C, blank, beam;
  std::vector<float> x;
  Bigrams bigrams;
};

std::vector<Hypothesis> decode(const Problem& q) {
  BeamSearchParams p{};
  p.dtype = DType::kFloat32;
  p.batch = 1, p.frames = q.T, p.classes = q.C, p.beam_size = q.beam, p.blank = q.blank;
  p.beam_threshold = p.token_threshold = p.blank_skip = INFINITY;
  const BigramAutomaton automaton(q.bigrams);
  p.weighs = true;
  p.scorer.count = 1;
  p.scorer.automata[0] = automaton.view;
  std::vector<BeamNode> arena(size_t(q.T) * q.beam + 1);
  p.arena = arena.data(), p.capacity = int64_t(arena.size());
  std::vector<char> state(BeamState::bytes(q.beam, true) + 64),
      memory(BeamScratch<float, Scorer>(nullptr, p).memory.size() + 64);
  const auto aligned = [](std::vector<char>& v) {
    return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(v.data()) + 63) / 64 * 64);
  };
  p.state = aligned(state);
  const BeamScratch<float, Scorer> scratch(aligned(memory), p);
  Beam<float, Scorer> beam(p, 0, scratch);
  for (int t = 0; t < q.T && beam.alive(); ++t) beam.advance(q.x.data() + t * q.C, 0.0);
  beam.finish();

  std::vector<Hypothesis> all;
  const BeamState s(p.state, q.beam, true);
  CHECK(s.header->status == kOk);
  for (int rank = 0; rank < s.header->size; ++rank) {
    const int32_t slot = s.order[rank];
    Hypothesis h{{}, s.scores.total[slot]};
    for (int64_t node = s.scores.node(slot); node >= 0; node = arena[node].previous) {
      h.tokens.insert(h.tokens.begin(), arena[node].token);
    }
    CHECK(int(h.tokens.size()) == s.length[slot]);
    CHECK_NEAR(s.model[slot], q.bigrams.of(h.tokens), 1e-9);
    all.push_back(h);
  }
  return all;
}

// The same by a map of prefixes, none of them cut but for the beam: extensions are weighed as they are made.
std::vector<Hypothesis> plain(const Problem& q) {
  struct Sums {
    double blank = -INFINITY, label = -INFINITY;
    double total() const { return testing::log_add(blank, label); }
  };
  const Bigrams& bigram = q.bigrams;
  std::map<Labeling, Sums> beam;
  beam[{}].blank = 0;
  for (int t = 0; t < q.T; ++t) {
    const float* y = q.x.data() + t * q.C;
    std::map<Labeling, Sums> next;
    for (const auto& [prefix, sums] : beam) {
      Sums& stay = next[prefix];
      stay.blank = testing::log_add(stay.blank, sums.total() + y[q.blank]);
      if (!prefix.empty()) stay.label = testing::log_add(stay.label, sums.label + y[prefix.back()]);
      for (int c = 0; c < q.C; ++c) {
        if (c == q.blank) continue;
        Labeling longer = prefix;
        longer.push_back(c);
        const double weight = bigram.of(longer) - bigram.of(prefix);
        const bool repeats = !prefix.empty() && prefix.back() == c;
        const double from = repeats ? sums.blank : sums.total();
        const double weighed = bigram.of(longer) == -INFINITY ? -INFINITY : from + weight + y[c];
        next[longer].label = testing::log_add(next[longer].label, weighed);
      }
    }
    std::vector<std::pair<double, Labeling>> ranked;
    for (const auto& [prefix, sums] : next) {
      if (sums.total() > -INFINITY) ranked.push_back({-sums.total(), prefix});
    }
    std::sort(ranked.begin(), ranked.end());
    if (int(ranked.size()) > q.beam) ranked.resize(size_t(q.beam));
    beam.clear();
    for (const auto& [score, prefix] : ranked) beam[prefix] = next[prefix];
  }
  std::vector<Hypothesis> all;
  for (const auto& [prefix, sums] : beam) all.push_back({prefix, sums.total()});
  std::sort(all.begin(), all.end(), [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  return all;
}

}  // namespace

TEST(a_bigram_scorer_equals_the_plain_search) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  int forbidden = 0;
  for (int round = 0; round < 400; ++round) {
    Problem q;
    q.T = 1 + int(random() % 12), q.C = 2 + int(random() % 6), q.blank = int(random() % q.C);
    q.beam = 1 + int(random() % (round % 4 == 0 ? 200 : 8));
    q.x.resize(size_t(q.T) * q.C);
    for (int t = 0; t < q.T; ++t) {
      double sum = 0;
      for (int c = 0; c < q.C; ++c) sum += std::exp(q.x[size_t(t) * q.C + c] = float(2 * normal(random)));
      for (int c = 0; c < q.C; ++c) q.x[size_t(t) * q.C + c] -= float(std::log(sum));
    }
    q.bigrams = {q.C, q.blank, std::vector<double>(size_t(q.C) * q.C)};
    for (double& w : q.bigrams.log_p) {
      w = random() % 5 == 0 ? -INFINITY : std::round(8 * normal(random)) / 8;
      forbidden += w == -INFINITY;
    }
    const auto first = q.bigrams.log_p.begin();
    if (random() % 2) std::copy(first, first + q.C, first + q.C);  // two equal states
    const std::vector<Hypothesis> got = decode(q), expected = plain(q);
    CHECK(got.size() == expected.size());
    for (size_t i = 0; i < got.size() && i < expected.size(); ++i) {
      CHECK(got[i].tokens == expected[i].tokens);
      CHECK_NEAR(got[i].score, expected[i].score, 1e-9);
    }
  }
  CHECK(forbidden > 0);
}

TEST_MAIN()

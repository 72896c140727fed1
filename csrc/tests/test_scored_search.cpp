// Prefix beam search with scorers: the emulated CUDA kernel gives the bits of the CPU kernel.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "check.h"
#include "plain_search.h"
#include "random_scorer.h"

using namespace fastctc;
using namespace fastctc::testing;

namespace {

// What happened in the cases of a test.
struct Seen {
  int words = 0, last_words = 0, homophones = 0, rejected = 0, positive = 0;
};

template <class Scalar>
void check_bits(const Problem<Scalar>& q, Seen& seen, const std::vector<int>& chunks = {}) {
  const Decoded<Scalar> on_cpu = decode(q, false);
  CHECK(decode(q, true, chunks) == on_cpu);
  for (int n = 0; n < q.N; ++n) {
    seen.rejected += on_cpu.lengths[n * q.beam] > 0 && on_cpu.scores[n * q.beam] == -INFINITY;
    std::map<Labeling, int> hypotheses;
    for (int k = 0; k < q.beam; ++k) {
      const int64_t h = int64_t(n) * q.beam + k;
      const auto first = on_cpu.tokens.begin() + h * q.T;
      seen.positive += on_cpu.model_scores[h] > 0;
      seen.last_words += on_cpu.last_words[h] >= 0;
      seen.homophones += on_cpu.lengths[h] && ++hypotheses[Labeling(first, first + on_cpu.lengths[h])] == 2;
    }
  }
  for (int64_t word : on_cpu.words) seen.words += word >= 0;
}

template <class Scalar>
Problem<Scalar> random_problem(Random& random, int N, int T, int C, int beam, bool ties) {
  auto q = problem<Scalar>(N, T, C, int(random() % unsigned(C)), beam);
  if (ties) fill_with_ties(q, random, 3);
  if (!ties) fill(q, random, random() % 2 ? 2 : 8, random() % 2 ? 4 : 0, random() % 4 ? 0 : 5);
  return q;
}

}  // namespace

TEST(scorers_give_the_same_bits_on_both_machines) {
  Random random(1);
  Seen seen;
  for (int beam : {1, 2, 5, 31, 32, 33, 70}) {
    for (int round = 0; round < (beam < 31 ? 100 : 25) / (kSanitized ? 4 : 1); ++round) {
      const int C = 2 + int(random() % 12);
      const bool ties = random() % 3 == 0;
      auto q = random_problem<float>(random, 2, 1 + int(random() % 16), C, beam, ties);
      const RandomScorer scorer(random(), C, 1 + int(random() % 3), round % 3 > 0, ties);
      q.scorer = &scorer.scorer;
      q.lengths = {q.T, int64_t(random() % unsigned(q.T + 1))};
      if (round % 4 == 1) q.beam_threshold = 4 * uniform(random);
      if (round % 5 == 1) q.token_threshold = 4 * uniform(random);
      if (round % 7 == 1) q.blank_skip = std::log(0.5 + 0.5 * uniform(random));
      check_bits(q, seen);
    }
  }
  const int often = kSanitized ? 10 : 100;
  CHECK(seen.words > 10 * often && seen.last_words > often && seen.homophones > often);
  CHECK(seen.rejected > 0 && seen.positive > often);
}

// Candidates and beams in global memory.
TEST(wide_beams_with_scorers) {
  Random random(2);
  Seen seen;
  for (int beam : {256, 257, 992, 993, 1000, 1024}) {
    if (kSanitized && beam != 257 && beam != 1000) continue;
    for (bool ties : {false, true}) {
      auto q = random_problem<double>(random, 1, 5, 12, beam, ties);
      const RandomScorer scorer(random(), q.C, 2, true, ties);
      q.scorer = &scorer.scorer;
      check_bits(q, seen);
    }
  }
  CHECK(seen.words > 0);
}

// More tokens than are listed: where the beam has room, or the scorer may prefer improbable ones, all of them matter.
TEST(long_rows_with_scorers) {
  Random random(3);
  Seen seen;
  for (int round = 0; round < (kSanitized ? 15 : 60); ++round) {
    auto q =
        random_problem<float>(random, 1, 1 + int(random() % 6), 70 + int(random() % 300), 1 + round % 12, round % 3);
    const RandomScorer scorer(random(), q.C, 1 + round % 3, false, round % 3);
    q.scorer = &scorer.scorer;
    if (round % 5 == 1) q.token_threshold = 4 * uniform(random);
    check_bits(q, seen);
  }
  for (int C : {256, 257, 1025, 1026, 1027, 3000}) {
    if (kSanitized && C != 257 && C != 1027) continue;
    for (int beam : {1, 40, 600}) {
      if (beam == 600 && C != 1027) continue;
      auto q = random_problem<float>(random, 1, 3, C, beam, beam == 40);
      if (beam != 40) fill(q, random, 0.02, 0);  // the weights decide
      const RandomScorer scorer(random(), C, 1, false, beam == 40);
      q.scorer = &scorer.scorer;
      check_bits(q, seen);
    }
  }
}

TEST(chunks_with_scorers_give_the_same_bits) {
  Random random(4);
  Seen seen;
  for (int beam : {1, 6, 40}) {
    auto q = random_problem<float>(random, 3, 40, 9, beam, false);
    q.lengths = {40, 17, 0};
    const RandomScorer scorer(random(), q.C, 2, true, false);
    q.scorer = &scorer.scorer;
    CHECK(decode(q, false, {1, 2, 0, 24, 13}) == decode(q, false));
    check_bits(q, seen, {1, 2, 0, 24, 13});
    check_bits(q, seen, std::vector<int>(40, 1));
  }
}

TEST(a_scored_result_before_the_first_frame) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const RandomScorer scorer(seed, 4, 1 + int(seed % 3), seed % 2, false);
    auto q = problem<float>(2, 0, 4, 0, 3);
    q.scorer = &scorer.scorer;
    const Decoded<float> got = decode(q, true);
    CHECK(got == decode(q, false));
    CHECK(got.acoustic_scores[0] == 0 && got.acoustic_scores[1] == -INFINITY);
    CHECK(got.scores[0] == float(scorer.scorer.end(scorer.scorer.start(), 0).weight));
  }
}

// Scorers, shapes and values of any kind, in chunks; FASTCTC_FUZZ_SECONDS for longer, FASTCTC_FUZZ_SEED for one again.
TEST(fuzz) {
  const char* const given = std::getenv("FASTCTC_FUZZ_SECONDS");
  const double seconds = given ? std::atof(given) : 2;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  Seen seen;
  const char* const again = std::getenv("FASTCTC_FUZZ_SEED");
  unsigned seed = again ? unsigned(std::strtoul(again, nullptr, 10)) : given ? std::random_device()() : 1, count = 0;
  for (; elapsed() < seconds; ++seed, ++count) {
    Random random(seed);
    const auto below = [&](int n) { return int(random() % unsigned(n)); };
    const int C = 1 + (below(8) ? below(20) : below(1500)), T = 1 + below(C > 100 ? 6 : 24);
    const int beam = 1 + (below(6) ? below(12) : below(C > 100 ? 80 : 300));
    const bool ties = below(3) == 0;
    auto q = random_problem<double>(random, 1 + below(2), T, C, beam, ties);
    q.from_logits = below(3) == 0;
    if (below(4) == 0) q.beam_threshold = 8 * uniform(random);
    if (below(4) == 0) q.token_threshold = 8 * uniform(random);
    if (below(4) == 0) q.blank_skip = std::log(uniform(random));
    const RandomScorer scorer(random(), C, 1 + below(3), below(3) > 0, ties);
    q.scorer = &scorer.scorer;
    const int first = below(T + 1);
    try {
      check_bits(q, seen, {first, T - first});
    } catch (const std::exception& error) {
      throw std::runtime_error("seed " + std::to_string(seed) + ": " + error.what());
    }
  }
  std::printf("%u cases, the last of seed %u\n", count, seed - 1);
}

TEST_MAIN()

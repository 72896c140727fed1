// Prefix beam search: the CPU kernel and the emulated CUDA kernel against brute force, against a plain search over a
// map of prefixes without any of the cuts, and against each other.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "check.h"
#include "plain_search.h"

using namespace fastctc;
using namespace fastctc::testing;

TEST(a_wide_beam_finds_every_labeling) {
  Random random(1);
  for (int round = 0; round < 24; ++round) {
    const int C = 1 + int(random() % 4), T = C == 4 ? 1 + int(random() % 4) : 1 + int(random() % 5);
    auto q = problem<double>(1, T, C, int(random() % C), 128);
    if (round % 3 == 0) fill_with_ties(q, random, 3);
    if (round % 3 != 0) fill(q, random, 3, 0, round % 3 == 2 ? 4 : 0);
    auto table = all_labelings(q.x, T, C, q.blank);
    for (bool on_cuda : {false, true}) {
      const Decoded<double> got = decode(q, on_cuda);
      std::map<Labeling, double> found;
      for (int k = 0; k < q.beam && got.scores[k] > kNever; ++k) {
        CHECK(k == 0 || got.scores[k] <= got.scores[k - 1]);
        const int64_t* const tokens = &got.tokens[k * T];
        CHECK(found.emplace(Labeling(tokens, tokens + got.lengths[k]), got.scores[k]).second);  // no duplicates
      }
      size_t possible = 0;
      for (const auto& [labeling, score] : table) {
        if (score == kNever) continue;
        ++possible;
        CHECK(found.count(labeling) == 1);
        CHECK_NEAR(found[labeling], std::min(score, 0.0), 1e-12);
      }
      CHECK(found.size() == possible);
    }
  }
}

TEST(equals_the_plain_search) {
  Random random(2);
  for (int beam : {1, 2, 3, 10, 31, 32, 33, 70}) {
    for (int round = 0; round < (beam < 31 ? 20 : 6) / (kSanitized ? 3 : 1); ++round) {
      const int C = 2 + int(random() % (round % 2 ? 40 : 5));
      auto q = problem<float>(2, 1 + int(random() % 20), C, int(random() % C), beam);
      q.lengths = {q.T, int64_t(random() % (q.T + 1))};
      q.from_logits = round % 4 == 3;
      fill(q, random, round % 3 == 0 ? 2 : 8, round % 5 ? 4 : 0, round % 7 == 0 ? 5 : 0);
      check(q);
    }
  }
}

TEST(ties_are_broken_as_documented) {
  Random random(3);
  for (int beam : {1, 2, 3, 10, 33, 40}) {
    for (int round = 0; round < (beam < 33 ? 20 : 5); ++round) {
      const int C = 2 + int(random() % 7);
      auto q = problem<double>(1, 1 + int(random() % 15), C, int(random() % C), beam);
      fill_with_ties(q, random, 1 + int(random() % 3));
      check(q);
    }
  }
}

TEST(thresholds_cut_as_documented) {
  Random random(4);
  for (int beam : {2, 10, 40}) {
    for (int round = 0; round < 20; ++round) {
      const int C = 3 + int(random() % 20);
      auto q = problem<float>(1, 1 + int(random() % 30), C, int(random() % C), beam);
      fill(q, random, 4, 3);
      if (round % 4 != 0) q.beam_threshold = 4 * uniform(random);
      if (round % 3 != 0) q.token_threshold = 4 * uniform(random);
      if (round % 2 != 0) q.blank_skip = std::log(0.5 + 0.5 * uniform(random));
      check(q);
    }
  }
}

TEST(long_rows) {
  Random random(5);
  for (int C : {255, 256, 257, 600, 3000}) {
    for (int beam : {1, 5, 40}) {
      if (C == 3000 && beam == 40) continue;
      for (bool ties : {false, true}) {
        auto q = problem<float>(1, 2, C, int(random() % C), beam);
        q.from_logits = !ties && beam == 5;
        if (ties) fill_with_ties(q, random, 4);
        if (!ties) fill(q, random, 10, 8, beam == 1 ? 2 : 0);
        check(q);
      }
    }
  }
  auto q = problem<double>(1, 3, 700, 699, 10);
  fill(q, random, 10, 5);
  check(q);
}

// The most probable tokens of long rows, however their scores are spread: near the best one, on one value, far apart,
// too large for steps of 1/32, most at -inf.
template <class Scalar>
void spread_rows(unsigned seed) {
  Random random(seed);
  const double scales[] = {0, 1e-3, 4, 300, 1e6};
  for (int C : {257, 1023, 1025, 4097, 5000, 8200}) {
    if (kSanitized && C != 257 && C != 5000) continue;
    for (int round = 0; round < 5; ++round) {
      const int beam = C == 5000 ? 130 : 1 + int(random() % 30);
      auto q = problem<Scalar>(1, 1, C, int(random() % C), beam);
      q.from_logits = round % 2 == 0;
      fill(q, random, scales[(round + C) % 5], round == 1 ? 20 : 0, round == 4 ? 2 : 0);
      if (round == 3) std::sort(q.x.begin(), q.x.end());  // neighbors have the best tokens
      const auto gpu = decode(q, true), cpu = decode(q, false);
      CHECK(gpu.scores == cpu.scores && gpu.tokens == cpu.tokens);
    }
  }
}
TEST(long_rows_of_any_spread) {
  spread_rows<float>(14);
  spread_rows<double>(15);
}

// Candidates in global memory, beams in global memory, and rows where most tokens matter.
TEST(very_wide_beams) {
  Random random(6);
  auto q = problem<float>(1, 5, 12, 3, 260);
  fill(q, random, 5, 0);
  check(q);
  auto widest = problem<float>(1, 4, 9, 0, 1024);
  fill(widest, random, 5, 0);
  check(widest);
  auto tied = problem<double>(1, 2, 330, 3, 400);  // in the second frame there are 3000 candidates
  fill_with_ties(tied, random, 3);
  check(tied);
}

// Of many classes, so that the beam alone decides how much shared memory there is: from less than a kernel gets without
// more ado to more than that, whatever was launched before.
template <class Scalar>
void launch_beams(const std::vector<int>& beams) {
  Random random(12);
  for (int beam : beams) {
    auto q = problem<Scalar>(1, 1, 1100, 0, beam);
    fill(q, random, 5, 0);
    CHECK(decode(q, true).scores == decode(q, false).scores);
  }
}
TEST(every_beam_fits_into_shared_memory) {
  if (kSanitized) return launch_beams<float>({500, 1024});
  launch_beams<float>({256, 257, 500, 520, 535, 536, 540, 544, 545, 1024, 536, 500});
  launch_beams<double>({440, 451, 452, 458, 463, 464, 480, 1024, 452, 440});
}

// With a beam of two, "a" is dropped while "ab" stays, and comes back: it must be the parent of that again.
TEST(a_prefix_that_comes_back_is_no_duplicate) {
  int returned = 0;
  for (unsigned seed = 0; seed < (kSanitized ? 8 : 40); ++seed) {
    Random random(seed);
    auto q = problem<double>(1, 40, 3, 0, 2 + int(seed % 5));
    fill(q, random, 6, 1);
    check(q);
    for (bool on_cuda : {false, true}) {
      const Decoded<double> got = decode(q, on_cuda);
      std::map<Labeling, int> found;
      for (int k = 0; k < q.beam && got.scores[k] > kNever; ++k) {
        const int64_t* const tokens = &got.tokens[k * q.T];
        CHECK(++found[Labeling(tokens, tokens + got.lengths[k])] == 1);
      }
    }
    // Does the case happen? In the beams of the plain search of each length.
    std::map<Labeling, int> last_seen;
    for (int t = 0; t <= q.T; ++t) {
      q.lengths = {t};
      for (const Ranked& r : plain_search(q, 0)) {
        const auto [seen, fresh] = last_seen.try_emplace(r.prefix, t);
        returned += !fresh && seen->second < t - 1;
        seen->second = t;
      }
    }
  }
  CHECK(returned > (kSanitized ? 0 : 30));
}

TEST(chunks_give_the_same_bits) {
  Random random(7);
  for (int beam : {1, 4, 40}) {
    auto q = problem<float>(3, 50, 12, 2, beam);
    q.lengths = {50, 17, 0};
    q.from_logits = beam == 4;
    fill(q, random, 6, 3);
    for (bool on_cuda : {false, true}) {
      const Decoded<float> whole = decode(q, on_cuda);
      CHECK(decode(q, on_cuda, {1, 2, 0, 14, 20, 13}) == whole);
      CHECK(decode(q, on_cuda, std::vector<int>(50, 1)) == whole);
    }
  }
}

// More frames than have their tokens in the workspace at the same time.
TEST(many_frames) {
  Random random(8);
  auto q = problem<float>(2, 1100, 4, 1, 2);
  q.lengths = {1100, 1024};
  fill(q, random, 8, 6);
  CHECK(decode(q, false) == decode(q, true));
  check_sample(q, 1, decode(q, true));
}

TEST(strides_and_half_precision) {
  Random random(9);
  const int T = 12, C = 30, beam = 6;
  std::vector<uint16_t> bits(size_t(T) * C * 2);
  for (auto& b : bits) b = uint16_t(0xbc00 + random() % 0x1800);  // -1 to about -500 as Half
  for (DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    auto q = problem<float>(1, T, C, 4, beam);
    for (int t = 0; t < T; ++t) {
      for (int c = 0; c < C; ++c) {
        const uint16_t b = bits[(c * T + t) * 2];
        q.x.push_back(dtype == DType::kFloat16 ? to_scalar(Half{b}) : to_scalar(BFloat16{b}));
      }
    }
    const Decoded<float> expected = decode(q, true);
    BeamSearchParams p{};
    const int64_t length = T;
    p.input = bits.data(), p.dtype = dtype, p.stride_t = 2, p.stride_c = 2 * T;
    p.batch = 1, p.frames = T, p.classes = C, p.input_lengths = &length, p.beam_size = beam, p.blank = 4;
    p.beam_threshold = p.token_threshold = p.blank_skip = kNoCut;
    p.capacity = T * beam;
    for (bool on_cuda : {false, true}) {
      Memory state(BeamState::bytes(beam, false));
      std::vector<BeamNode> arena(T * beam);
      p.state = state.aligned(), p.arena = arena.data();
      Memory workspace(on_cuda ? cuda::beam_search_workspace(p) : cpu::beam_search_workspace(p));
      if (on_cuda) CHECK(cuda::beam_search(p, workspace.aligned(), nullptr) == 0);
      if (!on_cuda) cpu::beam_search(p, 0, 1, workspace.aligned());
      const BeamState s(p.state, beam, false);
      for (int k = 0; k < s.header->size; ++k)
        CHECK(float(at_most_zero(s.scores.total[s.order[k]])) == expected.scores[k]);
    }
  }
}

TEST(faults_of_one_sample_are_its_own) {
  Random random(10);
  for (int C : {6, 300}) {
    auto q = problem<float>(6, 20, C, 0, 4);
    fill(q, random, 4, 2);
    const Decoded<float> whole = decode(q, false);
    q.lengths = {20, 20, 20, 21, -1, 10};
    q.x[(1 * 20 + 13) * C + 5] = std::nanf("");
    q.x[(2 * 20 + 19) * C + 3] = 0.5f;
    for (int c = 0; c < C; ++c) q.x[(5 * 20 + 10) * C + c] = std::nanf("");  // beyond its length
    for (bool on_cuda : {false, true}) {
      const Decoded<float> got = decode(q, on_cuda);
      for (int h = 0; h < q.N * q.beam; ++h) {
        const int n = h / q.beam;
        if (n == 0) CHECK(got.scores[h] == whole.scores[h] && got.lengths[h] == whole.lengths[h]);
        if (n == 5) CHECK(got.scores[h] > kNever);
        if (n == 0 || n == 5) continue;
        CHECK(std::isnan(got.scores[h]) && got.lengths[h] == 0);
        for (int i = 0; i < q.T; ++i) CHECK(got.tokens[h * q.T + i] == -1 && got.confidences[h * q.T + i] == 0);
      }
    }
    CHECK(decode(q, false).tokens == decode(q, true).tokens);
    q.lengths = std::vector<int64_t>(6, 20);
    q.from_logits = true;
    q.x[0] = INFINITY;
    for (bool on_cuda : {false, true}) {
      const Decoded<float> got = decode(q, on_cuda);
      CHECK(std::isnan(got.scores[0]) && std::isnan(got.scores[q.beam]) && !std::isnan(got.scores[2 * q.beam]));
    }
    q.x[0] = 0;
    for (bool on_cuda : {false, true}) CHECK(std::isnan(decode(q, on_cuda, {}, 79).scores[0]));  // arena
  }
}

TEST(a_dead_beam_reads_no_more) {
  auto q = problem<float>(1, 5, 3, 0, 2);
  q.x.assign(15, -1);
  for (int c = 0; c < 3; ++c) q.x[2 * 3 + c] = -INFINITY, q.x[3 * 3 + c] = std::nanf("");
  for (bool logits : {false, true}) {
    q.from_logits = logits;
    for (bool on_cuda : {false, true}) {
      const Decoded<float> got = decode(q, on_cuda);
      for (int k = 0; k < 2; ++k) CHECK(got.scores[k] == -INFINITY && got.lengths[k] == 0 && got.tokens[k * 5] == -1);
    }
  }
}

TEST(no_frames_no_samples) {
  for (bool on_cuda : {false, true}) {
    auto q = problem<float>(2, 0, 3, 0, 2);
    Decoded<float> got = decode(q, on_cuda);
    CHECK(got.scores[0] == 0 && got.scores[1] == -INFINITY && got.lengths[0] == 0 && got.lengths[1] == 0);
    q = problem<float>(0, 4, 3, 0, 2);
    got = decode(q, on_cuda);
    CHECK(got.scores.empty());
  }
}

TEST(a_result_before_the_first_frame) {
  const int beam = 3;
  Memory state(BeamState::bytes(beam, false));
  for (bool on_cuda : {false, true}) {
    Decoded<float> got;
    BeamResultParams r{};
    got.set(r, 3, 2);
    r.state = state.aligned(), r.batch = 1, r.beam_size = beam, r.nbest = 3, r.max_length = 2;
    r.dtype = DType::kFloat32;
    if (on_cuda) CHECK(cuda::beam_search_result(r, nullptr) == 0);
    if (!on_cuda) cpu::beam_search_result(r, 0, 1);
    CHECK(got.scores[0] == 0 && got.scores[1] == -INFINITY && got.path_scores == got.scores);
    CHECK(got.lengths == std::vector<int64_t>(3, 0));
    for (const auto* v : {&got.tokens, &got.timesteps, &got.ends, &got.peaks}) CHECK(*v == std::vector<int64_t>(6, -1));
    for (const auto* v : {&got.confidences, &got.token_scores}) CHECK(*v == std::vector<float>(6, 0));
  }
}

TEST(too_wide_a_beam_is_refused) {
  BeamSearchParams p{};
  p.beam_size = 1025, p.classes = 2, p.dtype = DType::kFloat32;
  CHECK(cuda::beam_search(p, nullptr, nullptr) == cudaErrorInvalidValue);
}

// Whatever is in the memory: shapes, lengths and values of any kind, in chunks; FASTCTC_FUZZ_SECONDS for longer.
template <class Scalar>
void fuzz(unsigned seed) {
  Random random(seed);
  const auto below = [&](int n) { return int(random() % unsigned(n)); };
  auto q = problem<Scalar>(1 + below(4), below(40), 1 + (below(4) ? below(40) : below(3000)), 0, 1);
  q.blank = below(q.C), q.beam = 1 + (below(4) ? below(12) : below(300));
  q.from_logits = below(2);
  if (below(4) == 0) q.beam_threshold = 8 * uniform(random);
  if (below(4) == 0) q.token_threshold = 8 * uniform(random);
  if (below(4) == 0) q.blank_skip = std::log(uniform(random));
  for (int n = 0; n < q.N; ++n) q.lengths.push_back(below(12) ? below(q.T + 1) : below(3 * q.T + 9) - q.T);
  if (below(3)) fill(q, random, 10 * uniform(random), 6 * uniform(random), below(2) ? 5 : 0);
  q.x.resize(size_t(q.N) * q.T * q.C);
  const Scalar odd[] = {Scalar(0),      Scalar(-0.0),  Scalar(kNever), Scalar(-1e30), Scalar(-3e38),
                        Scalar(-1e-40), Scalar(-1e-3), Scalar(-745),   Scalar(-5000), Scalar(-1.5)};
  const Scalar faults[] = {Scalar(NAN), Scalar(INFINITY), Scalar(2)};
  const int odd_ones = below(20), faulty = below(6) ? 0 : 1 + below(200);
  for (Scalar& x : q.x) {
    if (odd_ones && below(20) < odd_ones) x = odd[below(10)];
    if (faulty && below(200 * q.C) < faulty) x = faults[below(3)];
  }
  std::vector<int> chunks = {q.T};
  const bool lengths_fit = *std::min_element(q.lengths.begin(), q.lengths.end()) >= 0 &&
                           *std::max_element(q.lengths.begin(), q.lengths.end()) <= q.T;
  const Decoded<Scalar> whole = decode(q, false);
  if (lengths_fit) {
    for (int cut = below(4); cut > 0; --cut) {
      const int first = below(chunks.back() + 1);
      chunks.push_back(chunks.back() - first);
      chunks[chunks.size() - 2] = first;
    }
    CHECK(decode(q, false, chunks) == whole);
  }
  if (q.beam <= 40 && q.C <= 100) CHECK(decode(q, true, chunks) == whole);
}
TEST(fuzz) {
  const char* const given = std::getenv("FASTCTC_FUZZ_SECONDS");
  const double seconds = given ? std::atof(given) : 2;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  unsigned seed = given ? std::random_device()() : 1, count = 0;
  for (; elapsed() < seconds; ++seed, ++count) {
    fuzz<float>(seed);
    fuzz<double>(seed);
  }
  std::printf("%u cases, the last of seed %u\n", 2 * count, seed - 1);
}

TEST_MAIN()

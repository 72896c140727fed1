// Greedy decoding: the CPU kernel and the emulated CUDA kernel against the definition.
#include "../kernels/greedy_decode.h"

#include <random>

#include "brute_force.h"
#include "check.h"

using namespace fastctc;
using namespace fastctc::testing;

namespace {

struct Decoded {
  std::vector<int64_t> tokens, timesteps, ends, peaks;  // (N, T)
  std::vector<float> confidences, token_scores;
  std::vector<int64_t> lengths;  // (N)
  std::vector<float> scores;
};

Decoded decode(const std::vector<float>& x, int N, int T, int C, int blank, const std::vector<int64_t>& frames,
               bool cuda, bool from_logits = false) {
  Decoded out;
  for (auto* v : {&out.tokens, &out.timesteps, &out.ends, &out.peaks}) v->assign(size_t(N) * T, 7);
  for (auto* v : {&out.confidences, &out.token_scores}) v->assign(size_t(N) * T, 7);
  out.lengths.assign(N, 7);
  out.scores.assign(N, 7);
  GreedyDecodeParams p{};
  p.input = x.data();
  p.dtype = DType::kFloat32;
  p.stride_n = int64_t(T) * C, p.stride_t = C, p.stride_c = 1;
  p.batch = N, p.frames = T, p.classes = C;
  p.input_lengths = frames.data();
  p.blank = blank;
  p.from_logits = from_logits;
  p.tokens = out.tokens.data();
  p.lengths = out.lengths.data();
  p.scores = out.scores.data();
  p.timesteps = out.timesteps.data();
  p.ends = out.ends.data();
  p.peaks = out.peaks.data();
  p.confidences = out.confidences.data();
  p.token_scores = out.token_scores.data();
  std::vector<char> memory((cuda ? cuda::greedy_decode_workspace(p) : cpu::greedy_decode_workspace(p)) + 64);
  void* aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  if (cuda) {
    CHECK(cuda::greedy_decode(p, aligned, nullptr) == 0);
  } else {
    cpu::greedy_decode(p, 0, N, aligned);
  }
  return out;
}

}  // namespace

TEST(equals_the_definition) {
  std::mt19937 random(1);
  for (int round = 0; round < 30; ++round) {
    const int N = 2, T = 1 + int(random() % 70), C = 1 + int(random() % 40), blank = int(random() % C);
    std::vector<float> x(size_t(N) * T * C);
    for (float& v : x) v = -float(random() % 4);  // many ties
    std::vector<int64_t> frames = {T, int64_t(random() % (T + 1))};
    for (bool cuda : {false, true}) {
      const Decoded got = decode(x, N, T, C, blank, frames, cuda);
      for (int n = 0; n < N; ++n) {
        const std::vector<double> rows(x.begin() + n * T * C, x.begin() + n * T * C + frames[n] * C);
        const BestPath expected = greedy(rows, int(frames[n]), C, blank);
        CHECK(got.lengths[n] == int64_t(expected.labels.size()));
        CHECK_NEAR(got.scores[n], expected.log_prob, 1e-4);
        for (int i = 0; i < T; ++i) {
          const bool padding = i >= got.lengths[n];
          CHECK(got.tokens[n * T + i] == (padding ? -1 : expected.labels[i]));
          if (padding) {
            CHECK(got.timesteps[n * T + i] == -1 && got.ends[n * T + i] == -1 && got.peaks[n * T + i] == -1);
            CHECK(got.confidences[n * T + i] == 0 && got.token_scores[n * T + i] == 0);
          } else {
            const int64_t t = got.timesteps[n * T + i];
            double peak = -INFINITY, sum = 0;
            int64_t end = t, peak_frame = t;
            for (; end < frames[n] && expected.path[end] == expected.labels[i]; ++end) {
              const double y = rows[end * C + expected.labels[i]];
              if (y > peak) peak_frame = end;
              peak = std::max(peak, y);
              sum += y;
            }
            CHECK_NEAR(got.confidences[n * T + i], std::exp(peak), 1e-6);
            CHECK_NEAR(got.token_scores[n * T + i], sum / double(end - t), 1e-6);
            CHECK(got.ends[n * T + i] == end && got.peaks[n * T + i] == peak_frame);
            CHECK(expected.path[t] == expected.labels[i] && (t == 0 || expected.path[t - 1] != expected.path[t]));
          }
        }
      }
    }
  }
}

TEST(a_nan_or_a_wrong_length_gives_no_tokens) {
  std::vector<float> x(3 * 40 * 5, -1);
  for (int t = 0; t < 3 * 40; ++t) x[t * 5 + 1 + t % 3] = 0;
  x[(1 * 40 + 35) * 5 + 4] = std::nanf("");
  for (bool cuda : {false, true}) {
    const Decoded got = decode(x, 3, 40, 5, 0, {40, 40, 41}, cuda);
    CHECK(got.lengths[0] == 40 && got.scores[0] == 0);
    for (int n : {1, 2}) {
      CHECK(got.lengths[n] == 0 && std::isnan(got.scores[n]));
      for (int i = n * 40; i < n * 40 + 40; ++i) {
        CHECK(got.tokens[i] == -1 && got.timesteps[i] == -1 && got.ends[i] == -1 && got.peaks[i] == -1);
        CHECK(got.confidences[i] == 0 && got.token_scores[i] == 0);
      }
    }
  }
}

// Rows of all lengths around the width of a vector, with the best class and a NaN in each place.
TEST(rows_of_any_length) {
  for (int C = 1; C <= 150; ++C) {
    for (int c = 0; c < C; c += C < 40 ? 1 : 7) {
      std::vector<float> x(C, -3);
      x[c] = -1;
      if (c + 5 < C) x[c + 5] = -1;
      for (bool cuda : {false, true}) {
        CHECK(decode(x, 1, 1, C, c == 0 ? C - 1 : 0, {1}, cuda).tokens[0] == (C == 1 ? -1 : c));
        std::vector<float> broken = x;
        broken[c] = std::nanf("");
        const Decoded got = decode(broken, 1, 1, C, 0, {1}, cuda);
        CHECK(got.lengths[0] == 0 && std::isnan(got.scores[0]));
      }
    }
  }
}

TEST(logits_have_the_same_bits_on_every_machine) {
  std::mt19937 random(2);
  for (int C : {1, 5, 31, 32, 33, 100, 1000}) {
    const int T = 20;
    std::vector<float> x(size_t(T) * C);
    for (float& v : x) v = float(random() % 10000) / 1000 - 5;
    x[0] = -INFINITY;
    const Decoded one = decode(x, 1, T, C, 0, {T}, false, true), other = decode(x, 1, T, C, 0, {T}, true, true);
    CHECK(one.scores == other.scores && one.confidences == other.confidences && one.token_scores == other.token_scores);
    CHECK(one.tokens == other.tokens && one.ends == other.ends && one.peaks == other.peaks);
    double score = 0;
    for (int t = 0; t < T; ++t) {
      double max = -INFINITY, sum = 0;
      for (int c = 0; c < C; ++c) max = std::max(max, double(x[t * C + c]));
      for (int c = 0; c < C; ++c) sum += std::exp(double(x[t * C + c]) - max);
      score -= max == -INFINITY ? INFINITY : std::log(sum);
    }
    if (score == -INFINITY) CHECK(one.scores[0] == score);
    if (score > -INFINITY) CHECK_NEAR(one.scores[0], score, 3e-6 * (1 - score));
  }
}

TEST(scores_stay_in_their_bounds) {
  for (bool cuda : {false, true}) {
    const Decoded rounded = decode({-9, 1e-7f, 3e-7f, -9, -9, 2e-7f}, 1, 3, 2, 0, {3}, cuda);
    CHECK(rounded.scores[0] == 0 && rounded.confidences[0] == 1 && rounded.token_scores[0] == 0);
    const Decoded wrong = decode({-9, 1e-7f, 0.5f, -9, -9, 2e-7f}, 1, 3, 2, 0, {3}, cuda);
    CHECK(std::isnan(wrong.scores[0]) && wrong.lengths[0] == 0);
    const Decoded infinite = decode({-9, INFINITY}, 1, 1, 2, 0, {1}, cuda, true);
    CHECK(std::isnan(infinite.scores[0]) && infinite.lengths[0] == 0);
  }
}

TEST_MAIN()

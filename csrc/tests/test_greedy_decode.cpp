// Greedy decoding: the CPU kernel and the emulated CUDA kernel against the definition.
#include "../kernels/greedy_decode.h"

#include <random>

#include "brute_force.h"
#include "check.h"

using namespace fastctc;
using namespace fastctc::testing;

namespace {

struct Decoded {
  std::vector<int64_t> tokens, lengths, timesteps;
  std::vector<float> scores, confidences;
};

Decoded decode(const std::vector<float>& x, int N, int T, int C, int blank, const std::vector<int64_t>& frames,
               bool cuda) {
  Decoded out;
  out.tokens.assign(size_t(N) * T, 7);
  out.timesteps.assign(size_t(N) * T, 7);
  out.lengths.assign(N, 7);
  out.scores.assign(N, 7);
  out.confidences.assign(size_t(N) * T, 7);
  GreedyDecodeParams p{};
  p.input = x.data();
  p.dtype = DType::kFloat32;
  p.stride_n = int64_t(T) * C, p.stride_t = C, p.stride_c = 1;
  p.batch = N, p.frames = T, p.classes = C;
  p.input_lengths = frames.data();
  p.blank = blank;
  p.tokens = out.tokens.data();
  p.lengths = out.lengths.data();
  p.scores = out.scores.data();
  p.timesteps = out.timesteps.data();
  p.confidences = out.confidences.data();
  if (cuda) {
    std::vector<char> memory(cuda::greedy_decode_workspace(p) + 64);
    void* aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    CHECK(cuda::greedy_decode(p, aligned, nullptr) == 0);
  } else {
    cpu::greedy_decode(p, 0, N);
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
            CHECK(got.timesteps[n * T + i] == -1 && got.confidences[n * T + i] == 0);
          } else {
            const int64_t t = got.timesteps[n * T + i];
            double peak = -INFINITY;
            for (int64_t s = t; s < frames[n] && expected.path[s] == expected.labels[i]; ++s) {
              peak = std::max(peak, rows[s * C + expected.labels[i]]);
            }
            CHECK_NEAR(got.confidences[n * T + i], std::exp(peak), 1e-6);
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
        CHECK(got.tokens[i] == -1 && got.timesteps[i] == -1 && got.confidences[i] == 0);
      }
    }
  }
}

TEST_MAIN()

// CTC loss: the CPU kernels and the emulated CUDA kernels against brute force, and against each other where brute force
// cannot go.
#include <cstdlib>

#include "check.h"
#include "ctc_loss_batch.h"

using namespace fastctc;
using namespace fastctc::testing;

namespace {

// Random shapes, lengths and options.
template <class Scalar>
void random_small_batches(double tolerance, bool with_blanks = false) {
  std::mt19937 random(11);
  for (int round = 0; round < 40; ++round) {
    const int T = 1 + int(random() % 5), N = 1 + int(random() % 3), C = 2 + int(random() % 3), S = int(random() % 4);
    Batch<Scalar> batch(T, N, C, S, int(random() % C));
    batch.from_logits = round % 2;
    batch.concatenated = round % 5 == 0;
    batch.randomize(random, round % 3 ? 1 : 6);
    if (round % 4 == 1) {
      for (int c = 0; c < C; ++c) batch.class_bias.push_back(Scalar(c % 3) - Scalar(0.5));
    }
    if (round % 4 >= 2) {
      batch.star = C;
      for (int64_t& label : batch.targets) label = random() % 2 ? batch.star : label;
    }
    for (int64_t& label : batch.targets) label = with_blanks && random() % 2 ? batch.blank : label;
    if (round % 6 >= 3) batch.delay_penalty = 0.3;
    for (int n = 0; n < N; ++n) {
      batch.input_lengths[n] = int64_t(random() % (T + 1));
      batch.target_lengths[n] = int64_t(random() % (S + 1));
    }
    for (const Machine& machine : kMachines) {
      batch.run(machine);
      batch.check_against_brute_force(tolerance);
    }
  }
}

template <class Scalar>
void machines_agree(int T, int N, int C, int S, double spread, double tolerance) {
  std::mt19937 random(5);
  Batch<Scalar> batch(T, N, C, S, 0);
  batch.from_logits = true;
  batch.randomize(random, spread);
  for (int n = 1; n < N; ++n) batch.target_lengths[n] = S - int64_t(random() % S);
  batch.run(kMachines[0]);
  const std::vector<Scalar> loss = batch.loss, grad = batch.grad;
  for (int n = 0; n < N; ++n) CHECK(batch.status[n] == kOk);
  batch.run(kMachines[1]);
  for (int n = 0; n < N; ++n) CHECK_NEAR(batch.loss[n], loss[n], tolerance * std::fabs(loss[n]));
  for (size_t i = 0; i < grad.size(); ++i) CHECK_NEAR(batch.grad[i], grad[i], tolerance);
}

}  // namespace

TEST(float_equals_brute_force) { random_small_batches<float>(2e-6); }
TEST(double_equals_brute_force) { random_small_batches<double>(1e-12); }

TEST(float_labels_that_equal_the_blank) { random_small_batches<float>(2e-6, true); }
TEST(double_labels_that_equal_the_blank) { random_small_batches<double>(1e-12, true); }

// Around the sizes of a vector, of a warp and of a block of labels, on tiles that no path crosses.
TEST(machines_agree_at_block_edges) {
  for (int S : {15, 16, 31, 32, 63, 64}) machines_agree<float>(2 * S + 3, 1, 5, S, 2, 2e-6);
}
TEST(machines_agree_on_long_targets) { machines_agree<float>(400, 2, 6, 150, 3, 4e-6); }
TEST(machines_agree_in_double) { machines_agree<double>(300, 1, 6, 130, 3, 1e-11); }

TEST(extreme_exponents_are_done_in_double_on_the_cpu) {
  std::mt19937 random(3);
  Batch<float> batch(4, 1, 3, 2, 0);
  batch.randomize(random, 1);
  for (float& v : batch.x) v = v * 1e-3f - 4e6f;
  batch.run(kMachines[0]);
  const Posteriors expected = posteriors(batch.log_probs(0), 4, 4, batch.target(0), 0);
  CHECK_NEAR(batch.loss[0], -expected.log_prob, 2.0);
  for (int i = 0; i < 12; ++i) CHECK_NEAR(batch.grad[i], -expected.gamma[i / 3 * 4 + i % 3], 1e-6);
}

TEST(extreme_exponents_are_done_in_double) {
  for (int S : {3, 40, 140}) {
    std::mt19937 random(13);
    Batch<float> batch(2 * S + 5, 3, 7, S, 2);
    batch.randomize(random, 2e5);
    for (size_t i = 0; i < batch.x.size(); ++i) batch.x[i] *= i / 7 % 3 == 1 ? 1e-5f : 1;  // sample 1 needs it not
    emulated_is_exact(batch, 2e-6);
  }
}

// The two directions meet in the middle, and correct each other every 64 frames.
TEST(any_number_of_frames) {
  for (int T : {1, 2, 3, 7, 8, 9, 63, 64, 65, 127, 128, 129, 130, 257, 385, 420}) {
    if (kSanitized && T > 130) continue;
    std::mt19937 random(T);
    Batch<float> batch(T, 2, 6, T < 4 ? 1 : 3, 1);
    batch.from_logits = T % 2;
    batch.randomize(random, 2);
    batch.input_lengths[1] = (T + 1) / 2;
    emulated_is_exact(batch, 2e-6);
  }
}

// Several warps in each direction, and more columns than warps.
TEST(long_targets) {
  for (int S : {127, 128, 130, 300, 520, 700, 1100}) {
    if (kSanitized && (S == 300 || S > 520)) continue;
    if (rounding_is_tested_elsewhere() && S > 700) continue;
    std::mt19937 random(S);
    Batch<float> batch(S + S / (kSanitized ? 12 : 3), 2, 40, S, 0);
    batch.from_logits = true;
    batch.randomize(random, 2);
    batch.target_lengths[1] = S / 2;
    emulated_is_exact(batch, 2e-6);
  }
}
TEST(long_targets_in_double) { machines_agree<double>(700, 1, 40, 520, 3, 1e-11); }

// Rounding must not add up over the frames.
TEST(long_and_unlikely_inputs_stay_exact) {
  for (int S : {25, 60, 300}) {
    if (rounding_is_tested_elsewhere() && S > 25) continue;
    std::mt19937 random(S);
    Batch<float> batch(rounding_is_tested_elsewhere() ? 200 : 2000, 1, 30, S, 0);
    batch.from_logits = true;
    batch.randomize(random, 10);
    emulated_is_exact(batch, 4e-6);
  }
}

// Rounding in 64 frames and more must not show. Narrow walks and others; each lane has one label, or two; several warps
// in each direction; more columns than warps. The last frames of an input are less than a segment.
TEST(totals_of_long_inputs_are_measured) {
  const bool is_short = rounding_is_tested_elsewhere();
  const auto check = [](int T, int S, int seeds) {
    for (int seed = 0; seed < seeds; ++seed) {
      std::mt19937 random(seed);
      Batch<float> batch(T, 1, 30, S, 0);
      batch.from_logits = true;
      batch.randomize(random, 10);
      if (seed % 2) batch.class_bias.assign(30, 0.0f);  // an option: walk.h
      emulated_is_exact(batch, 1e-6);
    }
  };
  check(is_short ? 300 : 8000, 60, is_short || std::getenv("FASTCTC_PTX_SEED") ? 1 : 10);
  if (is_short) return;
  check(16000, 20, 1);
  check(3001, 300, 1);
  check(1500, 1100, 1);
  const char* const seeds = std::getenv("FASTCTC_LONG_SEEDS");  // minutes: more seeds of the longest inputs
  check(16000, 60, seeds ? std::atoi(seeds) : 0);
}

// Are the samples of a batch done by the walks of narrow_walk.h? A bias of zero changes no number, but it is an option,
// which is for walk.h. The two round differently.
bool is_narrow(Batch<float> batch) {
  batch.run(kMachines[1]);
  const std::vector<float> occupancy = batch.occupancy;
  batch.class_bias.assign(size_t(batch.C), 0.0f);
  batch.run(kMachines[1]);
  return batch.occupancy != occupancy;
}

// One column of slots and two; odd and even targets; any number of frames in the first tile and the last.
TEST(narrow_samples_are_exact) {
  const int shapes[][2] = {{7, 2},    {8, 3},    {129, 40},  {200, 61},  {201, 62},  {202, 63},
                           {203, 64}, {500, 96}, {301, 125}, {309, 126}, {4000, 20}, {2500, 100}};
  for (const auto& [T, S] : shapes) {
    if (rounding_is_tested_elsewhere() && T > 310) continue;
    std::mt19937 random(T);
    Batch<float> batch(T, 1, 30, S, T % 3);
    batch.from_logits = T % 2;
    batch.randomize(random, 2);
    for (int64_t& label : batch.targets) label += label == batch.blank;
    CHECK(is_narrow(batch));
    emulated_is_exact(batch, 1e-6);
  }
}

// In these samples, states that decide the result are far below others beside them.
TEST(states_far_below_others_are_exact) {
  const auto check = [](bool narrow, int T, int S, float (*score)(int t, int i, int S)) {
    std::mt19937 random(3);
    Batch<float> batch(T, 1, S + 1, S, 0);
    batch.randomize(random, 1);
    for (int i = 0; i < S; ++i) batch.targets[size_t(i)] = i + 1;
    for (int t = 0; t < T; ++t) {
      for (int i = 0; i < S; ++i) batch.x[size_t(t) * size_t(S + 1) + size_t(i) + 1] += score(t, i, S);
    }
    CHECK(is_narrow(batch) == narrow);
    emulated_is_exact(batch, 2e-6);
  };
  for (int S : {40, 90}) {
    if (rounding_is_tested_elsewhere() && S > 40) continue;
    // The only path has no likely frame: each of its labels is likely one frame later.
    check(true, S, S, [](int t, int i, int) { return t == i ? -60.0f : t == i + 1 ? 60.0f : 0.0f; });
    // A label that is likely early, and the one before it, which is likely later.
    check(true, 6 * S, S, [](int t, int i, int) {
      return i % 2 == 1 && t / 6 == i - 1 ? 60.0f : i % 2 == 0 && t / 6 == i + 1 ? 62.0f : -10.0f;
    });
    // Labels of several frames without doubt.
    check(true, 8 * S, S, [](int t, int i, int) { return t / 8 == i ? 60.0f : -70.0f; });
    // Out of the range of an emission.
    check(false, 3 * S, S, [](int t, int i, int) { return t == i ? -95.0f : 0.0f; });
    check(false, 3 * S, S, [](int t, int i, int S) { return t == S && i == S / 2 ? 95.0f : 0.0f; });
    check(false, 3 * S, S, [](int t, int i, int) { return t == i ? -INFINITY : 0.0f; });
  }
}

TEST(options_on_long_targets) {
  for (int S : {20, 50, 200}) {
    std::mt19937 random(S);
    Batch<float> batch(2 * S + 9, 2, 10, S, 0);
    batch.from_logits = S != 50;
    batch.randomize(random, 2);
    batch.star = 10;
    for (int i = 0; i < 2 * S; i += 5) batch.targets[i] = batch.star;
    batch.class_bias.assign(10, -0.25f);
    batch.delay_penalty = 0.01;
    emulated_is_exact(batch, 4e-6);
  }
}

// Of several warps and blocks, every fifth label and two in a row.
TEST(labels_that_equal_the_blank_in_long_targets) {
  for (int S : {20, 50, 200, 700}) {
    if (S > (kSanitized ? 50 : rounding_is_tested_elsewhere() ? 200 : 700)) continue;
    std::mt19937 random(S);
    Batch<float> batch(2 * S + 9, 2, 10, S, 3);
    batch.from_logits = S != 50;
    batch.randomize(random, 2);
    for (int i = 0; i < 2 * S; i += 5) batch.targets[i] = batch.targets[i + i % 2] = 3;
    emulated_is_exact(batch, 4e-6);
  }
}

// Rounding brings P above 1, where all of it is on few paths. A sample that is not normalized may have a negative loss.
TEST(a_normalized_loss_is_never_negative) {
  for (const Machine& machine : kMachines) {
    for (const bool from_logits : {false, true}) {
      for (unsigned seed = 0; seed < (rounding_is_tested_elsewhere() ? 2u : 20u); ++seed) {
        std::mt19937 random(seed);
        Batch<float> batch(300, 2, 12, 40, 0);
        batch.from_logits = from_logits;
        batch.randomize(random, 0.3);
        if (seed % 2) batch.class_bias.assign(12, -1e-9f);
        for (int t = 0; t < 300; ++t) {
          for (int n = 0; n < 2; ++n) {
            float* const row = &batch.x[(size_t(t) * 2 + n) * 12];
            row[t % 7 < 3 || t / 7 >= 40 ? 0 : batch.targets[n * 40 + t / 7]] += 20;
            double total = kMinusInfinity;
            for (int c = 0; c < 12; ++c) total = log_add(total, row[c]);
            for (int c = 0; c < 12 && !from_logits; ++c) row[c] = float(row[c] - total) + (n ? 1e-3f : 0);
          }
        }
        batch.run(machine);
        CHECK(batch.loss[0] >= 0 && batch.loss[0] < 1e-3 && !std::signbit(batch.loss[0]));
        CHECK(from_logits ? batch.loss[1] >= 0 : batch.loss[1] < -0.29);
      }
    }
  }
}

TEST(masked_blanks) {
  for (int S : {3, 40, 150}) {
    for (bool from_logits : {false, true}) {
      std::mt19937 random(S);
      Batch<float> batch(3 * S, 1, 12, S, 4);
      batch.from_logits = from_logits;
      batch.randomize(random, 2);
      for (int t = 0; t < 3 * S; t += 3) batch.x[t * 12 + 4] = -INFINITY;
      for (int i = 1; i < S; ++i) batch.targets[i] = (batch.targets[i - 1] + 1) % 12;
      for (int64_t& label : batch.targets) label = label == 4 ? 5 : label;
      emulated_is_exact(batch, 2e-6);
    }
  }
}

// A row of the gradient for each warp and for each block; labels sorted in shared memory and in place.
TEST(repeated_labels_are_summed) {
  for (int C : {3, 50, 2500}) {
    for (int S : {1, 31, 100, 700, 5000}) {
      std::mt19937 random(S);
      Batch<float> batch(3, 2, C, S, 1);
      batch.star = C + 5;
      batch.from_logits = S != 100;
      batch.randomize(random, 1);
      for (int64_t& label : batch.targets) label = random() % 8 ? (label == 1 ? 0 : label) : batch.star;
      batch.target_lengths[1] = (S + 1) / 2;
      CtcLossParams p = batch.params();
      const std::vector<float> g = {1, 3};
      p.grad_loss = g.data();
      p.max_length = S;
      std::vector<float> occupancy(size_t(2) * 3 * S), statistics(18, 0);
      for (float& v : occupancy) v = float(random() % 1000) / (500.0f * S);
      p.occupancy = occupancy.data();
      for (float& v : statistics) v = float(1 + random() % 100) / 100;
      p.row_statistics = statistics.data();
      std::fill(batch.status.begin(), batch.status.end(), kOk);
      std::vector<char> backward(cuda::ctc_loss_backward_workspace(p) + 64);
      CHECK(cuda::ctc_loss_backward(p, batch.align(backward), nullptr) == 0);
      for (int row = 0; row < 6; ++row) {
        const int t = row / 2, n = row % 2, place = n * 3 + t;
        std::vector<double> gamma(C);
        double total = 0, stars = 0;
        for (int i = 0; i < batch.target_lengths[n]; ++i) {
          const int64_t label = batch.targets[n * S + i];
          const double value = occupancy[size_t(place) * S + i];
          total += value;
          (label == batch.star ? stars : gamma[label]) += value;
        }
        const double all = std::max(total, double(statistics[place]));  // the sum over all paths
        for (double* each : {&total, &stars}) *each /= all;
        for (double& each : gamma) each /= all;
        gamma[1] = std::max(0.0, 1 - total);
        for (int c = 0; c < C; ++c) {
          const double x = batch.x[size_t(row) * C + c];
          const double softmax = std::exp(x - statistics[6 + place]) * std::exp2(-double(statistics[12 + place]));
          const double expected = g[n] * ((batch.from_logits ? softmax * (1 - stars) : 0) - gamma[c]);
          CHECK_NEAR(batch.grad[size_t(row) * C + c], expected, 2e-6 * (1 + std::fabs(expected)));
        }
      }
    }
  }
}

// Where labels start is summed by each warp, and for batches of more than 1024 samples by a kernel.
TEST(concatenated_targets_equal_padded_ones) {
  for (const int N : {40, 1030}) {
    std::mt19937 random(7);
    Batch<float> padded(3, N, 4, 2, 0);
    padded.randomize(random, 1);
    for (int n = 0; n < N; ++n) {
      padded.target_lengths[n] = n * 7 % 5 % 3;
      padded.input_lengths[n] = n % 13 == 0 ? 3 : 0;  // most samples are infeasible, and done at once
    }
    Batch<float> batch = padded;
    batch.concatenated = true;
    batch.run(kMachines[1]);
    padded.run(kMachines[1]);
    CHECK(batch.loss == padded.loss && batch.grad == padded.grad && batch.status == padded.status);
  }
}

// A length that is wrong must not lead out of concatenated targets.
TEST(wrong_lengths_of_concatenated_targets) {
  const std::pair<int, int64_t> cases[] = {{40, -1}, {40, 40}, {40, INT64_MAX}, {40, INT64_MIN}, {1030, INT64_MAX}};
  for (const auto& [N, wrong] : cases) {
    std::mt19937 random(7);
    Batch<float> batch(6, N, 4, 2, 0);
    batch.concatenated = true;
    batch.randomize(random, 1);
    CtcLossParams p = batch.params();
    batch.target_lengths[1] = wrong;
    const std::vector<float> ones(N, 1);
    p.grad_loss = ones.data();
    std::vector<char> forward(cuda::ctc_loss_forward_workspace(p) + 64);
    CHECK(cuda::ctc_loss_forward(p, batch.align(forward), nullptr) == 0);
    std::vector<char> backward(cuda::ctc_loss_backward_workspace(p) + 64);
    CHECK(cuda::ctc_loss_backward(p, batch.align(backward), nullptr) == 0);
    CHECK(batch.status[0] == kOk);
    CHECK(batch.status[1] == (wrong == 40 ? kInfeasible : kInvalid));
  }
}

TEST(a_bad_sample_is_marked_and_leaves_the_others_alone) {
  std::mt19937 random(7);
  for (const Machine& machine : kMachines) {
    Batch<float> batch(6, 6, 4, 3, 0);
    batch.from_logits = true;
    batch.randomize(random, 1);
    batch.targets[1 * 3 + 1] = 4;                  // not a class
    batch.targets[2 * 3 + 2] = -1;                 // not a class
    batch.input_lengths[3] = 7;                    // more frames than there are
    batch.input_lengths[4] = 2;                    // too few
    batch.x[(2 * 6 + 5) * 4 + 3] = std::nanf("");  // frame 2 of sample 5
    batch.run(machine);
    const int32_t expected[] = {kOk, kInvalid, kInvalid, kInvalid, kInfeasible, kNotANumber};
    for (int n = 0; n < 6; ++n) {
      CHECK(batch.status[n] == expected[n]);
      for (int t = 0; t < 6; ++t) {
        for (int c = 0; c < 4; ++c) {
          const float g = batch.grad[(t * 6 + n) * 4 + c];
          CHECK(n == 5 ? std::isnan(g) : n == 0 ? std::isfinite(g) : g == 0);
        }
      }
    }
    CHECK(std::isfinite(batch.loss[0]) && std::isnan(batch.loss[1]) && std::isinf(batch.loss[4]));
  }
}

// max_length comes from the caller, and the kernels check it.
TEST(a_target_longer_than_promised_is_infeasible) {
  std::mt19937 random(7);
  Batch<float> batch(9, 2, 4, 5, 0);
  batch.randomize(random, 1);
  batch.target_lengths[0] = 3;
  CtcLossParams p = batch.params();
  p.max_length = 3;
  std::vector<char> forward(cuda::ctc_loss_forward_workspace(p) + 64);
  CHECK(cuda::ctc_loss_forward(p, batch.align(forward), nullptr) == 0);
  CHECK(batch.status[0] == kOk && batch.status[1] == kInfeasible);
}

TEST(padding_is_never_read) {
  std::mt19937 random(9);
  for (const Machine& machine : kMachines) {
    Batch<float> batch(5, 2, 3, 2, 2);
    batch.randomize(random, 1);
    batch.input_lengths[1] = 3;
    for (int t = 3; t < 5; ++t) {
      for (int c = 0; c < 3; ++c) batch.x[(t * 2 + 1) * 3 + c] = std::nanf("");
    }
    batch.run(machine);
    batch.check_against_brute_force(2e-6);
  }
}

TEST(a_masked_state_does_not_outweigh_an_unlikely_one) {
  for (const Machine& machine : kMachines) {
    Batch<float> batch(3, 1, 3, 1, 0);
    const float x[] = {-INFINITY, -300, -1, -200, -1, -INFINITY, -300, -INFINITY, -1};
    std::copy(x, x + 9, batch.x.begin());
    batch.targets = {1};
    batch.run(machine);
    batch.check_against_brute_force(2e-6);
  }
}

TEST_MAIN()

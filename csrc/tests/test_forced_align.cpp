// Forced alignment: the CPU kernel and the emulated CUDA kernel against brute force, and against each other and
// themselves to the bit, with back-pointers kept and with checkpoints.
#include "../kernels/forced_align.h"

#include <random>

#include "brute_force.h"
#include "check.h"
#include "math/lattice.h"

using namespace fastctc;
using namespace fastctc::testing;

namespace {

enum class Machine { kCpu, kCuda };
// How much is kept: everything, or segments of this many frames.
struct Schedule {
  int64_t kept_bytes, segment_frames;
};
constexpr Schedule kWhole = {int64_t(1) << 30, 0}, kWholeInSegments = {int64_t(1) << 30, 16}, kTight = {0, 16},
                   kLoose = {0, 96};

struct Aligned {
  std::vector<int64_t> paths;
  std::vector<double> scores;
  std::vector<int32_t> status;
  bool operator==(const Aligned& other) const {
    return paths == other.paths && status == other.status &&
           std::memcmp(scores.data(), other.scores.data(), scores.size() * sizeof(double)) == 0;
  }
};

// A batch in (N, T, C) order; every sample has its own lengths.
template <class Scalar>
struct Batch {
  int N, T, C, S, blank = 0, star = -1;
  bool from_logits = false, concatenated = false;
  std::vector<Scalar> x;
  std::vector<int64_t> targets, input_lengths, target_lengths;

  Batch(int N, int T, int C, int S, std::mt19937& random, int levels = 0) : N(N), T(T), C(C), S(S) {
    std::normal_distribution<double> normal;
    for (int i = 0; i < N * T * C; ++i) {
      x.push_back(levels ? -Scalar(random() % levels) : Scalar(normal(random)));  // few levels: many ties
    }
    for (int i = 0; i < N * S; ++i) targets.push_back(1 + int64_t(random() % (C - 1)));
    input_lengths.assign(N, T);
    target_lengths.assign(N, S);
  }

  Aligned align(Machine machine, Schedule schedule = kWhole) const {
    std::vector<int64_t> labels, offsets;
    for (int n = 0; n < N; ++n) {
      offsets.push_back(int64_t(labels.size()));
      const int64_t count = concatenated ? target_lengths[n] : S;
      labels.insert(labels.end(), targets.begin() + n * S, targets.begin() + n * S + count);
    }
    Aligned out;
    out.paths.assign(size_t(N) * T, 77);
    out.status.assign(N, 77);
    std::vector<Scalar> scores(size_t(N) * T, 77);
    ForcedAlignParams p{};
    CtcLossParams& q = p.loss;
    q.input = x.data();
    q.dtype = sizeof(Scalar) == 4 ? DType::kFloat32 : DType::kFloat64;
    q.stride_n = int64_t(T) * C, q.stride_t = C, q.stride_c = 1;
    q.frames = T, q.batch = N, q.classes = C;
    q.targets = labels.data();
    q.target_count = int64_t(labels.size());
    q.target_columns = concatenated ? -1 : S;
    q.input_lengths = input_lengths.data();
    q.target_lengths = target_lengths.data();
    q.max_length = S < T ? S : T;
    q.blank = blank;
    q.star = star;
    q.from_logits = from_logits;
    q.status = out.status.data();
    p.paths = out.paths.data();
    p.scores = scores.data();
    p.kept_bytes = schedule.kept_bytes;
    p.segment_frames = schedule.segment_frames;
    if (machine == Machine::kCpu) q.target_offsets = offsets.data();
    const size_t bytes = machine == Machine::kCpu ? cpu::forced_align_workspace(p) : cuda::forced_align_workspace(p);
    std::vector<char> memory(bytes + 64);
    void* const aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    if (machine == Machine::kCpu) {
      cpu::forced_align(p, 0, N, aligned);
    } else {
      CHECK(cuda::forced_align(p, aligned, nullptr) == 0);
    }
    out.scores.assign(scores.begin(), scores.end());
    return out;
  }

  // (T, C + 1) log-probabilities of a sample; the last column is the star's.
  std::vector<double> log_probs(int n) const {
    std::vector<double> rows;
    for (int64_t t = 0; t < input_lengths[n]; ++t) {
      const Scalar* const row = x.data() + (n * T + t) * C;
      double denominator = 0;
      for (int c = 0; c < C && from_logits; ++c) denominator += std::exp(double(row[c]));
      for (int c = 0; c < C; ++c) rows.push_back(row[c] - (from_logits ? std::log(denominator) : 0));
      rows.push_back(0);
    }
    return rows;
  }

  void check_against_brute_force(const Aligned& got, double tolerance) const {
    for (int n = 0; n < N; ++n) {
      const int frames = int(input_lengths[n]);
      const std::vector<double> rows = log_probs(n);
      Labeling target(targets.begin() + n * S, targets.begin() + n * S + target_lengths[n]);
      for (int& label : target) label = label == star ? C : label;
      double best = kMinusInfinity;
      for_each_path(rows, frames, C + 1, [&](const Path& path, double log_prob) {
        if (log_prob > best && collapse(path, blank) == target) best = log_prob;
      });
      const bool feasible = best > kMinusInfinity;
      CHECK(got.status[n] == (feasible ? kOk : kInfeasible));
      double sum = 0;
      Path path;
      for (int t = 0; t < T; ++t) {
        const int64_t label = got.paths[n * T + t];
        const double score = got.scores[n * T + t];
        if (!feasible || t >= frames) {
          CHECK(label == blank && score == (feasible ? 0 : kMinusInfinity));
          continue;
        }
        path.push_back(label == star ? C : int(label));
        CHECK_NEAR(score, rows[t * (C + 1) + path.back()], tolerance);
        sum += score;
      }
      if (!feasible) continue;
      CHECK(collapse(path, blank) == target);
      CHECK_NEAR(sum, best, tolerance * (1 + std::fabs(best)));
    }
  }
};

template <class Scalar>
void small_batches(double tolerance) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    const int N = 3, T = 1 + int(random() % 6), C = 2 + int(random() % 3), S = int(random() % 5);
    Batch<Scalar> batch(N, T, C, S, random, round % 3 ? 3 : 0);
    batch.from_logits = round % 2;
    batch.concatenated = round % 5 == 0;
    if (round % 4 == 3) {
      batch.star = C;
      for (int64_t& label : batch.targets) label = random() % 2 ? batch.star : label;
    }
    for (int n = 0; n < N; ++n) {
      batch.input_lengths[n] = n ? int64_t(random() % (T + 1)) : T;
      batch.target_lengths[n] = int64_t(random() % (S + 1));
      if (round % 7 == 0) batch.x[n * T * C + random() % (T * C)] = -Scalar(INFINITY);
    }
    const Aligned expected = batch.align(Machine::kCpu);
    batch.check_against_brute_force(expected, tolerance);
    CHECK(batch.align(Machine::kCuda) == expected);
  }
}

// Every machine and every schedule, to the bit.
template <class Scalar>
void one_answer(const Batch<Scalar>& batch) {
  const Aligned expected = batch.align(Machine::kCpu);
  for (const Machine machine : {Machine::kCpu, Machine::kCuda}) {
    for (const Schedule schedule : {kWhole, kWholeInSegments, kTight, kLoose}) {
      CHECK(batch.align(machine, schedule) == expected);
    }
  }
  for (int n = 0; n < batch.N; ++n) CHECK(expected.status[n] == kOk);
}

}  // namespace

TEST(equals_brute_force) {
  small_batches<float>(1e-5);
  small_batches<double>(1e-12);
}

TEST(one_answer_whatever_is_kept) {
  std::mt19937 random(6);
  for (const int S : {1, 7, 8, 31, 32, 63, 64, 130}) {
    for (const int levels : {0, 3}) {
      if (kSanitized && levels == (S % 2 ? 0 : 3)) continue;
      Batch<float> batch(2, 2 * S + 9, 7, S, random, levels);
      batch.input_lengths[1] -= 5;
      batch.target_lengths[1] -= S / 3;
      one_answer(batch);
      batch.from_logits = true;
      one_answer(batch);
    }
  }
}

TEST(long_targets_go_in_strips) {
  std::mt19937 random(7);
  const int S = 530;
  Batch<double> batch(1, 600, 5, S, random);
  for (int i = 0; i < S; ++i) batch.targets[i] = 1 + i % 4;
  one_answer(batch);
}

TEST(just_enough_frames) {
  std::mt19937 random(8);
  for (const int S : {8, 16, 32, 33, 64, 65, 128, 200}) {
    if (kSanitized && S > 65) continue;
    Batch<float> batch(1, S, 5, S, random);
    for (int i = 0; i < S; ++i) batch.targets[i] = 1 + i % 4;
    one_answer(batch);
    CHECK(batch.align(Machine::kCpu).paths == batch.targets);
  }
}

TEST(ties_have_one_rule) {
  for (const Machine machine : {Machine::kCpu, Machine::kCuda}) {
    std::mt19937 random(9);
    Batch<float> batch(1, 5, 3, 1, random, 1);  // all scores are equal
    batch.targets = {2};
    CHECK((batch.align(machine).paths == std::vector<int64_t>{2, 2, 2, 2, 2}));
    Batch<float> two(1, 5, 3, 2, random, 1);
    two.targets = {1, 2};
    CHECK((two.align(machine).paths == std::vector<int64_t>{1, 2, 2, 2, 2}));
    two.targets = {1, 1};
    CHECK((two.align(machine).paths == std::vector<int64_t>{1, 0, 1, 1, 1}));
  }
}

TEST(what_is_wrong_stays_in_its_sample) {
  std::mt19937 random(10);
  Batch<float> batch(6, 40, 6, 5, random);
  const Aligned right = batch.align(Machine::kCpu);
  batch.x[(1 * 40 + 39) * 6 + 0] = NAN;                             // the blank's
  batch.x[(2 * 40 + 3) * 6 + batch.targets[2 * 5 + 4]] = INFINITY;  // far from where that label can be
  batch.input_lengths[3] = 4;
  batch.targets[4 * 5 + 2] = 6;
  batch.input_lengths[5] = 41;
  const std::vector<int32_t> expected = {kOk, kNotANumber, kNotANumber, kInfeasible, kInvalid, kInvalid};
  for (const Machine machine : {Machine::kCpu, Machine::kCuda}) {
    const Aligned got = batch.align(machine);
    CHECK(got.status == expected);
    for (int i = 0; i < 6 * 40; ++i) {
      const int32_t status = expected[i / 40];
      CHECK(got.paths[i] == (status == kOk ? right.paths[i] : 0));
      if (status == kOk) CHECK(got.scores[i] == right.scores[i]);
      if (status == kInfeasible) CHECK(got.scores[i] == kMinusInfinity);
      if (status == kNotANumber || status == kInvalid) CHECK(std::isnan(got.scores[i]));
    }
  }
}

TEST_MAIN()

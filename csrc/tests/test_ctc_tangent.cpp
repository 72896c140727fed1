// Derivatives of the CTC occupancies: the CPU kernel and the emulated CUDA kernel against finite differences of brute
// force, and against each other where that cannot go. All buffers have exactly the size the kernels were promised.
#include "../kernels/ctc_tangent.h"

#include <random>

#include "../math/lattice.h"
#include "brute_force.h"
#include "check.h"

using namespace fastctc;
using namespace fastctc::testing;

namespace {

enum Machine { kCpu, kEmulated };

// A batch, its direction, and the result.
struct Batch {
  int T, N, C, S, blank = 0, star = -1;
  double delay_penalty = 0;
  bool from_logits = false, concatenated = false;
  std::vector<double> x, direction;  // (T, N, C)
  std::vector<int64_t> targets, input_lengths, target_lengths;
  std::vector<double> result;  // (N, T, min(S, T))

  Batch(int T, int N, int C, int S, unsigned seed, double spread = 1) : T(T), N(N), C(C), S(S) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (int i = 0; i < T * N * C; ++i) x.push_back(spread * normal(random));
    for (int i = 0; i < T * N * C; ++i) direction.push_back(normal(random));
    for (int i = 0; i < N * S; ++i) targets.push_back(1 + int64_t(random() % unsigned(C - 1)));
    input_lengths.assign(size_t(N), T);
    target_lengths.assign(size_t(N), S);
  }

  // All targets have the full length where they are concatenated.
  void run(Machine machine) {
    const int kept = S < T ? S : T;
    std::vector<int64_t> offsets;
    std::vector<int32_t> status(size_t(N), 7);
    for (int n = 0; n < N; ++n) offsets.push_back(int64_t(n) * S);
    result.assign(size_t(N) * T * kept, 7);
    CtcTangentParams p{};
    p.loss.input = x.data();
    p.loss.dtype = DType::kFloat64;
    p.loss.frames = T, p.loss.batch = N, p.loss.classes = C;
    p.loss.stride_t = p.tangent_stride_t = int64_t(N) * C;
    p.loss.stride_n = p.tangent_stride_n = C;
    p.loss.stride_c = p.tangent_stride_c = 1;
    p.loss.targets = targets.data();
    p.loss.target_offsets = machine == kCpu ? offsets.data() : nullptr;
    p.loss.target_count = int64_t(targets.size());
    p.loss.target_columns = concatenated ? -1 : S;
    p.loss.input_lengths = input_lengths.data();
    p.loss.target_lengths = target_lengths.data();
    p.loss.max_length = kept;
    p.loss.blank = blank;
    p.loss.star = star;
    p.loss.delay_penalty = delay_penalty;
    p.loss.from_logits = from_logits;
    p.loss.status = status.data();
    p.tangent = direction.data();
    p.occupancy_tangent = result.data();
    const size_t size = machine == kCpu ? cpu::ctc_tangent_workspace(p) : cuda::ctc_tangent_workspace(p);
    std::vector<char> memory(size + 64);
    void* const workspace = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    if (machine == kCpu) {
      cpu::ctc_tangent(p, 0, N, workspace);
    } else {
      CHECK(cuda::ctc_tangent(p, workspace, nullptr) == 0);
    }
  }

  double at(int n, int t, int i) const { return result[(size_t(n) * T + t) * (S < T ? S : T) + i]; }

  // gamma of sample n, of log-probabilities that have moved by e * direction
  std::vector<double> moved(int n, double e) const {
    std::vector<double> log_probs;
    for (int t = 0; t < input_lengths[n]; ++t) {
      for (int c = 0; c < C; ++c) {
        const size_t k = (size_t(t) * N + n) * C + c;
        log_probs.push_back(x[k] + e * direction[k]);
      }
    }
    const Labeling target(targets.begin() + n * S, targets.begin() + n * S + target_lengths[n]);
    return StatePaths(log_probs, int(input_lengths[n]), C, target, blank).result().gamma;
  }

  void check_against_differences() const {
    constexpr double e = 1e-4;
    for (int n = 0; n < N; ++n) {
      const std::vector<double> up = moved(n, e), down = moved(n, -e);
      for (int t = 0; t < input_lengths[n]; ++t) {
        std::vector<double> by_class(size_t(C), 0);
        for (int i = 0; i < target_lengths[n] && i < T; ++i) by_class[targets[n * S + i]] += at(n, t, i);
        for (int c = 1; c < C; ++c) CHECK_NEAR(by_class[c], (up[t * C + c] - down[t * C + c]) / (2 * e), 1e-6);
      }
    }
  }
};

void machines_agree(Batch batch) {
  batch.run(kCpu);
  const std::vector<double> expected = batch.result;
  batch.run(kEmulated);
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK_NEAR(batch.result[i], expected[i], 1e-10);
    largest = std::fabs(expected[i]) > largest ? std::fabs(expected[i]) : largest;
  }
  CHECK(largest > 1e-3);
}

}  // namespace

TEST(small_batches_equal_finite_differences) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    Batch batch(1 + int(random() % 5), 1 + int(random() % 3), 2 + int(random() % 3), int(random() % 4), seed);
    batch.from_logits = seed % 2;
    for (int n = 0; n < batch.N; ++n) {
      batch.input_lengths[n] = int64_t(random() % unsigned(batch.T + 1));
      batch.target_lengths[n] = int64_t(random() % unsigned(batch.S + 1));
    }
    for (const Machine machine : {kCpu, kEmulated}) {
      batch.run(machine);
      batch.check_against_differences();
    }
  }
}

// Around the sizes of a warp and of a block of slots, in one segment and in several.
TEST(machines_agree_at_block_edges) {
  for (int S : {31, 32, 63, 64}) machines_agree(Batch(2 * S + 3, 1, 5, S, 1, 2));
}
TEST(machines_agree_on_concatenated_targets) {
  Batch batch(30, 3, 4, 5, 2);
  batch.concatenated = true;
  machines_agree(batch);
}
TEST(machines_agree_with_options) {
  for (const bool from_logits : {false, true}) {
    Batch batch(20, 2, 4, 6, 3);
    batch.star = 2;
    batch.delay_penalty = 0.2;
    batch.from_logits = from_logits;
    for (int c = 0; c < 4; ++c) batch.x[size_t(5) * 2 * 4 + c] = c ? batch.x[c] : -INFINITY;
    machines_agree(batch);
  }
}

TEST(a_bad_sample_leaves_the_others_alone) {
  for (const Machine machine : {kCpu, kEmulated}) {
    Batch batch(6, 6, 4, 3, 4);
    batch.from_logits = true;
    batch.targets[1 * 3 + 1] = 4;                 // not a class
    batch.targets[2 * 3 + 2] = -1;                // not a class
    batch.input_lengths[3] = 7;                   // more frames than there are
    batch.input_lengths[4] = 2;                   // too few
    batch.x[(2 * 6 + 5) * 4 + 3] = std::nan("");  // frame 2 of sample 5
    batch.run(machine);
    for (int n = 0; n < 6; ++n) {
      for (int t = 0; t < 6; ++t) {
        for (int i = 0; i < 3; ++i) {
          const double value = batch.at(n, t, i);
          CHECK(n == 5 ? std::isnan(value) : n == 0 ? std::isfinite(value) : value == 0);
        }
      }
    }
  }
}

TEST_MAIN()

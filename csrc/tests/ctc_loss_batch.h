// A batch for tests of the CTC loss: what forward and backward of either machine make of it, and what brute force does.
// Each buffer has exactly the promised size, so that AddressSanitizer reports one step too far.
#pragma once

#include <algorithm>
#include <random>
#include <thread>

#include "../kernels/ctc_loss.h"
#include "../math/lattice.h"
#include "brute_force.h"
#include "check.h"

namespace fastctc::testing {

struct Machine {
  const char* name;
  bool cuda;
};
constexpr Machine kMachines[] = {{"cpu", false}, {"emulated", true}};

// A batch and what forward and backward make of it. Targets are padded, or concatenated without gaps.
template <class Scalar>
struct Batch {
  int T, N, C, S, blank;
  bool from_logits = false, concatenated = false;
  int64_t star = -1;
  double delay_penalty = 0;
  std::vector<Scalar> x;           // (T, N, C)
  std::vector<Scalar> class_bias;  // (C), or empty
  std::vector<int64_t> targets;    // (N, S)
  std::vector<int64_t> packed, offsets, input_lengths, target_lengths;
  std::vector<Scalar> loss, grad, occupancy, row_statistics;
  std::vector<int32_t> status;

  Batch(int T, int N, int C, int S, int blank) : T(T), N(N), C(C), S(S), blank(blank) {
    x.resize(size_t(T) * N * C);
    targets.assign(size_t(N) * S, blank);
    for (int n = 0; n < N; ++n) offsets.push_back(int64_t(n) * S);
    input_lengths.assign(N, T);
    target_lengths.assign(N, S);
  }

  void randomize(std::mt19937& random, double spread) {
    std::normal_distribution<double> normal(0, spread);
    for (Scalar& v : x) v = Scalar(normal(random));
    for (int64_t& label : targets) {
      label = random() % (C - 1);
      label += label >= blank;
    }
  }

  // The frames of sample n, (frames, C + 1) in double: log-probabilities with their bias, and the star's.
  std::vector<double> log_probs(int n) const {
    std::vector<double> out;
    for (int t = 0; t < input_lengths[n]; ++t) {
      const Scalar* row = &x[(size_t(t) * N + n) * C];
      double total = kMinusInfinity;
      for (int c = 0; c < C; ++c) total = from_logits ? log_add(total, row[c]) : 0;
      for (int c = 0; c < C; ++c) out.push_back(row[c] - total + (class_bias.empty() ? 0 : class_bias[c]));
      out.push_back(star < 0 ? kMinusInfinity : 0);
    }
    return out;
  }
  Labeling target(int n) const {
    Labeling out(targets.begin() + n * S, targets.begin() + n * S + target_lengths[n]);
    for (int& label : out) label = label == star ? C : label;
    return out;
  }

  CtcLossParams params(bool need_grad = true) {
    const int kept = S < T ? S : T;
    if (concatenated) {
      packed.clear();
      for (int n = 0; n < N; ++n) {
        offsets[n] = int64_t(packed.size());
        packed.insert(packed.end(), targets.begin() + n * S, targets.begin() + n * S + target_lengths[n]);
      }
    }
    const std::vector<int64_t>& labels = concatenated ? packed : targets;
    CtcLossParams p{};
    p.input = x.data();
    p.dtype = sizeof(Scalar) == 8 ? DType::kFloat64 : DType::kFloat32;
    p.frames = T, p.batch = N, p.classes = C;
    p.stride_t = p.grad_stride_t = int64_t(N) * C;
    p.stride_n = p.grad_stride_n = C;
    p.stride_c = p.grad_stride_c = 1;
    p.targets = labels.data();
    p.target_count = int64_t(labels.size());
    p.target_columns = concatenated ? -1 : S;
    p.input_lengths = input_lengths.data();
    p.target_lengths = target_lengths.data();
    p.max_length = kept;
    p.blank = blank;
    p.from_logits = from_logits;
    p.need_grad = need_grad;
    p.class_bias = class_bias.empty() ? nullptr : class_bias.data();
    p.star = star;
    p.delay_penalty = delay_penalty;
    loss.assign(N, 7);
    grad.assign(x.size(), 7);
    occupancy.assign(size_t(N) * T * kept, 7);
    row_statistics.assign(size_t(N) * T * (from_logits ? 3 : 1), 7);
    status.assign(N, 7);
    p.loss = loss.data();
    p.occupancy = occupancy.data();
    p.row_statistics = row_statistics.data();
    p.status = status.data();
    p.grad = grad.data();
    return p;
  }

  void run(const Machine& machine, bool need_grad = true) {
    CtcLossParams p = params(need_grad);
    const std::vector<Scalar> ones(N, 1);
    p.grad_loss = ones.data();
    if (machine.cuda) {
      std::vector<char> forward(cuda::ctc_loss_forward_workspace(p) + 64);
      CHECK(cuda::ctc_loss_forward(p, align(forward), nullptr) == 0);
      if (!need_grad) return;
      std::vector<char> backward(cuda::ctc_loss_backward_workspace(p) + 64);
      CHECK(cuda::ctc_loss_backward(p, align(backward), nullptr) == 0);
      return;
    }
    p.target_offsets = offsets.data();
    const int64_t chunks = N * ((T + cpu::kFramesPerChunk - 1) / cpu::kFramesPerChunk);
    std::vector<char> scores(cpu::ctc_loss_scores_workspace(p) + 64);
    std::vector<char> forward(cpu::ctc_loss_forward_workspace(p, false) + 64);
    std::vector<char> wide(cpu::ctc_loss_forward_workspace(p, true) + 64);
    cpu::ctc_loss_scores(p, 0, chunks, align(scores));
    for (int n = 0; n < N; ++n) forward_of(p, n, false, align(forward));
    for (int n = 0; n < N; ++n) {
      if (status[n] != kTooWide) continue;
      cpu::ctc_loss_scores(p, n * chunks / N, (n + 1) * chunks / N, align(scores));
      forward_of(p, n, true, align(wide));
    }
    if (!need_grad) return;
    std::vector<char> backward(cpu::ctc_loss_backward_workspace(p) + 64);
    cpu::ctc_loss_backward(p, 0, cpu::ctc_loss_backward_chunks(p), align(backward));
  }
  // Two threads share a long sample, so that ThreadSanitizer reports what one writes and the other reads.
  static void forward_of(const CtcLossParams& p, int64_t n, bool wide, void* workspace) {
    constexpr int64_t kLong = 256;
    if (p.frames <= kLong) return cpu::ctc_loss_forward(p, &n, 1, 0, cpu::kForwardParts, wide, workspace);
    for (int first = 0; first < cpu::kForwardParts; first += 2) {
      std::thread other([&] { cpu::ctc_loss_forward(p, &n, 1, first, first + 1, wide, workspace); });
      cpu::ctc_loss_forward(p, &n, 1, first + 1, first + 2, wide, workspace);
      other.join();
    }
  }
  static void* align(std::vector<char>& memory) {
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  }

  void check_against_brute_force(double tolerance) {
    const int K = C + 1;
    for (int n = 0; n < N; ++n) {
      const int frames = int(input_lengths[n]);
      const std::vector<double> lp = log_probs(n);
      const Labeling labels = target(n);
      const bool has_blanks = std::count(labels.begin(), labels.end(), blank) > 0;
      const Posteriors expected = has_blanks ? StatePaths(lp, frames, K, labels, blank, delay_penalty).result()
                                             : posteriors(lp, frames, K, labels, blank, delay_penalty);
      const bool feasible = expected.log_prob > kMinusInfinity;
      CHECK_NEAR(loss[n], -expected.log_prob, feasible ? tolerance * (1 + std::fabs(expected.log_prob)) : 0);
      CHECK((status[n] == kOk) == feasible);
      for (int t = 0; t < T; ++t) {
        for (int c = 0; c < C; ++c) {
          double g = 0;
          if (t < frames && feasible) {
            const double bias = class_bias.empty() ? 0 : class_bias[c];
            g = (from_logits ? std::exp(lp[t * K + c] - bias) * (1 - expected.gamma[t * K + C]) : 0) -
                expected.gamma[t * K + c];
          }
          CHECK_NEAR(grad[(size_t(t) * N + n) * C + c], g, tolerance);
        }
      }
    }
  }
};

inline Batch<double> in_double(const Batch<float>& batch) {
  Batch<double> out(batch.T, batch.N, batch.C, batch.S, batch.blank);
  out.from_logits = batch.from_logits;
  out.star = batch.star;
  out.delay_penalty = batch.delay_penalty;
  out.x.assign(batch.x.begin(), batch.x.end());
  out.class_bias.assign(batch.class_bias.begin(), batch.class_bias.end());
  out.targets = batch.targets;
  out.input_lengths = batch.input_lengths;
  out.target_lengths = batch.target_lengths;
  return out;
}

// What the emulated kernels make of a batch, against the same inputs in double on the CPU.
inline void emulated_is_exact(Batch<float>& batch, double tolerance) {
  Batch<double> exact = in_double(batch);
  exact.run(kMachines[0]);
  batch.run(kMachines[1]);
  for (int n = 0; n < batch.N; ++n) {
    CHECK(batch.status[n] == exact.status[n]);
    CHECK_NEAR(batch.loss[n], exact.loss[n], 2e-7 * std::fabs(exact.loss[n]) + 1e-6);
  }
  for (size_t i = 0; i < batch.grad.size(); ++i) CHECK_NEAR(batch.grad[i], exact.grad[i], tolerance);
  const std::vector<float> loss = batch.loss;
  batch.run(kMachines[1], false);
  for (int n = 0; n < batch.N; ++n) CHECK_NEAR(batch.loss[n], loss[n], 0);
}

}  // namespace fastctc::testing

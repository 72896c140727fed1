// One sample of ctc_tangent.h: its frames, then emissions and recursions on dual numbers, then the result; for a warp
// of lanes `W` of double on either machine (math/scaled_float.h).
//
//            frames 0..63   64..127  ...        each segment starts from a snapshot: the forward states that enter it
//   forward  [snapshot >>>>][snapshot >>>>]     emissions and forward states are kept for one segment at a time, so the
//   backward [<<<< >>>>    ][<<<<         ]     backward pass computes them again for all segments but the last
#pragma once

#include <cmath>

#include "../math/delay.h"
#include "../math/dual.h"
#include "../math/emission.h"
#include "../math/recursion.h"
#include "ctc_tangent.h"
#include "workspace.h"

namespace fastctc {

// The scores of sample n, and how they move.
struct TangentScores {
  const CtcLossParams& p;
  const CtcTangentParams& tangent;
  int64_t n;
  DType scalar;

  FASTCTC_HD TangentScores(const CtcTangentParams& params, int64_t n)
      : p(params.loss), tangent(params), n(n), scalar(p.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32) {}

  FASTCTC_HD double input(int64_t t, int64_t c) const {
    return element_at(p.input, p.dtype, t * p.stride_t + n * p.stride_n + c * p.stride_c);
  }
  FASTCTC_HD double biased(int64_t t, int64_t c) const {
    return input(t, c) + (p.class_bias ? element_at(p.class_bias, scalar, c) : 0);
  }
  FASTCTC_HD double moves(int64_t t, int64_t c) const {
    return element_at(tangent.tangent, scalar,
                      t * tangent.tangent_stride_t + n * tangent.tangent_stride_n + c * tangent.tangent_stride_c);
  }
};

template <class W>
struct TangentWorkspace {
  using X = Dual<W>;
  using Memory = typename X::Memory;
  // filled in by look_at_frame, before the recursions
  double* origin;          // (T) the score that the emissions of a frame are relative to: the blank's, 0 where that is
                           // a probability of 0
  double* star;            // (T) the score of a star
  uint8_t* blank_is_zero;  // (T)
  // the result
  double* occupancy_tangent;  // (T, S)
  // the recursions' own
  int64_t slots;
  uint8_t* skip;      // (P)
  Memory tilt;        // (P)
  Memory labels;      // rows of P, of one segment
  Memory kept;        // rows of P, of one segment
  Memory carries;     // (blocks + 1, kTile)
  Memory b[2], e[2];  // forward and backward states
  Memory snapshots;   // (segments, 2 * (P + N))
  Memory number;      // one number
  size_t size;

  FASTCTC_HD TangentWorkspace(void* base, int64_t frames, int64_t length) {
    constexpr int64_t N = W::N;
    Workspace w(base);
    slots = (length + N) / N * N;
    origin = w.take<double>(frames);
    star = w.take<double>(frames);
    blank_is_zero = w.take<uint8_t>(frames);
    occupancy_tangent = w.take<double>(frames * length);
    skip = w.take<uint8_t>(slots);
    tilt = w.take_numbers<Memory>(slots + N);
    const int64_t rows = frames < kSegment ? frames : kSegment;
    labels = w.take_numbers<Memory>(rows * slots, N);
    kept = w.take_numbers<Memory>(rows * slots, N);
    carries = w.take_numbers<Memory>((slots / N + 2) * kTile);
    for (int d = 0; d < 2; ++d) {
      b[d] = w.take_numbers<Memory>(slots);
      e[d] = w.take_numbers<Memory>(slots + 1, N);
    }
    snapshots = w.take_numbers<Memory>((frames + kSegment - 1) / kSegment * 2 * (slots + N));
    number = w.take_numbers<Memory>(N);
    size = w.size();
  }
};

// Fills in frame t, in which a star has the score `star`. Returns false if this lane has found a NaN or +inf that
// matters to the loss.
template <class W>
FASTCTC_HD bool look_at_frame(const TangentScores& scores, const int64_t* labels, int64_t t, double star,
                              const TangentWorkspace<W>& w) {
  const CtcLossParams& p = scores.p;
  const double blank = scores.biased(t, p.blank);
  const bool blank_is_zero = blank < double(kZeroLog);
  bool finite = (blank_is_zero || std::fabs(blank) < INFINITY) && std::fabs(star) < INFINITY;
  W::for_each(p.target_lengths[scores.n],
              [&](int64_t i) { finite &= labels[i] == p.star || scores.biased(t, labels[i]) < INFINITY; });
  W::for_each(1, [&](int64_t) {
    w.origin[t] = blank_is_zero ? 0 : blank;
    w.star[t] = star;
    w.blank_is_zero[t] = blank_is_zero;
  });
  return finite;
}

// Writes the result of sample n.
template <class W, class Scalar>
FASTCTC_HD void write_occupancy_tangent(const CtcTangentParams& params, int64_t n, int32_t status,
                                        const double* occupancy_tangent) {
  const CtcLossParams& p = params.loss;
  const int64_t frames = p.input_lengths[n], length = p.target_lengths[n];
  Scalar* const out = static_cast<Scalar*>(params.occupancy_tangent) + n * p.frames * p.max_length;
  for (int64_t t = 0; t < p.frames; ++t) {
    W::for_each(p.max_length, [&](int64_t i) {
      double value = 0;
      if (t < frames && i < length) {
        if (status == kOk) value = occupancy_tangent[t * length + i];
        if (status == kNotANumber) value = NAN;
      }
      out[t * p.max_length + i] = Scalar(value);
    });
  }
}

template <class W, int kMaxRegisters>
class TangentSample {
  using X = Dual<W>;
  using Memory = typename X::Memory;

 public:
  FASTCTC_HD TangentSample(const CtcTangentParams& p, int64_t n, const int64_t* labels, const TangentWorkspace<W>& w)
      : p_(p.loss), scores_(p, n), labels_(labels), w_(w), forward_{w.b[0], w.e[0]}, backward_{w.b[1], w.e[1]} {
    q_.frames = p_.input_lengths[n];
    q_.length = p_.target_lengths[n];
    q_.slots = (q_.length + W::N) / W::N * W::N;
    q_.skip = w.skip;
    q_.blank_is_zero = w.blank_is_zero;
    q_.tilt = p_.delay_penalty != 0 ? w.tilt : Memory{};
    q_.labels = w.labels;
    q_.kept = w.kept;
    q_.occupancy = w.occupancy_tangent;
    q_.occupancy_stride = q_.length;
    q_.carries = w.carries;
  }

  // Fills w.occupancy_tangent; returns false if there is no path.
  FASTCTC_HD bool run() {
    prepare();
    const int64_t segments = (q_.frames + kSegment - 1) / kSegment;
    start_at(forward_, 0, {W::set(1), W::set(0)});
    for (int64_t s = 0; s < segments; ++s) {
      copy(forward_, snapshot(s));
      run_forward(s);
    }
    const double log2_p = log2_probability(q_, forward_), n = std::floor(log2_p);
    if (!(log2_p > -INFINITY)) return false;
    start_at(backward_, q_.length, {W::set(std::exp2(n - log2_p)), W::set(-n)});  // 1 / P
    rescale_to_one(forward_);                                                     // as a dual number
    for (int64_t s = segments - 1; s >= 0 && q_.length > 0; --s) {
      if (s < segments - 1) {
        rescale_to_one(snapshot(s + 1));  // so that rounding does not add up
        copy(snapshot(s), forward_);
        run_forward(s);
      }
      fastctc::run<Direction::kBackward, Keep::kOccupancy, X, kMaxRegisters>(q_, backward_, begin(s), end(s));
    }
    return true;
  }

 private:
  FASTCTC_HD int64_t begin(int64_t segment) const { return segment * kSegment; }
  FASTCTC_HD int64_t end(int64_t segment) const {
    return begin(segment) + kSegment < q_.frames ? begin(segment) + kSegment : q_.frames;
  }
  FASTCTC_HD States<X> snapshot(int64_t segment) const {
    const Memory p = w_.snapshots + segment * 2 * (w_.slots + W::N);
    return {p, p + (w_.slots + W::N)};
  }

  FASTCTC_HD void prepare() {
    W::for_each(q_.slots, [&](int64_t i) { w_.skip[i] = may_skip(labels_, i, q_.length); });
    X::fill_zero(q_.labels + -1, 1);
    X::fill_zero(q_.kept + -1, 1);
    if (q_.tilt) fill_tilts<X>(q_.tilt, q_.slots + W::N, p_.delay_penalty);
    W::sync();
  }

  FASTCTC_HD void run_forward(int64_t segment) {
    const int64_t t0 = begin(segment), t1 = end(segment);
    q_.first = t0;
    for (int64_t t = t0; t < t1; ++t) emit(t, q_.labels + (t - t0) * q_.slots);
    W::sync();
    fastctc::run<Direction::kForward, Keep::kStates, X, kMaxRegisters>(q_, forward_, t0, t1);
  }

  // The emissions of frame t, and their derivatives, relative to the blank's.
  FASTCTC_HD void emit(int64_t t, Memory row) const {
    const Split<W> origin = split<W>(W::set(w_.origin[t]));
    const double blank_moves = scores_.moves(t, p_.blank);
    for (int64_t i = 0; i < q_.slots; i += W::N) {
      const auto score = W::make([&](int lane) {
        if (i + lane >= q_.length) return -double(INFINITY);
        const int64_t label = labels_[i + lane];
        return label == p_.star ? w_.star[t] : scores_.biased(t, label);
      });
      const auto moves = W::make([&](int lane) {
        const int64_t label = i + lane < q_.length ? labels_[i + lane] : p_.blank;
        return (label == p_.star ? 0 : scores_.moves(t, label)) - blank_moves;
      });
      X y = X::with_log_derivative(emission<W>(score, origin), moves);
      if (q_.tilt) y = y * X::template load<1>(q_.tilt + (i + 1), 0);
      y.template store<1>(row + i, 0);
    }
  }

  // All states zero but blank j.
  FASTCTC_HD void start_at(const States<X>& states, int64_t j, Scaled<W> value) const {
    X::constant(value).template store<1>(w_.number, 0);
    start(states, q_.slots, j, w_.number);
  }
  FASTCTC_HD void copy(const States<X>& from, const States<X>& to) const {
    X::copy(from.b, to.b, q_.slots);
    X::copy(from.e + -1, to.e + -1, q_.slots + 2);
    W::sync();
  }
  // All paths together have probability 1, and that never moves, also where `before` enters the frames to come.
  FASTCTC_HD void rescale_to_one(const States<X>& before) const {
    const X total = crossing(q_, before, backward_);
    W::sync();
    rescale(q_, backward_, reciprocal(total));
  }

  const CtcLossParams& p_;
  const TangentScores scores_;
  const int64_t* const labels_;
  const TangentWorkspace<W>& w_;
  const States<X> forward_, backward_;
  Sequence<X> q_;
};

}  // namespace fastctc

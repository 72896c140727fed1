// The second phase of the CTC loss on the CPU, sample by sample: emissions and recursions, segment by segment.
//
// Two threads can do a sample together. Each has one half of the frames, and the results do not depend on the threads:
//
//              first half                 second half
//   sweep      [forward >>>>>>>>>>>>>>]   [<<<<<<<<<<<<<< backward]   at the middle the sum over paths is found
//   conclude   [<<<<<<<<<<<<< backward]   [forward >>>>>>>>>>>>>>>]   with the states of the first direction, which
//                                                                     are kept, or computed again from snapshots
#include <new>

#include "../../math/delay.h"
#include "../loss_bound.h"
#include "emissions.h"
#include "targets.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

// The forward phase of one sample, or of one half of its frames.
template <class Stored, class Scalar>
class ForwardSample {
  using L = Lanes<Scalar>;
  using X = Scaled<L>;

 public:
  ForwardSample(const CtcLossParams& p, int64_t n, int64_t begin, int64_t end, void* workspace)
      : p_(p),
        n_(n),
        labels_(p.targets + p.target_offsets[n]),
        frames_(p.input_lengths[n]),
        length_(p.target_lengths[n]),
        begin_(begin),
        end_(end),
        rows_(static_cast<Stored*>(p.occupancy) + n * p.frames * p.max_length),
        frame_(p, n),
        w_(workspace, p, frames_, end - begin, length_, p.need_grad && !kInPlace),
        q_(w_.sequence),
        emissions_(p, n, length_, rows_, w_),
        segments_((end - begin + w_.segment - 1) / w_.segment) {
    q_.first = begin;
    if constexpr (kInPlace) {
      q_.occupancy = rows_;
      q_.occupancy_stride = p.max_length;
    } else {
      q_.occupancy = w_.occupancy - begin * length_;
      q_.occupancy_stride = length_;
    }
    for (int64_t i = 0; i < q_.slots; ++i) {
      w_.skip[i] = may_skip(labels_, i, length_);
      const bool star = i < length_ && labels_[i] == p.star;
      w_.labels[i] = i < length_ && !star ? int32_t(labels_[i]) : 0;
      if (w_.bias) w_.bias[i] = star ? Scalar(0) : Scalar(static_cast<const Stored*>(p.class_bias)[w_.labels[i]]);
    }
    if (!is_first()) q_.kept = q_.kept + 1;  // backward, labels are stored one place further left
    X::fill_zero(q_.labels + -1, 1);
    X::fill_zero(q_.kept + -1, 1);
    if (q_.tilt) set_tilt();
    set_origins();
  }

  // A short sequence: both directions at once, which meet in the middle, and go on over what the other has kept.
  // Returns what became of the sample.
  Status meet() {
    if (!offset_is_finite()) return kNotANumber;
    emissions_.write(0, frames_, nullptr);
    if (const Status problem = problem_of_emissions()) return problem;
    const int64_t middle = frames_ / 2;
    Scalar one = 1, zero = 0;
    start(w_.swept, q_.slots, 0, {&one, &zero});
    start(w_.across, q_.slots, length_, {&one, &zero});
    if (p_.need_grad) {
      run_both<Keep::kStates>(0, middle, middle, frames_);
    } else {
      run_both<Keep::kNothing>(0, middle, middle, frames_);
    }
    X factor;
    if (!find_sum(w_.swept, w_.across, factor)) return kInfeasible;
    if (!p_.need_grad || length_ == 0) return kOk;
    rescale(q_, w_.swept, factor);
    rescale(q_, w_.across, factor);
    run_both<Keep::kOccupancy>(middle, frames_, 0, middle);
    store_occupancy();
    return kOk;
  }

  // The first half goes forward to the middle, the second one goes backward.
  void sweep() {
    if (offset_is_finite()) {
      if (is_first()) sweep_in<Direction::kForward>();
      if (!is_first()) sweep_in<Direction::kBackward>();
      problem_ = problem_of_emissions();
    } else {
      problem_ = kNotANumber;
    }
  }

  // Then each goes on from where the other is. Returns what became of the sample.
  Status conclude(const ForwardSample& other) {
    if (problem_ || other.problem_) return problem_ == kOk || other.problem_ == kNotANumber ? other.problem_ : problem_;
    sum_of_offsets_ = offset_ + other.offset_;
    X factor;
    const States<X>&mine = w_.swept, &others = other.w_.swept;
    if (!find_sum(is_first() ? mine : others, is_first() ? others : mine, factor)) return kInfeasible;
    if (!p_.need_grad || length_ == 0) return kOk;
    concludes_ = true;
    copy(others, w_.across, q_.slots);
    rescale(q_, w_.across, factor);
    if (is_first()) occupancies<Direction::kBackward, Direction::kForward>();
    if (!is_first()) occupancies<Direction::kForward, Direction::kBackward>();
    store_occupancy();
    return kOk;
  }

  double loss() const {
    const double loss = 0 - (kLn2 * log2_p_ + sum_of_offsets_);
    return loss < 0 && is_bounded() ? 0 : loss;
  }

 private:
  static constexpr bool kInPlace = sizeof(Stored) == sizeof(Scalar);

  // Is P at most 1? See loss_bound.h.
  bool is_bounded() const {
    if (q_.tilt) return false;
    for (int64_t i = 0; i < length_; ++i) {
      if (!label_is_bounded(p_, labels_, i, w_.counts)) return false;
    }
    for (int64_t t = 0; t < frames_ && !frames_are_bounded(p_); ++t) {
      if (!frame_is_bounded<Stored>(p_, n_, t, labels_, w_.counts)) return false;
    }
    return true;
  }

  bool is_first() const { return begin_ == 0; }
  bool offset_is_finite() const { return std::fabs(offset_) < double(INFINITY); }

  Status problem_of_emissions() const {
    if (L::any(L::invert(emissions_.found.finite))) return kNotANumber;
    const double exponents = double(L::reduce_max(emissions_.found.range)[0]) * double(frames_);
    return sizeof(Scalar) == 4 && exponents > kLargestExponent ? kTooWide : kOk;
  }

  // The sum over all paths that cross the middle; `factor` becomes its reciprocal. Returns false if there is none.
  bool find_sum(const States<X>& before, const States<X>& after, X& factor) {
    const X total = crossing(q_, before, after);
    if (!(total.m[0] > 0)) return false;
    log2_p_ = std::log2(double(total.m[0])) + double(total.e[0]);
    factor = {L::set(1) / total.m, -total.e};
    return true;
  }
  template <Keep keep>
  void run_both(int64_t f0, int64_t f1, int64_t b0, int64_t b1) {
    if (q_.slots == L::N) {
      fastctc::run_both<keep, X, 1>(q_, w_.swept, f0, f1, w_.across, b0, b1);
    } else {
      fastctc::run_both<keep, X, kMaxMeetingRegisters>(q_, w_.swept, f0, f1, w_.across, b0, b1);
    }
  }

  void set_tilt() {
    fill_tilts<X>(q_.tilt, q_.slots + L::N, p_.delay_penalty);
    emissions_.found.range = L::set(Scalar(largest_tilt(p_.delay_penalty, length_)));
    if (is_first()) offset_ = -tilt_of_all_paths(p_.delay_penalty, length_, frames_);
  }

  // The emissions of a frame are relative to its blank's, or where that is zero, to the row's largest. (On CUDA they
  // are relative to 1 then: there the maximum is another load in every frame.)
  void set_origins() {
    const Stored bias = p_.class_bias ? static_cast<const Stored*>(p_.class_bias)[p_.blank] : Stored(0);
    typename L::Wide origins{}, log2_sums{};
    for (int64_t t = begin_; t < end_; t += L::N) {
      const auto blank = load_as<Scalar>(frame_.blank + t, end_ - t) + Scalar(bias);
      const auto max = p_.from_logits ? load_as<Scalar>(frame_.max + t, end_ - t) : L::set(0);
      const auto zero = L::less(blank, L::set(Scalar(kZeroLog)));
      const auto origin = L::select(zero, max, blank);
      if (L::any(zero)) {
        if (!q_.blank_is_zero) {
          clear(w_.blank_is_zero, frames_);
          q_.blank_is_zero = w_.blank_is_zero;
        }
        for (int64_t i = t; i < end_ && i < t + L::N; ++i) w_.blank_is_zero[i] = blank[i - t] < Scalar(kZeroLog);
      }
      const Split<L> y = split<L>(origin);
      L::store(w_.origins.m + t, y.n);
      L::store(w_.origins.e + t, y.r);
      const auto used = L::first(end_ - t);
      origins += L::widen(L::select(used, origin, L::set(0))) - L::widen(max);
      if (p_.from_logits) log2_sums += L::widen(load_as<Scalar>(frame_.log2_sum + t, end_ - t));
    }
    for (int i = 0; i < L::N; ++i) offset_ += origins[i] - kLn2 * log2_sums[i];
    sum_of_offsets_ = offset_;
  }

  // Makes segment s the current one, with its emissions.
  void enter(int64_t s) {
    t0_ = begin_ + s * w_.segment;
    t1_ = t0_ + w_.segment < end_ ? t0_ + w_.segment : end_;
    if (w_.whole) return;
    q_.first = t0_;
    emissions_.write(t0_, t1_, concludes_ ? rows_ : nullptr);
  }
  // The k-th segment on the way in direction D.
  template <Direction D>
  int64_t segment(int64_t k) const {
    return D == Direction::kForward ? k : segments_ - 1 - k;
  }

  template <Direction D>
  void sweep_in() {
    if (w_.whole) emissions_.write(begin_, end_, nullptr);
    Scalar one = 1, zero = 0;
    start(w_.swept, q_.slots, D == Direction::kForward ? 0 : length_, {&one, &zero});
    for (int64_t k = 0; k < segments_; ++k) {
      const int64_t s = segment<D>(k);
      enter(s);
      if (p_.need_grad) copy(w_.swept, w_.snapshot(s), q_.slots);
      if (w_.whole && p_.need_grad) {
        fastctc::run<D, Keep::kStates, X, kMaxRegisters>(q_, w_.swept, t0_, t1_);
      } else {
        fastctc::run<D, Keep::kNothing, X, kMaxRegisters>(q_, w_.swept, t0_, t1_);
      }
    }
  }

  // In direction D, over the states of the other one.
  template <Direction D, Direction kOther>
  void occupancies() {
    for (int64_t k = 0; k < segments_; ++k) {
      const int64_t s = segment<D>(k);
      const States<X> snapshot = w_.snapshot(s);
      enter(s);
      if (!w_.whole) {
        copy(snapshot, w_.again, q_.slots);
        fastctc::run<kOther, Keep::kStates, X, kMaxRegisters>(q_, w_.again, t0_, t1_);
      }
      fastctc::run<D, Keep::kOccupancy, X, kMaxRegisters>(q_, w_.across, t0_, t1_);
      if (k == segments_ - 1) break;
      // All paths together have probability 1: rounding does not add up from segment to segment.
      const bool forward = D == Direction::kForward;
      const X total = crossing(q_, forward ? w_.across : snapshot, forward ? snapshot : w_.across);
      rescale(q_, w_.across, X{L::set(1) / total.m, -total.e});
    }
  }

  void store_occupancy() {
    if constexpr (!kInPlace) {
      for (int64_t t = begin_; t < end_; ++t) {
        for (int64_t i = 0; i < length_; ++i) {
          rows_[t * p_.max_length + i] = Stored(w_.occupancy[(t - begin_) * length_ + i]);
        }
      }
    }
  }

  const CtcLossParams& p_;
  const int64_t n_;
  const int64_t* const labels_;
  const int64_t frames_, length_;
  const int64_t begin_, end_;  // the frames that are worked on
  Stored* const rows_;         // (T, S) of occupancy
  const FrameScalars<Stored> frame_;
  ForwardWorkspace<Scalar> w_;
  Sequence<X>& q_;
  Emissions<Stored, Scalar> emissions_;
  const int64_t segments_;
  int64_t t0_ = 0, t1_ = 0;
  bool concludes_ = false;
  Status problem_ = kOk;               // of the sweep
  double log2_p_ = -INFINITY;          // relative to the origins
  double offset_ = 0;                  // the logarithm of the origins of these frames,
  double sum_of_offsets_ = -INFINITY;  // and of all frames
};

// Memory of one half, and of its object at the begin of it.
template <class Stored, class Scalar>
constexpr size_t kObjectBytes = (sizeof(ForwardSample<Stored, Scalar>) + 63) / 64 * 64;
template <class Stored, class Scalar>
size_t bytes_of(const CtcLossParams& p, int64_t frames, int64_t count, int64_t length) {
  const bool own_occupancy = p.need_grad && sizeof(Stored) != sizeof(Scalar);
  return kObjectBytes<Stored, Scalar> + ForwardWorkspace<Scalar>(nullptr, p, frames, count, length, own_occupancy).size;
}
template <class Stored, class Scalar>
size_t bytes_of_half(const CtcLossParams& p) {
  return bytes_of<Stored, Scalar>(p, p.frames, p.frames - p.frames / 2, p.max_length);
}

// Parts [first, last) of a sample: the sweeps of its halves, then what concludes them. A short sample has one part, the
// third.
template <class Stored, class Scalar>
void forward_sample(const CtcLossParams& p, int64_t n, int first, int last, void* workspace) {
  using Sample = ForwardSample<Stored, Scalar>;
  const bool valid = sample_is_valid(p, n), fits = valid && target_fits(p, n);
  const int64_t frames = p.input_lengths[n];
  const bool meets = fits && halves_meet<Scalar>(frames, p.target_lengths[n]), concludes = first <= 2 && 2 < last;
  Status status = valid ? kInfeasible : kInvalid;
  double loss = valid ? INFINITY : NAN;
  const auto finish = [&](Status found, const Sample& sample) {
    status = found;
    loss = status == kNotANumber || status == kTooWide ? NAN : sample.loss();
  };
  if (meets && concludes) {
    Sample sample(p, n, 0, frames, workspace);
    finish(sample.meet(), sample);
  }
  if (fits && !meets) {
    char* const memory[] = {static_cast<char*>(workspace),
                            static_cast<char*>(workspace) + bytes_of_half<Stored, Scalar>(p)};
    const auto at = [&](int half) { return reinterpret_cast<Sample*>(memory[half]); };
    for (int part = first; part < last; ++part) {
      const int half = part % 2;
      if (part < 2) {
        const int64_t begin = half ? frames / 2 : 0, end = half ? frames : frames / 2;
        (new (memory[half]) Sample(p, n, begin, end, memory[half] + kObjectBytes<Stored, Scalar>))->sweep();
      } else {
        const Status found = at(half)->conclude(*at(1 - half));
        if (!half) finish(found, *at(half));
      }
    }
  }
  if (!concludes) return;
  static_cast<Stored*>(p.loss)[n] = Stored(loss);
  p.status[n] = status;
  if (status == kOk || status == kTooWide || !valid || !p.need_grad) return;
  clear(static_cast<Stored*>(p.occupancy) + n * p.frames * p.max_length, p.frames * p.max_length);
}

template <class Function>
auto with_types(const CtcLossParams& p, bool wide, const Function& f) {
  if (p.dtype == DType::kFloat64) return f(double(), double());
  return wide ? f(float(), double()) : f(float(), float());
}

}  // namespace

size_t ctc_loss_forward_workspace(const CtcLossParams& p, bool wide) {
  return with_types(p, wide, [&](auto stored, auto scalar) {
    using Stored = decltype(stored);
    using Scalar = decltype(scalar);
    const int64_t frames = p.frames < kMaxMeeting ? p.frames : kMaxMeeting;
    const int64_t longest = kMaxMeetingRegisters * Lanes<Scalar>::N - 1;
    const size_t meeting = bytes_of<Stored, Scalar>(p, frames, frames, p.max_length < longest ? p.max_length : longest);
    const size_t halves = 2 * bytes_of_half<Stored, Scalar>(p);
    return halves > meeting ? halves : meeting;
  });
}

void ctc_loss_forward(const CtcLossParams& p, const int64_t* samples, int64_t count, int first, int last, bool wide,
                      void* workspace) {
  const FlushDenormals flush;
  with_types(p, wide, [&](auto stored, auto scalar) {
    for (int64_t i = 0; i < count; ++i) {
      forward_sample<decltype(stored), decltype(scalar)>(p, samples[i], first, last, workspace);
    }
  });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

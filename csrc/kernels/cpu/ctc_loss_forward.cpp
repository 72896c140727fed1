// The second phase of the CTC loss on the CPU, a sample at a time: emissions and recursions, segment by segment.
#include "../../math/delay.h"
#include "../../math/recursion.h"
#include "../loss_bound.h"
#include "../workspace.h"
#include "ctc_loss.h"
#include "targets.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

constexpr int kMaxRegisters = 4;             // K: a block has at most this many registers of slots
constexpr int64_t kWholeBytes = 1000 << 10;  // a sample whose lattice is smaller keeps all of it
constexpr int64_t kMaxMeeting = 256;         // frames of sequences whose two directions run at once,
constexpr int kMaxMeetingRegisters = 2;      // and their slots: both must find room in the processor's registers

template <class Scalar>
struct ForwardWorkspace {
  using X = Scaled<Lanes<Scalar>>;
  Sequence<X> sequence;
  States<X> forward, backward;
  uint8_t *skip, *blank_is_zero;
  uint8_t* counts;          // (S) of loss_bound.h
  int32_t* labels;          // (P)
  Scalar* bias;             // (P) added to the labels' scores; null if nothing is
  Plane<Scalar> origins;    // (T) n and r of the score that the emissions of a frame are relative to
  Scalar* occupancy;        // (T, S) where the result is of another type
  Plane<Scalar> snapshots;  // closed forward states before each segment
  bool meets;               // is it so short that both directions run at once?
  bool whole;               // are the rows of all frames kept, or of one segment?
  size_t size;

  ForwardWorkspace(void* base, const CtcLossParams& p, int64_t frames, int64_t length, bool own_occupancy) {
    constexpr int64_t N = Lanes<Scalar>::N;
    Workspace w(base);
    Sequence<X>& q = sequence;
    q.frames = frames;
    q.length = length;
    q.slots = (length + N) / N * N;
    q.first = 0;
    q.skip = skip = w.take<uint8_t>(q.slots);
    labels = w.take<int32_t>(q.slots);
    bias = p.class_bias ? w.take<Scalar>(q.slots) : nullptr;
    blank_is_zero = w.take<uint8_t>(frames);
    counts = w.take<uint8_t>(length);
    q.blank_is_zero = nullptr;
    const bool tilted = p.delay_penalty != 0;
    q.tilt = w.take_plane<Scalar>(tilted ? q.slots + N : 0);
    if (!tilted) q.tilt = {};
    meets = frames <= kMaxMeeting && q.slots <= kMaxMeetingRegisters * N;
    // By the largest sample there could be, so that no smaller one needs more. It does not change the result.
    const int64_t largest = p.frames * (p.max_length + N) * 4 * int64_t(sizeof(Scalar));
    whole = meets || (p.need_grad && (p.frames <= kSegment || largest <= kWholeBytes));
    const int64_t rows = whole || frames < kSegment ? frames : kSegment;
    q.labels = w.take_plane<Scalar>(rows * q.slots, N);
    q.kept = w.take_plane<Scalar>(p.need_grad ? rows * q.slots : 0, N);
    q.carries = w.take_plane<Scalar>((q.slots / (N * kMaxRegisters) + 2) * kTile);
    forward = take_states(w);
    backward = take_states(w);
    snapshots = w.take_plane<Scalar>(p.need_grad ? (frames / kSegment + 1) * snapshot_size() : 0);
    origins = w.take_plane<Scalar>(frames + N);
    occupancy = w.take<Scalar>(own_occupancy ? frames * length : 0);
    size = w.size();
  }
  States<X> take_states(Workspace& w) const {
    const Plane<Scalar> b = w.take_plane<Scalar>(sequence.slots);
    return {b, w.take_plane<Scalar>(sequence.slots + 1, Lanes<Scalar>::N)};
  }
  int64_t snapshot_size() const { return 2 * (sequence.slots + Lanes<Scalar>::N); }
  States<X> snapshot(int64_t segment) const {
    const Plane<Scalar> p = snapshots + segment * snapshot_size();
    return {p, p + (sequence.slots + Lanes<Scalar>::N)};
  }
};

template <class X>
void copy(const States<X>& from, const States<X>& to, int64_t slots) {
  X::copy(from.b, to.b, slots);
  X::copy(from.e + -1, to.e + -1, slots + 2);
}

template <class Scalar, class Stored>
typename Lanes<Scalar>::F load_as(const Stored* p, int64_t count) {
  using L = Lanes<Scalar>;
  if constexpr (sizeof(Stored) == sizeof(Scalar)) return L::load(p, L::first(count));
  auto x = L::set(0);
  for (int64_t i = 0; i < L::N && i < count; ++i) x[i] = p[i];
  return x;
}

// The forward phase of one sample.
template <class Stored, class Scalar>
class ForwardSample {
  using L = Lanes<Scalar>;
  using X = Scaled<L>;

 public:
  ForwardSample(const CtcLossParams& p, int64_t n, void* workspace)
      : p_(p),
        n_(n),
        labels_(p.targets + p.target_offsets[n]),
        frames_(p.input_lengths[n]),
        length_(p.target_lengths[n]),
        rows_(static_cast<Stored*>(p.occupancy) + n * p.frames * p.max_length),
        frame_(p, n),
        w_(workspace, p, frames_, length_, p.need_grad && !kInPlace),
        q_(w_.sequence) {
    q_.occupancy = w_.occupancy;
    q_.occupancy_stride = length_;
    if constexpr (kInPlace) {
      q_.occupancy = rows_;
      q_.occupancy_stride = p.max_length;
    }
    for (int64_t i = 0; i < q_.slots; ++i) {
      w_.skip[i] = may_skip(labels_, i, length_);
      const bool star = i < length_ && labels_[i] == p.star;
      w_.labels[i] = i < length_ && !star ? int32_t(labels_[i]) : 0;
      if (w_.bias) w_.bias[i] = star ? Scalar(0) : Scalar(static_cast<const Stored*>(p.class_bias)[w_.labels[i]]);
    }
    X::fill_zero(q_.labels + -1, 1);
    X::fill_zero(q_.kept + -1, 1);
    if (q_.tilt) set_tilt();
  }

  // Returns what became of the sample; kOk for one that has yet to prove infeasible.
  Status run() {
    set_origins();
    if (!(std::fabs(offset_) < double(INFINITY))) return kNotANumber;
    if (w_.meets) return meet();
    const int64_t segments = (frames_ + kSegment - 1) / kSegment;
    if (w_.whole) emit(0, frames_);
    Scalar one = 1, zero = 0;
    start(w_.forward, q_.slots, 0, {&one, &zero});
    for (int64_t s = 0; s < segments; ++s) {
      enter(s);
      if (p_.need_grad) copy(w_.forward, w_.snapshot(s), q_.slots);
      if (w_.whole && p_.need_grad) {
        fastctc::run<Direction::kForward, Keep::kStates, X, kMaxRegisters>(q_, w_.forward, t0_, t1_);
      } else {
        fastctc::run<Direction::kForward, Keep::kNothing, X, kMaxRegisters>(q_, w_.forward, t0_, t1_);
      }
    }
    if (const Status problem = check_emissions()) return problem;
    log2_p_ = log2_probability(q_, w_.forward);
    if (!(log2_p_ > -INFINITY)) return kInfeasible;
    if (p_.need_grad) occupancies(segments);
    return kOk;
  }
  double loss() const {
    const double loss = 0 - (kLn2 * log2_p_ + offset_);
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

  Status check_emissions() const {
    if (L::any(L::invert(finite_))) return kNotANumber;
    const double exponents = double(L::reduce_max(range_)[0]) * double(frames_);
    return sizeof(Scalar) == 4 && exponents > kLargestExponent ? kTooWide : kOk;
  }

  // A short sequence: both directions at once, which meet in the middle, and go on over what the other has kept.
  Status meet() {
    emit(0, frames_);
    if (const Status problem = check_emissions()) return problem;
    const int64_t middle = frames_ / 2;
    Scalar one = 1, zero = 0;
    start(w_.forward, q_.slots, 0, {&one, &zero});
    start(w_.backward, q_.slots, length_, {&one, &zero});
    if (p_.need_grad) {
      run_both<Keep::kStates>(0, middle, middle, frames_);
    } else {
      run_both<Keep::kNothing>(0, middle, middle, frames_);
    }
    const X total = crossing(q_, w_.forward, w_.backward);
    if (!(total.m[0] > 0)) return kInfeasible;
    log2_p_ = std::log2(double(total.m[0])) + double(total.e[0]);
    if (!p_.need_grad || length_ == 0) return kOk;
    const X factor = {L::set(1) / total.m, -total.e};
    rescale(q_, w_.forward, factor);
    rescale(q_, w_.backward, factor);
    run_both<Keep::kOccupancy>(middle, frames_, 0, middle);
    store_occupancy();
    return kOk;
  }
  template <Keep keep>
  void run_both(int64_t f0, int64_t f1, int64_t b0, int64_t b1) {
    if (q_.slots == L::N) {
      fastctc::run_both<keep, X, 1>(q_, w_.forward, f0, f1, w_.backward, b0, b1);
    } else {
      fastctc::run_both<keep, X, kMaxMeetingRegisters>(q_, w_.forward, f0, f1, w_.backward, b0, b1);
    }
  }

  void set_tilt() {
    fill_tilts<X>(q_.tilt, q_.slots + L::N, p_.delay_penalty);
    range_ = L::set(Scalar(largest_tilt(p_.delay_penalty, length_)));
    offset_ = -tilt_of_all_paths(p_.delay_penalty, length_, frames_);
  }

  // The emissions of a frame are relative to its blank's, or where that is zero, to the row's largest. (On CUDA they
  // are relative to 1 then: there the maximum is another load in every frame.)
  void set_origins() {
    const Stored bias = p_.class_bias ? static_cast<const Stored*>(p_.class_bias)[p_.blank] : Stored(0);
    typename L::Wide origins{}, log2_sums{};
    for (int64_t t = 0; t < frames_; t += L::N) {
      const auto blank = load_as<Scalar>(frame_.blank + t, frames_ - t) + Scalar(bias);
      const auto max = p_.from_logits ? load_as<Scalar>(frame_.max + t, frames_ - t) : L::set(0);
      const auto zero = L::less(blank, L::set(Scalar(kZeroLog)));
      const auto origin = L::select(zero, max, blank);
      if (L::any(zero)) {
        if (!q_.blank_is_zero) {
          clear(w_.blank_is_zero, frames_);
          q_.blank_is_zero = w_.blank_is_zero;
        }
        for (int64_t i = t; i < frames_ && i < t + L::N; ++i) w_.blank_is_zero[i] = blank[i - t] < Scalar(kZeroLog);
      }
      const Split<L> y = split<L>(origin);
      L::store(w_.origins.m + t, y.n);
      L::store(w_.origins.e + t, y.r);
      const auto used = L::first(frames_ - t);
      origins += L::widen(L::select(used, origin, L::set(0))) - L::widen(max);
      if (p_.from_logits) log2_sums += L::widen(load_as<Scalar>(frame_.log2_sum + t, frames_ - t));
    }
    for (int i = 0; i < L::N; ++i) offset_ += origins[i] - kLn2 * log2_sums[i];
  }

  // Both give the scores of labels i, i + 1, ... in a frame. Lookup takes them from a short row of the input, Stand
  // from a row of their own, which stands in place of the occupancies.
  struct Lookup {
    typename L::F low, high;
    const int32_t* labels;
    typename L::F operator()(int64_t i) const { return L::lookup(low, high, labels + i); }
  };
  struct Stand {
    const Stored* row;
    int64_t length;
    typename L::F operator()(int64_t i) const { return load_as<Scalar>(row + i, length - i); }
  };

  // The emissions of frames [t0, t1).
  void emit(int64_t t0, int64_t t1) {
    if (!scores_by_lookup(p_)) {
      emit_from(t0, t1, [rows = rows_, stride = p_.max_length, length = length_](int64_t t) {
        return Stand{rows + t * stride, length};
      });
    } else {
      const Stored* const x = row_of<Stored>(p_, 0, n_);
      emit_from(t0, t1, [x, stride = p_.stride_t, classes = p_.classes, labels = w_.labels](int64_t t) {
        const Stored* const row = x + t * stride;
        return Lookup{load_as<Scalar>(row, classes), load_as<Scalar>(row + L::N, classes - L::N), labels};
      });
    }
  }
  template <class ScoresOf>
  void emit_from(int64_t t0, int64_t t1, const ScoresOf& scores_of) {
    const int64_t length = length_, slots = q_.slots;
    const Plane<Scalar> origins = w_.origins, tilt = q_.tilt;
    const Scalar* const bias = w_.bias;
    Plane<Scalar> out = q_.labels + (t0 - q_.first) * slots;
    auto range = range_;
    auto finite = finite_;
    for (int64_t t = t0; t < t1; ++t, out = out + slots) {
      const Split<L> origin = {L::set(origins.m[t]), L::set(origins.e[t])};
      const auto scores = scores_of(t);
      for (int64_t i = 0; i < slots; i += L::N) {
        auto x = scores(i);
        if (bias) x += L::load(bias + i);
        finite = L::both(finite, L::less(x, L::set(Scalar(INFINITY))));
        const auto nonzero = L::both(L::first(length - i), L::invert(L::less(x, L::set(Scalar(kZeroLog)))));
        X y = nonzero_emission<L>(x, origin);
        range = L::max(range, L::select(nonzero, L::magnitude(y.e), L::set(0)));
        y = X::select(nonzero, y, X::zero());
        if (tilt) y = y * X::template load<1>(tilt + (i + 1), 0);
        y.template store<1>(out + i, 0);
      }
    }
    range_ = range;
    finite_ = finite;
  }

  // Makes segment s the current one, with its emissions.
  void enter(int64_t s) {
    t0_ = s * kSegment;
    t1_ = t0_ + kSegment < frames_ ? t0_ + kSegment : frames_;
    if (w_.whole) return;
    q_.first = t0_;
    emit(t0_, t1_);
  }

  void occupancies(int64_t segments) {
    const double n = std::floor(log2_p_);
    Scalar m = Scalar(std::exp2(n - log2_p_)), e = Scalar(-n);  // 1 / P
    start(w_.backward, q_.slots, length_, {&m, &e});
    for (int64_t s = segments - 1; s >= 0 && length_ > 0; --s) {
      enter(s);
      if (!w_.whole) {
        copy(w_.snapshot(s), w_.forward, q_.slots);
        fastctc::run<Direction::kForward, Keep::kStates, X, kMaxRegisters>(q_, w_.forward, t0_, t1_);
      }
      fastctc::run<Direction::kBackward, Keep::kOccupancy, X, kMaxRegisters>(q_, w_.backward, t0_, t1_);
      if (s == 0) break;
      // All paths together have probability 1: rounding does not add up from segment to segment.
      const X total = crossing(q_, w_.snapshot(s), w_.backward);
      rescale(q_, w_.backward, X{L::set(1) / total.m, -total.e});
    }
    store_occupancy();
  }

  void store_occupancy() {
    if constexpr (!kInPlace) {
      for (int64_t t = 0; t < frames_; ++t) {
        for (int64_t i = 0; i < length_; ++i) rows_[t * p_.max_length + i] = Stored(w_.occupancy[t * length_ + i]);
      }
    }
  }

  const CtcLossParams& p_;
  const int64_t n_;
  const int64_t* const labels_;
  const int64_t frames_, length_;
  Stored* const rows_;  // (T, S) of occupancy
  const FrameScalars<Stored> frame_;
  ForwardWorkspace<Scalar> w_;
  Sequence<X>& q_;
  int64_t t0_ = 0, t1_ = 0;
  typename L::F range_ = L::set(0);  // the largest exponent of an emission
  typename L::M finite_ = L::less(L::set(0), L::set(1));
  double log2_p_ = -INFINITY;  // relative to the origins
  double offset_ = 0;          // the logarithm of all origins
};

template <class Stored, class Scalar>
void forward_sample(const CtcLossParams& p, int64_t n, void* workspace) {
  Stored& loss = static_cast<Stored*>(p.loss)[n];
  int32_t& status = p.status[n];
  Stored* const occupancy = static_cast<Stored*>(p.occupancy) + n * p.frames * p.max_length;
  if (!sample_is_valid(p, n)) {
    loss = Stored(NAN);
    status = kInvalid;
    return;
  }
  status = kInfeasible;
  loss = Stored(INFINITY);
  if (target_fits(p, n)) {
    ForwardSample<Stored, Scalar> sample(p, n, workspace);
    status = sample.run();
    loss = status == kNotANumber || status == kTooWide ? Stored(NAN) : Stored(sample.loss());
  }
  if (status != kOk && status != kTooWide && p.need_grad) clear(occupancy, p.frames * p.max_length);
}

}  // namespace

size_t ctc_loss_forward_workspace(const CtcLossParams& p, bool wide) {
  const auto size = [&](auto scalar) {
    using Scalar = decltype(scalar);
    const bool own_occupancy = p.need_grad && wide && p.dtype != DType::kFloat64;
    const auto of = [&](int64_t frames, int64_t length) {
      return ForwardWorkspace<Scalar>(nullptr, p, frames < p.frames ? frames : p.frames,
                                      length < p.max_length ? length : p.max_length, own_occupancy)
          .size;
    };
    const size_t largest = of(p.frames, p.max_length),
                 meeting = of(kMaxMeeting, kMaxMeetingRegisters * Lanes<Scalar>::N - 1);
    return largest > meeting ? largest : meeting;
  };
  return wide || p.dtype == DType::kFloat64 ? size(double()) : size(float());
}

void ctc_loss_forward(const CtcLossParams& p, int64_t begin, int64_t end, bool wide, void* workspace) {
  const FlushDenormals flush;
  for (int64_t n = begin; n < end; ++n) {
    if (p.dtype == DType::kFloat64) {
      forward_sample<double, double>(p, n, workspace);
    } else if (wide) {
      forward_sample<float, double>(p, n, workspace);
    } else {
      forward_sample<float, float>(p, n, workspace);
    }
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

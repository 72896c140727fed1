// The forward and backward recursions of one sample by the warps of one block. Half of them walk forward, half
// backward, at the same time, and they meet in the middle:
//
//          frame 0            middle            T
//   first    forward  ------->  |  <-------  backward     each keeps its closed label states;
//   second   backward <-------  |  ------->  forward      each goes on where the other has been: occupancies
//
// so that the latency is that of T frames, not of 2 T. In between, the total probability P comes from the states on
// both sides of the middle, and both go on from their states divided by P.
//
// The slots of long targets are walked in columns of one warp's width, by at most kMaxWarps warps, each one tile of
// frames behind the warp before it, which hands on the label states at its edge:
//
//             tile 0    tile 1    ...  of a segment      step:  column 0    0 1 2 3
//   column 0  [      ]  [      ]                                column 1      1 2 3 4
//              | carries |                                      column 2        2 3 4 5
//   column 1  [      ]  [      ]
//
// With more columns than warps, the warps do a segment for their first column, then for the next. A segment has as many
// tiles as there can be warps: the first warp never waits for the last.
//
// Rounding drifts apart in the two directions. At the last frame of each segment of the second half, the probability of
// all paths is summed: it should be one. The states are corrected one segment later, when all warps know of it.
#pragma once

#include "../../math/recursion.h"
#include "../ctc_loss.h"
#include "lanes.h"
#include "targets.h"

namespace fastctc {
namespace cuda {

// In each direction: as many as have the registers that they need.
template <class Scalar>
constexpr int kMaxWarps = sizeof(Scalar) == 4 ? 8 : 4;
template <class Scalar>
constexpr int kTileFrames = kSegment / kMaxWarps<Scalar>;
constexpr int kTotals = 4;  // segments whose totals are in use at the same time

// An array of scaled floats: the mantissas as Stored, the exponents as floats, or as integers where floats would not be
// exact (wide: Scalar is double, Stored is float).
template <class Scalar, class Stored>
struct ExponentOf {
  using type = Scalar;
};
template <>
struct ExponentOf<double, float> {
  using type = int32_t;
};
template <class Scalar, class Stored>
struct Numbers {
  using X = Scaled<Lanes<Scalar>>;
  using Exponent = typename ExponentOf<Scalar, Stored>::type;
  Stored* m;
  Exponent* e;

  static __device__ __forceinline__ Exponent exponent(Scalar e) {
    constexpr Scalar limit = 1 << 30;
    if constexpr (sizeof(Scalar) != sizeof(Stored)) {
      e = Lanes<Scalar>::min(Lanes<Scalar>::max(e, -limit), limit);
    }
    return Exponent(e);
  }
  __device__ __forceinline__ X load(int64_t i) const { return {Scalar(m[i]), Scalar(e[i])}; }
  __device__ __forceinline__ void store(int64_t i, X x) const {
    m[i] = Stored(x.m);
    e[i] = exponent(x.e);
  }
  __device__ __forceinline__ Numbers operator+(int64_t i) const { return {m + i, e + i}; }
};

// One sample.
template <class Element, class Scalar>
struct Task {
  using Stored = typename ScalarOf<Element>::type;
  using Memory = Numbers<Scalar, Stored>;

  int frames, middle;  // the first walk forward has frames [0, middle)
  int length;          // S of this sample
  int columns, warps;  // of slots; in each direction
  int stride;          // of the rows of labels: max_length
  int filled;          // labels that occupancies are written for; zero from `length` on
  bool keep;           // label states, for a second walk
  const Element* input;
  int64_t stride_t, stride_c;
  const int64_t* labels;
  const Stored *blank, *max, *log2_sum;  // (T) row statistics; null for log-probabilities: max, log2_sum
  Memory kept;                           // (T, stride): closed label states, then the mantissas are the occupancies
  Memory states[2];                      // of each direction (2, stride + 1): b and e of each slot
  Memory snapshots[2];                   // of each direction (segments, stride + 1): closed blank states
  // options
  const Stored* bias;
  Stored blank_bias;
  int64_t star;
  double delay_penalty;
};

// What the warps of a block tell each other; [2] are the directions.
template <class Scalar>
struct Exchange {
  static constexpr int kWarps = kMaxWarps<Scalar>;
  Scalar carry_m[2][kWarps][2][kTileFrames<Scalar>], carry_e[2][kWarps][2][kTileFrames<Scalar>];
  Scalar totals[2][kTotals][kWarps];
  Scalar range[2][kWarps];  // largest exponents
  Scalar p_m[2], p_e[2];    // the probability of all paths
  double offset[2];         // the logarithm of the origins
};

// The score that the emissions of frame t are relative to: the blank's, or where that is zero, the row's largest.
template <class Element, class Scalar>
struct Origin {
  Scalar score;
  bool blank_is_zero;
  __device__ __forceinline__ Origin(const Task<Element, Scalar>& q, Scalar blank, int t)
      : score(blank), blank_is_zero(blank < Scalar(kZeroLog)) {
    if (blank_is_zero) score = q.max ? Scalar(q.max[t]) : Scalar(0);
  }
};

// One warp on its way through the frames, with the slots of one column in K registers.
template <Direction D, bool kSecond, int K, bool kOptions, class Element, class Scalar>
class Walk {
  using W = Lanes<Scalar>;
  using X = Scaled<W>;
  using Stored = typename ScalarOf<Element>::type;
  using Exponent = typename Numbers<Scalar, Stored>::Exponent;
  static constexpr bool kForward = D == Direction::kForward;
  static constexpr int kSide = kForward ? 0 : 1;
  static constexpr int kColumn = kWarp * K, kTiles = kMaxWarps<Scalar>, kFrames = kTileFrames<Scalar>;
  // Frames whose scores are loaded ahead.
  static constexpr int kAhead = sizeof(Scalar) == 8 ? (K == 1 ? 4 : 2) : (K == 1 ? 8 : kOptions ? 2 : 4);

 public:
  __device__ __forceinline__ Walk(const Task<Element, Scalar>& q, Exchange<Scalar>& shared, int rank)
      : q_(q),
        shared_(shared),
        rank_(rank),
        first_(kForward ? (kSecond ? q.middle : 0) : (kSecond ? q.middle : q.frames) - 1),
        count_(kForward == kSecond ? q.frames - q.middle : q.middle) {}

  // From `factor` times the states where the first walk has ended. Returns the largest exponent of an emission.
  __device__ __forceinline__ Scalar run(X factor) {
    const int strips = (q_.columns + q_.warps - 1) / q_.warps;
    const int tiles = count_ > kFrames ? (count_ + kFrames - 1) / kFrames : 1;
    const int segments = (tiles + kTiles - 1) / kTiles;
    const int work = strips == 1 ? tiles : segments * strips * kTiles;
    int segment = 0, strip = 0, tile = 0;
    for (int step = 0; step < work + q_.warps - 1; ++step) {
      if (step >= rank_ && step - rank_ < work) {
        const int column = strip * q_.warps + rank_;
        if (column < q_.columns) {
          if (tile == 0) {
            if (kSecond && strip == 0) correct(segment);
            if (segment == 0 || strips > 1) enter(column, segment, factor);
            if (kSecond) rescale();
          }
          frames(column, (segment * kTiles + tile) * kFrames, step & 1);
          const bool ends = strips > 1 ? tile == kTiles - 1 : step - rank_ == work - 1;
          if (ends && (strips > 1 || !kSecond)) leave();
        }
        if (++tile == kTiles) {
          tile = 0;
          if (++strip == strips) {
            if (kSecond) publish(segment);
            strip = 0;
            ++segment;
          }
        }
      }
      if (q_.warps > 1) named_barrier(1 + kSide, q_.warps * kWarp);
    }
    return warp_max(range_);
  }

 private:
  __device__ __forceinline__ int slot(int c) const { return slot0_ + c * kWarp + lane_id(); }
  __device__ __forceinline__ int label(int c) const { return slot(c) - (kForward ? 0 : 1); }
  __device__ __forceinline__ bool has_label(int c) const { return unsigned(label(c)) < unsigned(q_.length); }
  __device__ __forceinline__ int frame(int k) const { return kForward ? first_ + k : first_ - k; }
  __device__ __forceinline__ int64_t row(int t) const { return int64_t(t) * q_.stride; }

  // Takes over the slots of a column: its labels, and its states, from where they were left.
  __device__ __forceinline__ void enter(int column, int segment, X factor) {
    slot0_ = (kForward ? column : q_.columns - 1 - column) * kColumn;
    const auto states = q_.states[kSide];
#pragma unroll
    for (int c = 0; c < K; ++c) {
      const int j = slot(c), i = label(c);
      skip_[c] = may_skip(q_.labels, j, q_.length);
      const int64_t label = has_label(c) ? q_.labels[i] : 0;
      bool star = false;
      if constexpr (kOptions) {
        star = has_label(c) && label == q_.star;
        star_[c] = star;
        bias_[c] = q_.bias && has_label(c) && !star ? Scalar(q_.bias[label]) : Scalar(0);
        const Split<W> none = {0, 0};
        b_tilt_[c] = emission<W>(Scalar(q_.delay_penalty * j), none);
        e_tilt_[c] = emission<W>(Scalar(q_.delay_penalty * (i + 1)), none);
      }
      offset_[c] = star ? 0 : label * q_.stride_c;
      if (!kSecond && segment == 0) {
        b_[c] = {Scalar(j == (kForward ? 0 : q_.length)), 0};
        b_[c] = X::select(b_[c].m != 0, b_[c], X::zero());
        e_[c] = X::zero();
      } else {
        const bool exists = j <= q_.length;
        b_[c] = exists ? states.load(j) : X::zero();
        e_[c] = exists ? states.load(q_.stride + 1 + j) : X::zero();
        if (kSecond && segment == 0) {
          b_[c] = b_[c] * factor;
          e_[c] = e_[c] * factor;
        }
      }
    }
    const int k0 = segment * kSegment;
#pragma unroll
    for (int d = 0; d < kAhead; ++d) fetch(d, k0 + d);
  }

  __device__ __forceinline__ void leave() const {
    const auto states = q_.states[kSide];
#pragma unroll
    for (int c = 0; c < K; ++c) {
      if (slot(c) > q_.length) continue;
      states.store(slot(c), b_[c]);
      states.store(q_.stride + 1 + slot(c), e_[c]);
    }
  }

  // What frame number k of this walk needs from memory. Beyond the last frame, that of the last, which nobody uses.
  __device__ __forceinline__ void fetch(int d, int k) {
    if (count_ == 0) return;
    const int t = frame(k < count_ ? k : count_ - 1);
    const Element* const x = q_.input + t * q_.stride_t;
    blanks_[d] = q_.blank[t];
#pragma unroll
    for (int c = 0; c < K; ++c) {
      scores_[d][c] = x[offset_[c]];
      if constexpr (kSecond) {
        const bool exists = has_label(c);
        kept_m_[d][c] = exists ? q_.kept.m[row(t) + label(c)] : Stored(0);
        kept_e_[d][c] = exists ? q_.kept.e[row(t) + label(c)] : Exponent(0);
      }
    }
  }

  // The tile of frames from number k0 on.
  __device__ __forceinline__ void frames(int column, int k0, int parity) {
    const bool receives = column > 0, sends = column + 1 < q_.columns;
    const int from = rank_ > 0 ? rank_ - 1 : q_.warps - 1;
    for (int k = 0; k < kFrames; k += kAhead) {
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
        if (k0 + k + d >= count_) break;
        X carry = X::zero();
        if (receives) {
          carry = {shared_.carry_m[kSide][from][parity ^ 1][k + d], shared_.carry_e[kSide][from][parity ^ 1][k + d]};
        }
        if (sends) {
          W::template store_edge<D, K>(&shared_.carry_m[kSide][rank_][parity][k + d], [&](int c) { return e_[c].m; });
          W::template store_edge<D, K>(&shared_.carry_e[kSide][rank_][parity][k + d], [&](int c) { return e_[c].e; });
        }
        step(d, k0 + k + d, carry);
      }
    }
#pragma unroll
    for (int c = 0; c < K; ++c) {
      b_[c] = normalize(b_[c]);
      e_[c] = normalize(e_[c]);
    }
  }

  // Frame number k, whose scores are in place d of those loaded ahead.
  __device__ __forceinline__ void step(int d, int k, X carry) {
    const int t = frame(k);
    Scalar blank = Scalar(blanks_[d]), any = 0;
    if constexpr (kOptions) {
      blank += Scalar(q_.blank_bias);
      if (q_.star >= 0 && q_.max) any = Scalar(q_.max[t]) + Scalar(q_.log2_sum[t]) * Scalar(kLn2);
    }
    const Origin<Element, Scalar> origin(q_, blank, t);
    const Split<W> relative = split<W>(origin.score);
    X p[K], s[K];
#pragma unroll
    for (int c = 0; c < K; ++c) {
      Scalar x = Scalar(to_scalar(scores_[d][c]));
      if constexpr (kOptions) x = star_[c] ? any : x + bias_[c];
      p[c] = emission<W>(has_label(c) ? x : Scalar(-INFINITY), relative);
      if constexpr (!kSecond) range_ = W::max(range_, p[c].m != 0 ? W::max(p[c].e, -p[c].e) : Scalar(0));
      if constexpr (kOptions) p[c] = p[c] * e_tilt_[c];
    }
    X kept[K];
    if constexpr (kSecond) {
#pragma unroll
      for (int c = 0; c < K; ++c) kept[c] = {Scalar(kept_m_[d][c]), Scalar(kept_e_[d][c])};
    }
    fetch(d, k + kAhead);
#pragma unroll
    for (int c = 0; c < K; ++c) s[c] = X::template neighbor<D, K>(e_, c, carry);
#pragma unroll
    for (int c = 0; c < K; ++c) transition(b_[c], e_[c], s[c], skip_[c]);
    if constexpr (kSecond) {
      const bool measured = k % kSegment == kSegment - 1;
#pragma unroll
      for (int c = 0; c < K; ++c) {
        const Scalar occupancy = (e_[c] * kept[c]).probability();
        if (unsigned(label(c)) < unsigned(q_.filled)) q_.kept.m[row(t) + label(c)] = Stored(occupancy);
        if (measured && slot(c) <= q_.length) {
          const X other = q_.snapshots[1 - kSide].load(int64_t(k / kSegment) * (q_.stride + 1) + slot(c));
          total_ += occupancy + (b_[c] * other).probability();
        }
      }
    }
#pragma unroll
    for (int c = 0; c < K; ++c) {
      e_[c] = e_[c] * p[c];
      if constexpr (kOptions) b_[c] = b_[c] * b_tilt_[c];
    }
    if (origin.blank_is_zero) {
#pragma unroll
      for (int c = 0; c < K; ++c) b_[c] = X::zero();
    }
    if constexpr (!kSecond) {
      if (q_.keep) keep(t, count_ - 1 - k);
    }
  }

  // The closed states of frame t, number k of the other direction's second walk.
  __device__ __forceinline__ void keep(int t, int k) const {
    const bool measured = k % kSegment == kSegment - 1;
#pragma unroll
    for (int c = 0; c < K; ++c) {
      if (has_label(c)) q_.kept.store(row(t) + label(c), e_[c]);
      if (measured && slot(c) <= q_.length) {
        q_.snapshots[kSide].store(int64_t(k / kSegment) * (q_.stride + 1) + slot(c), b_[c]);
      }
    }
  }

  // The total of this warp's columns at the end of a segment.
  __device__ __forceinline__ void publish(int segment) {
    const Scalar total = warp_sum(total_);
    if (lane_id() == 0) shared_.totals[kSide][segment % kTotals][rank_] = total;
    total_ = 0;
    if (q_.warps == 1) __syncwarp();
  }
  // The total of segment - 2 has seen all corrections but that of segment - 1.
  __device__ __forceinline__ void correct(int segment) {
    if (segment < 2) return;
    Scalar total = 0;
    for (int w = 0; w < q_.warps; ++w) total += shared_.totals[kSide][(segment - 2) % kTotals][w];
    correction_ = 1 / (total * correction_);
  }
  __device__ __forceinline__ void rescale() {
#pragma unroll
    for (int c = 0; c < K; ++c) {
      b_[c].m *= correction_;
      e_[c].m *= correction_;
    }
  }

  const Task<Element, Scalar>& q_;
  Exchange<Scalar>& shared_;
  const int rank_, first_, count_;  // the frames of this walk: first_, and on in direction D
  int slot0_ = 0;
  X b_[K], e_[K];
  bool skip_[K];
  int64_t offset_[K];  // of the label's score in a row
  bool star_[K];
  Scalar bias_[K];
  X b_tilt_[K], e_tilt_[K];
  Element scores_[kAhead][K];
  Stored blanks_[kAhead], kept_m_[kAhead][K];
  Exponent kept_e_[kAhead][K];
  Scalar range_ = 0, total_ = 0, correction_ = 1;
};

// The probability of all paths, by one warp, from the closed states that the first walks have left.
template <class Element, class Scalar>
__device__ __forceinline__ Scaled<Lanes<Scalar>> meet(const Task<Element, Scalar>& q) {
  using X = Scaled<Lanes<Scalar>>;
  const auto before = q.states[0], after = q.states[1];
  const int e = q.stride + 1;
  X sum = X::zero();
  for (int j = lane_id(); j <= q.length; j += kWarp) {
    X into_b = after.load(j), into_e = after.load(e + j);  // of label j - 1
    transition(into_b, into_e, j < q.length ? after.load(e + j + 1) : X::zero(), may_skip(q.labels, j, q.length));
    sum = sum + before.load(j) * into_b;
    if (j > 0) sum = sum + before.load(e + j - 1) * into_e;
  }
  return normalize(reduce(sum));
}

// The sum over frames of the origins' log-probabilities, which emissions leave out; by one warp, for the frames of its
// direction's first walk.
template <class Element, class Scalar>
__device__ __forceinline__ double sum_origins(const Task<Element, Scalar>& q, bool forward) {
  const int begin = forward ? 0 : q.middle, end = forward ? q.middle : q.frames;
  double origins = 0, log2_sums = 0;
  for (int t = begin + lane_id(); t < end; t += kWarp) {
    origins += double(Origin<Element, Scalar>(q, Scalar(q.blank[t]) + Scalar(q.blank_bias), t).score);
    if (!q.max) continue;
    origins -= double(q.max[t]);
    log2_sums += double(q.log2_sum[t]);
  }
  return warp_sum(origins - kLn2 * log2_sums);
}

}  // namespace cuda
}  // namespace fastctc

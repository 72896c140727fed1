// The forward and backward recursions of one sample by the warps of one block. Half of them walk forward, half
// backward, at the same time, and they meet in the middle:
//
//          frame 0            middle            T
//   first    forward  ------->  |  <-------  backward     each keeps its closed label states;
//   second   backward <-------  |  ------->  forward      each goes on where the other has been: occupancies
//
// so that the latency is T frames, not 2 T. In between, the total probability P comes from the states on
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
// all paths is summed: it should be one. The states are corrected one segment later, when all warps have the sum. The
// gradient divides the occupancies by the sum, interpolated between the ends of a segment, which is left in place of
// the blank's scores.
#pragma once

#include "../../math/delay.h"
#include "lanes.h"
#include "walk_task.h"

namespace fastctc {
namespace cuda {

// The score that the emissions of a frame are relative to: the blank's, or 0 where the blank has probability 0.
template <class Scalar>
struct Origin {
  bool blank_is_zero;
  Scalar score;
  __device__ __forceinline__ explicit Origin(Scalar blank)
      : blank_is_zero(blank < Scalar(kZeroLog)), score(blank_is_zero ? Scalar(0) : blank) {}
};

// As transition() of recursion.h, with a shorter chain of dependent instructions: on a GPU that is what a frame takes.
template <class X>
__device__ __forceinline__ void open(X& b, X& e, X s, bool skip) {
  const X through = X::select(skip, s, X::zero());
  const X into_b = b + s;
  e = sum(e, b, through);
  b = into_b;
}

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
  // Frames that are loaded ahead: a frame takes about as many cycles as it has instructions, 120 K.
  static constexpr int kAhead = K == 1 ? 4 : 2;

 public:
  __device__ __forceinline__ Walk(const Task<Element, Scalar>& q, const Streams<Element, Scalar>& streams,
                                  Exchange<Scalar>& shared, int rank)
      : q_(q),
        streams_(streams),
        shared_(shared),
        rank_(rank),
        first_(kForward ? (kSecond ? q.middle : 0) : (kSecond ? q.middle : q.frames) - 1),
        count_(kForward == kSecond ? q.frames - q.middle : q.middle),
        length_(q.length),
        written_(kSecond  ? q.filled
                 : q.keep ? q.length
                          : 0),
        far_(q.far),
        score_step_(kForward ? q.stride_t : -q.stride_t),
        row_step_(kForward ? q.stride : -q.stride) {}

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
  __device__ __forceinline__ bool has_label(int c) const { return unsigned(label(c)) < unsigned(length_); }

  // Takes over the slots of a column: its labels, and its states, from where they were left.
  __device__ __forceinline__ void enter(int column, int segment, X factor) {
    slot0_ = (kForward ? column : q_.columns - 1 - column) * kColumn;
    const auto states = q_.states[kSide];
    const int k0 = segment * kSegment;
    const int64_t t = kForward ? first_ + k0 : first_ - k0;
    next_blank_ = streams_.blank + t;
    next_row_ = row_ = t * q_.stride + label(0);
#pragma unroll
    for (int c = 0; c < K; ++c) {
      const int j = slot(c), i = label(c);
      skip_[c] = may_skip(q_.labels, j, q_.length);
      const int64_t label = has_label(c) ? q_.labels[i] : 0;
      bool star = false;
      if constexpr (kOptions) {
        star = has_label(c) && label == q_.star;
        const Scalar bias = q_.bias && has_label(c) && !star ? Scalar(q_.bias[label]) : Scalar(0);
        bias_[c] = star ? Scalar(INFINITY) : bias < Scalar(INFINITY) ? bias : Scalar(NAN);
        b_tilt_[c] = exponential<W>(Scalar(q_.delay_penalty * j));
        e_tilt_[c] = exponential<W>(Scalar(q_.delay_penalty * (i + 1)));
      }
      next_score_[c] = streams_.input + t * q_.stride_t + (star ? 0 : label * q_.stride_c);
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
#pragma unroll
    for (int d = 0; d < kAhead; ++d) fetch(d, k0 + d);
  }

  __device__ __forceinline__ void leave() const {
    const auto states = q_.states[kSide];
#pragma unroll
    for (int c = 0; c < K; ++c) {
      if (slot(c) > length_) continue;
      states.store(slot(c), b_[c]);
      states.store(q_.stride + 1 + slot(c), e_[c]);
    }
  }

  // Loads for frame number k ahead, unless it is beyond the last; k goes up by one each time.
  __device__ __forceinline__ void fetch(int d, int k) {
    if (k < count_) {
      blanks_[d] = *next_blank_;
#pragma unroll
      for (int c = 0; c < K; ++c) {
        scores_[d][c] = *next_score_[c];
        if constexpr (kSecond) {
          const int64_t i = next_row_ + c * kWarp;
          kept_m_[d][c] = has_label(c) ? streams_.kept.m[i] : Stored(0);
          kept_e_[d][c] = has_label(c) ? streams_.kept.e[i] : Exponent(0);
        }
      }
    }
    if (!kSecond && k < count_ - far_) {
#pragma unroll
      for (int c = 0; c < K; ++c) prefetch(next_score_[c] + far_ * score_step_);
    }
    next_blank_ += kForward ? 1 : -1;
    next_row_ += row_step_;
#pragma unroll
    for (int c = 0; c < K; ++c) next_score_[c] += score_step_;
  }

  // The tile of frames from number k0 on.
  __device__ __forceinline__ void frames(int column, int k0, int parity) {
    using Side = Exchange<Scalar>;
    const int from = column == 0 ? Side::kWarps : rank_ > 0 ? rank_ - 1 : q_.warps - 1;
    const Scalar* const in_m = shared_.carry_m[kSide][from][parity ^ 1];
    const Scalar* const in_e = shared_.carry_e[kSide][from][parity ^ 1];
    Scalar* const out_m = shared_.carry_m[kSide][rank_][parity];
    Scalar* const out_e = shared_.carry_e[kSide][rank_][parity];
#pragma unroll 1
    for (int k = 0; k < kFrames; k += kAhead) {
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
        if (k0 + k + d >= count_) break;
        X carry = X::zero();
        if constexpr (K > 1) {  // with one label in each lane there is one column
          carry = {in_m[k + d], in_e[k + d]};
          W::template store_edge<D, K>(out_m + k + d, [&](int c) { return e_[c].m; });
          W::template store_edge<D, K>(out_e + k + d, [&](int c) { return e_[c].e; });
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
  // Long function: the order of its loads and sums decides how many cycles a frame takes.
  __device__ __forceinline__ void step(int d, int k, X carry) {
    Scalar blank = Scalar(blanks_[d]), any = 0;
    if constexpr (kOptions) {
      blank += Scalar(q_.blank_bias);
      const int t = kForward ? first_ + k : first_ - k;
      if (q_.star >= 0 && q_.max) any = Scalar(q_.max[t]) + Scalar(q_.log2_sum[t]) * Scalar(kLn2);
    }
    const Origin<Scalar> origin(blank);
    const Split<W> relative = split<W>(origin.score);
    X p[K], s[K];
#pragma unroll
    for (int c = 0; c < K; ++c) {
      Scalar x = Scalar(to_scalar(scores_[d][c]));
      if constexpr (kOptions) x = bias_[c] == Scalar(INFINITY) ? any : x + bias_[c];
      p[c] = emission<W>(has_label(c) ? x : Scalar(-INFINITY), relative);
      if constexpr (!kSecond) {
        const Scalar e = W::max(p[c].e, -p[c].e);
        range_ = W::max(range_, e < -Scalar(kZeroExponent) ? e : Scalar(0));
      }
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
    for (int c = 0; c < K; ++c) open(b_[c], e_[c], s[c], skip_[c]);
    if constexpr (kSecond) {
      Scalar occupancies[K];
#pragma unroll
      for (int c = 0; c < K; ++c) {
        occupancies[c] = (e_[c] * kept[c]).value();
        if (unsigned(label(c)) < unsigned(written_)) streams_.kept.m[row_ + c * kWarp] = Stored(occupancies[c]);
      }
      if (d == kAhead - 1 && measured(k)) {
#pragma unroll
        for (int c = 0; c < K; ++c) {
          if (slot(c) > length_) continue;
          const X other = q_.snapshots[1 - kSide].load(snapshot(k) + slot(c));
          total_ += occupancies[c] + (b_[c] * other).value();
        }
      }
    }
#pragma unroll
    for (int c = 0; c < K; ++c) {
      e_[c] = e_[c] * p[c];
      if constexpr (kOptions) b_[c] = b_[c] * b_tilt_[c];
      b_[c] = X::select(origin.blank_is_zero, X::zero(), b_[c]);
    }
    if constexpr (!kSecond) {
      const int other = count_ - 1 - k;  // the number of this frame on the other direction's second walk
#pragma unroll
      for (int c = 0; c < K; ++c) {
        if (unsigned(label(c)) < unsigned(written_)) streams_.kept.store(row_ + c * kWarp, e_[c]);
      }
      if (measured(other) && q_.keep) {
#pragma unroll
        for (int c = 0; c < K; ++c) {
          if (slot(c) <= length_) q_.snapshots[kSide].store(snapshot(other) + slot(c), b_[c]);
        }
      }
    }
    row_ += row_step_;
  }

  // Is this the last frame of a segment? Where the blanks of its snapshot are.
  static __device__ __forceinline__ bool measured(int k) { return unsigned(k) % kSegment == kSegment - 1; }
  __device__ __forceinline__ int64_t snapshot(int k) const { return int64_t(k / kSegment) * (q_.stride + 1); }

  // The total of this warp's columns at the end of a segment.
  __device__ __forceinline__ void publish(int segment) {
    const Scalar total = warp_sum(total_);
    if (lane_id() == 0) {
      shared_.totals[kSide][segment % kTotals][rank_] = total;
      q_.totals[kSide][segment].of_warp[rank_] = Stored(total);
    }
    total_ = 0;
    if (q_.warps == 1) __syncwarp();
  }
  // The total of segment - 2 has seen all corrections but that of segment - 1.
  __device__ __forceinline__ void correct(int segment) {
    if (segment >= 2) {
      Scalar total = 0;
      for (int w = 0; w < q_.warps; ++w) total += shared_.totals[kSide][(segment - 2) % kTotals][w];
      correction_ = 1 / (total * correction_);
    }
    if (rank_ == 0 && lane_id() == 0) q_.totals[kSide][segment].correction = Stored(correction_);
  }
  __device__ __forceinline__ void rescale() {
#pragma unroll
    for (int c = 0; c < K; ++c) {
      b_[c].m *= correction_;
      e_[c].m *= correction_;
    }
  }

  const Task<Element, Scalar>& q_;
  const Streams<Element, Scalar> streams_;
  Exchange<Scalar>& shared_;
  const int rank_, first_, count_;  // the frames of this walk: first_, and on in direction D
  const int length_;
  const int written_;  // labels whose states are kept, or whose occupancies are written
  const int far_;
  const int64_t score_step_, row_step_;
  int slot0_ = 0;
  X b_[K], e_[K];
  bool skip_[K];
  const Element* next_score_[K];  // of the frame that is loaded next, as all that is next
  const Stored* next_blank_;
  int64_t next_row_ = 0, row_ = 0;  // the place of the first register's label among the kept states
  Scalar bias_[K];                  // of the label; infinite for a star
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

// Writes the total of each frame, interpolated between the ends of its segment, in place of the blank's scores, which
// have been read. By all threads of a block, after the second walks, which `warps` warps in each direction have done.
template <class Element, class Scalar>
__device__ __forceinline__ void keep_totals(const Task<Element, Scalar>& q, typename ScalarOf<Element>::type* totals,
                                            int warps) {
  using Stored = typename ScalarOf<Element>::type;
  for (int t = int(threadIdx.x); t < q.frames; t += int(blockDim.x)) {
    const int side = t < q.middle, k = side ? q.middle - 1 - t : t - q.middle;
    const int count = side ? q.middle : q.frames - q.middle, segment = k / kSegment;
    const SegmentTotals<Scalar, Stored>* const of = q.totals[side] + segment;
    const Stored first = (segment > 0 ? of[-1].sum(warps) : Stored(1)) * of->correction;
    const Stored last = (segment + 1) * kSegment <= count ? of->sum(warps) : first;
    totals[t] = first + (last - first) * (Stored(k % kSegment + 1) / kSegment);
  }
}

// The sum over frames of the origins' log-probabilities, which emissions leave out; by one warp, for the frames of its
// direction's first walk.
template <class Element, class Scalar>
__device__ __forceinline__ double sum_origins(const Task<Element, Scalar>& q,
                                              const typename ScalarOf<Element>::type* blank, bool forward) {
  const int begin = forward ? 0 : q.middle, end = forward ? q.middle : q.frames;
  double origins = 0, log2_sums = 0;
  for (int t = begin + lane_id(); t < end; t += kWarp) {
    origins += double(Origin<Scalar>(Scalar(blank[t]) + Scalar(q.blank_bias)).score);
    if (!q.max) continue;
    origins -= double(q.max[t]);
    log2_sums += double(q.log2_sum[t]);
  }
  return warp_sum(origins - kLn2 * log2_sums);
}

}  // namespace cuda
}  // namespace fastctc

// The CTC forward and backward recursions (Graves et al., 2006, equations 6 to 11) on scaled floats, for a warp of
// lanes `W`. The loss on the CPU and the tangent on both machines run them. The loss on CUDA has a loop of its own in
// kernels/cuda/walk.h, which computes emissions as it goes.
//
// A block holds W::N * K consecutive slots in K registers. W chooses the lane and the register of each slot; load,
// store and neighbor keep this order. Slot j holds the states
//
//              b[j]         e[j]                          so that one transition serves both directions:
//   forward    blank j      label j                         b' = b + s            s = e[j-1] forward, e[j+1] backward
//   backward   blank j      label j - 1                     e' = e + b + [skip] s
//
// and skip, "label j differs from label j - 1", is the same. Backward, rows of labels are therefore read and written
// one place further left: slot 0 has no label, and reads a zero that precedes each row.
//
// Emissions are relative to the blank's of the same frame (see emission.h), so that blanks cost no multiplication. A
// frame is a transition and then its emissions: states are "open" between the two and "closed" after the second.
//
// Targets longer than one block are walked in tiles of kTile frames by one block of slots. A block hands the label
// states at its edge to its neighbor, one per frame, through `carries`:
//
//             frames 0..15   16..31             forward: down the column, then the next column
//   block 0   [ tile ]  ...  [ tile ]           backward: up the column, columns right to left
//                | carries
//   block 1   [ tile ]  ...
#pragma once

#include <cmath>
#include <cstdint>

#include "lattice.h"
#include "scaled_float.h"

#if defined(__CUDACC__)
#define FASTCTC_UNROLL _Pragma("unroll")
#elif defined(FASTCTC_EMULATED_CUDA)
#define FASTCTC_UNROLL
#else
#define FASTCTC_UNROLL _Pragma("GCC unroll 16")
#endif

namespace fastctc {

constexpr int kTile = 16;     // frames between two normalizations; also the frames of a tile
constexpr int kSegment = 64;  // frames between two snapshots

// What the two directions share of one sequence. X is the number type, P the number of slots: a multiple of W::N,
// larger than S.
template <class X>
struct Sequence {
  using Scalar = typename X::Warp::Scalar;
  using Memory = typename X::Memory;
  int64_t frames, length, slots;  // T, S, P of this sequence
  const uint8_t* skip;            // (P) may_skip
  const uint8_t* blank_is_zero;   // (T) frames in which the blank has probability 0; null if there are none
  Memory tilt;                    // (P) a factor of blank j in every frame; null if all are 1
  // Rows of P values; the first row is the one of frame `first`. One value before each row may be read, and is zero.
  int64_t first;
  Memory labels;      // emissions; zero from label S on
  Memory kept;        // closed label states of the other direction (or, with Keep::kStates, of this one)
  Scalar* occupancy;  // (T, occupancy_stride): P(label i emits frame t | target), rows from frame 0
  int64_t occupancy_stride;
  Memory carries;  // (blocks + 1, kTile): what blocks hand on
};

// The states of one direction between two frames.
template <class X>
struct States {
  typename X::Memory b, e;  // (P); one value before and one after e may be read, and are zero
};

enum class Keep { kNothing, kStates, kOccupancy };

// b[j] and e[j] open: the transition from closed states. `s` is the neighboring label.
template <class X>
FASTCTC_HD void transition(X& b, X& e, X s, typename X::Warp::M skip) {
  const X into_b = b + s;
  e = e + X::select(skip, into_b, b);
  b = into_b;
}

// A block of slots, from slot i0 on, on its way through frames [t0, t1) in direction D, frame after frame. It holds the
// sequence by value, so that no store could change it.
template <Direction D, Keep keep, class X, int K>
class Tile {
  using W = typename X::Warp;
  using Memory = typename X::Memory;
  static constexpr bool kForward = D == Direction::kForward;

 public:
  FASTCTC_HD Tile(const Sequence<X>& q, const States<X>& states, int64_t i0, int64_t t0, int64_t t1)
      : q_(q), states_(states), i0_(i0), label0_(kForward ? i0 : i0 - 1), t0_(t0), t1_(t1) {
    FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
      b_[c] = X::template load<K>(states.b + i0, c);
      e_[c] = X::template load<K>(states.e + i0, c);
      skip_[c] = W::template load_mask<K>(q.skip + i0, c);
      labels_[c] = W::template range<K>(c, -label0_, q.length - label0_);
    }
  }

  // The k-th frame. `in` and `out` hold one edge state a frame.
  FASTCTC_HD void step(int64_t k, Memory in = {}, Memory out = {}) {
    const int64_t t = kForward ? t0_ + k : t1_ - 1 - k, row = (t - q_.first) * q_.slots + label0_;
    const X carry = in ? X::broadcast(in + k) : X::zero();
    if (out) X::template store_edge<D, K>(out + k, e_);
    X s[K];
    FASTCTC_UNROLL for (int c = 0; c < K; ++c) s[c] = X::template neighbor<D, K>(e_, c, carry);
    FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
      transition(b_[c], e_[c], s[c], skip_[c]);
      if (keep == Keep::kOccupancy) {
        const auto p = (e_[c] * X::template load<K>(q_.kept + row, c)).probability();
        W::template store_masked<K>(q_.occupancy + t * q_.occupancy_stride + label0_, c, p, labels_[c]);
      }
      e_[c] = e_[c] * X::template load<K>(q_.labels + row, c);
      if (keep == Keep::kStates) e_[c].template store<K>(q_.kept + row, c);
    }
    if (q_.tilt) {
      FASTCTC_UNROLL for (int c = 0; c < K; ++c) b_[c] = b_[c] * X::template load<K>(q_.tilt + i0_, c);
    }
    if (q_.blank_is_zero && q_.blank_is_zero[t]) {
      FASTCTC_UNROLL for (int c = 0; c < K; ++c) b_[c] = X::zero();
    }
    if (k % kTile == kTile - 1 || k == t1_ - t0_ - 1) {
      FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
        b_[c] = normalize(b_[c]);
        e_[c] = normalize(e_[c]);
      }
    }
  }

  FASTCTC_HD void save() const {
    FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
      b_[c].template store<K>(states_.b + i0_, c);
      e_[c].template store<K>(states_.e + i0_, c);
    }
  }

 private:
  const Sequence<X> q_;
  const States<X> states_;
  const int64_t i0_, label0_;  // label0: the label of slot i0
  const int64_t t0_, t1_;
  X b_[K], e_[K];
  typename W::M skip_[K], labels_[K];
};

template <Direction D, Keep keep, class X, int K>
FASTCTC_HD void run_tile(const Sequence<X>& q, const States<X>& states, int64_t i0, int64_t t0, int64_t t1,
                         typename X::Memory in, typename X::Memory out) {
  Tile<D, keep, X, K> tile(q, states, i0, t0, t1);
  for (int64_t k = 0; k < t1 - t0; ++k) tile.step(k, in, out);
  tile.save();
}

// A sequence of one block in both directions at once: forward through [f0, f1), backward through [b0, b1). Neither
// depends on the other, so a processor with enough units does both at the same time.
template <Keep keep, class X, int K>
FASTCTC_HD void run_both(const Sequence<X>& q, const States<X>& forward, int64_t f0, int64_t f1,
                         const States<X>& backward, int64_t b0, int64_t b1) {
  Tile<Direction::kForward, keep, X, K> f(q, forward, 0, f0, f1);
  Tile<Direction::kBackward, keep, X, K> b(q, backward, 0, b0, b1);
  const int64_t both = f1 - f0 < b1 - b0 ? f1 - f0 : b1 - b0;
  for (int64_t k = 0; k < both; ++k) {
    f.step(k);
    b.step(k);
  }
  for (int64_t k = both; k < f1 - f0; ++k) f.step(k);
  for (int64_t k = both; k < b1 - b0; ++k) b.step(k);
  f.save();
  b.save();
}

// run_tile of a block of `registers` <= K registers.
template <Direction D, Keep keep, class X, int K>
FASTCTC_HD void run_block(int64_t registers, const Sequence<X>& q, const States<X>& states, int64_t i0, int64_t t0,
                          int64_t t1, typename X::Memory in, typename X::Memory out) {
  if constexpr (K > 1) {
    if (registers < K) return run_block<D, keep, X, K - 1>(registers, q, states, i0, t0, t1, in, out);
  }
  run_tile<D, keep, X, K>(q, states, i0, t0, t1, in, out);
}

// Frames [t0, t1) in direction D, in blocks of at most K registers. Tiles that no complete path crosses are left out:
// label i is reached at frame i at the earliest, and must be reached S - i frames before the end at the latest. A block
// is not left out, though, where a path is in it just before the tile: it hands its neighbor the state at its edge.
template <Direction D, Keep keep, class X, int K>
FASTCTC_HD void run(const Sequence<X>& q, const States<X>& states, int64_t t0, int64_t t1) {
  using W = typename X::Warp;
  using Memory = typename X::Memory;
  constexpr bool forward = D == Direction::kForward;
  constexpr int64_t block = int64_t(W::N) * K;
  const int64_t blocks = (q.slots + block - 1) / block, tile = blocks == 1 ? t1 - t0 : kTile;
  for (int64_t done = 0; done < t1 - t0; done += tile) {
    const int64_t left = t1 - t0 - done, count = tile < left ? tile : left;
    const int64_t from = forward ? t0 + done : t1 - done - count, to = from + count;
    for (int64_t k = 0; k < blocks; ++k) {
      const int64_t i0 = (forward ? k : blocks - 1 - k) * block;
      const int64_t size = q.slots - i0 < block ? q.slots - i0 : block;
      const Memory in = q.carries + k * kTile, out = in + kTile;
      if (i0 <= to + 1 && i0 + size >= q.length - (q.frames - from)) {
        run_block<D, keep, X, K>(size / W::N, q, states, i0, from, to, k > 0 ? in : Memory{},
                                 k + 1 < blocks ? out : Memory{});
      } else {
        X::fill_zero(out, kTile);
        const int64_t label0 = forward ? i0 : i0 - 1;
        if (keep == Keep::kStates) {
          for (int64_t t = from; t < to; ++t) X::fill_zero(q.kept + ((t - q.first) * q.slots + label0), size);
        }
        if (keep == Keep::kOccupancy) {
          const int64_t first = label0 < 0 ? 0 : label0;
          const int64_t last = label0 + size < q.length ? label0 + size : q.length;
          for (int64_t t = from; t < to; ++t) W::fill(q.occupancy + t * q.occupancy_stride + first, last - first, 0);
        }
      }
      W::sync();
    }
  }
}

// All states zero but blank j, which is the number at `value`.
template <class X>
FASTCTC_HD void start(const States<X>& states, int64_t slots, int64_t j, typename X::Memory value) {
  using W = typename X::Warp;
  W::sync();
  X::fill_zero(states.b, slots);
  X::fill_zero(states.e + -1, slots + 2);
  W::sync();
  X::copy(value, states.b + j, 1);
  W::sync();
}

// The probability of all paths that cross from one frame to the next, from the closed states on both sides: the same
// on every boundary but for rounding.
template <class X>
FASTCTC_HD X crossing(const Sequence<X>& q, const States<X>& before, const States<X>& after) {
  using W = typename X::Warp;
  X sum = X::zero();
  for (int64_t j = 0; j < q.slots; j += W::N) {
    X b = X::template load<1>(after.b + j, 0), e = X::template load<1>(after.e + j, 0);
    transition(b, e, X::template load<1>(after.e + (j + 1), 0), W::template load_mask<1>(q.skip + j, 0));
    sum = sum + X::template load<1>(before.b + j, 0) * b;
    sum = sum + X::template load<1>(before.e + (j - 1), 0) * e;
  }
  return normalize(reduce(sum));
}

// states *= factor
template <class X>
FASTCTC_HD void rescale(const Sequence<X>& q, const States<X>& states, X factor) {
  using W = typename X::Warp;
  for (int64_t j = 0; j < q.slots; j += W::N) {
    (X::template load<1>(states.b + j, 0) * factor).template store<1>(states.b + j, 0);
    (X::template load<1>(states.e + j, 0) * factor).template store<1>(states.e + j, 0);
  }
  W::sync();
}

// log2 of the probability of the paths that end in these forward states; minus infinity where there is none.
template <class X>
FASTCTC_HD double log2_probability(const Sequence<X>& q, const States<X>& states) {
  const int64_t S = q.length;
  const double b_m = states.b.m[S], b_e = states.b.e[S], e_m = states.e.m[S - 1], e_e = states.e.e[S - 1];
  const double top = b_e > e_e ? b_e : e_e;
  return top + std::log2(b_m * std::exp2(b_e - top) + e_m * std::exp2(e_e - top));
}

}  // namespace fastctc

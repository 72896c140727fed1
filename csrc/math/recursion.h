// The CTC forward and backward recursions (Graves et al., 2006, equations 6 to 11) on scaled floats, written once for a
// warp of lanes `W`.
//
// A block holds W::N * K consecutive labels in K registers; which label lives in which lane of which register c is W's
// choice, kept by load, store and neighbor. b[c] is the blank that precedes the labels of register c in the forward
// direction and the one that follows them in the backward direction; with that, one transition serves both:
//
//   b' = b + s            s = the neighbouring label: e[i-1] forward, e[i+1] backward
//   e' = e + b + [skip] s
//
// Targets longer than one block are walked in tiles of kTile frames by one block of labels. A block hands the label
// states at its edge to its neighbour, one per frame, through `Carries`:
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

enum class Direction { kForward, kBackward };

constexpr int kTile = 16;  // frames between two normalizations; also the frames of a tile

// An array of scaled floats as two planes.
template <class Scalar>
struct Plane {
  Scalar *m, *e;
  FASTCTC_HD Plane operator+(int64_t i) const { return {m + i, e + i}; }
};
template <class W, int K>
FASTCTC_HD Scaled<W> load(Plane<typename W::Scalar> p, int c) {
  return {W::template load<K>(p.m, c), W::template load<K>(p.e, c)};
}
template <class W, int K>
FASTCTC_HD void store(Plane<typename W::Scalar> p, int c, Scaled<W> x) {
  W::template store<K>(p.m, c, x.m);
  W::template store<K>(p.e, c, x.e);
}

template <class W>
FASTCTC_HD void transition(Scaled<W>& b, Scaled<W>& e, Scaled<W> s, typename W::M skip) {
  const Scaled<W> jump = {W::select(skip, s.m, W::set(0)), W::select(skip, s.e, W::set(kZeroExponent))};
  const auto b_max = W::max(b.e, s.e);
  const auto e_max = W::max(W::max(b.e, e.e), jump.e);
  const auto b_m = W::scale(b.m, b.e - b_max) + W::scale(s.m, s.e - b_max);
  const auto e_m = W::scale(e.m, e.e - e_max) + W::scale(b.m, b.e - e_max) + W::scale(jump.m, jump.e - e_max);
  b = {b_m, b_max};
  e = {e_m, e_max};
}

// All arrays of one sequence. P is the number of label slots: a multiple of the block size, larger than S.
template <class Scalar>
struct Sequence {
  int64_t frames, length, slots;         // T, S, P of this sequence
  Plane<Scalar> labels;                  // (T, P) emission of each label; zero beyond S
  Plane<Scalar> blank;                   // (T) emission of the blank
  const uint8_t *skip_into, *skip_from;  // (P) may_skip(i) and may_skip(i + 1)
  Plane<Scalar> alpha;                   // (T, P) forward label states with their emission; unused for the loss alone
  Plane<Scalar> state_b, state_e;        // (P) states between tiles
  Plane<Scalar> carries;                 // (P / block + 1, kTile) edge states
  Scalar* occupancy;                     // (T, occupancy_stride): P(label i emits frame t | target)
  int64_t occupancy_stride;
};

enum class Keep { kNothing, kAlpha, kOccupancy };

// Frames [t0, t1) of the block of labels that starts at label i0. `in` and `out` hold one edge state a frame.
template <Direction D, Keep keep, class W, int K>
FASTCTC_HD void run_tile(const Sequence<typename W::Scalar>& q, int64_t i0, int64_t t0, int64_t t1,
                         Plane<typename W::Scalar> in, Plane<typename W::Scalar> out) {
  constexpr bool forward = D == Direction::kForward;
  Scaled<W> b[K], e[K];
  typename W::M skip[K];
  FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
    b[c] = load<W, K>(q.state_b + i0, c);
    e[c] = load<W, K>(q.state_e + i0, c);
    skip[c] = W::template load_mask<K>((forward ? q.skip_into : q.skip_from) + i0, c);
  }
  for (int64_t k = 0; k < t1 - t0; ++k) {
    const int64_t t = forward ? t0 + k : t1 - 1 - k, row = t * q.slots + i0;
    const Scaled<W> carry = in.m ? Scaled<W>{W::set(in.m[k]), W::set(in.e[k])} : zero<W>();
    if (out.m) W::template store_edge<D, K>(out + k, e);
    Scaled<W> s[K];
    FASTCTC_UNROLL for (int c = 0; c < K; ++c) s[c] = W::template neighbor<D, K>(e, c, carry);
    const auto blank_m = W::set(q.blank.m[t]), blank_e = W::set(q.blank.e[t]);
    FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
      transition<W>(b[c], e[c], s[c], skip[c]);
      if (keep == Keep::kOccupancy) {
        const Scaled<W> a = load<W, K>(q.alpha + row, c);
        const auto p = W::min(W::scale(e[c].m * a.m, e[c].e + a.e), W::set(1));
        W::template store_first<K>(q.occupancy + t * q.occupancy_stride + i0, c, p, q.length - i0);
      }
      const Scaled<W> y = load<W, K>(q.labels + row, c);
      b[c] = {b[c].m * blank_m, b[c].e + blank_e};
      e[c] = {e[c].m * y.m, e[c].e + y.e};
      if (keep == Keep::kAlpha) store<W, K>(q.alpha + row, c, e[c]);
    }
    if (k % kTile == kTile - 1 || k == t1 - t0 - 1) {
      FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
        b[c] = normalize<W>(b[c]);
        e[c] = normalize<W>(e[c]);
      }
    }
  }
  FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
    store<W, K>(q.state_b + i0, c, b[c]);
    store<W, K>(q.state_e + i0, c, e[c]);
  }
}

template <class W>
FASTCTC_HD void fill_zero(Plane<typename W::Scalar> p, int64_t count) {
  W::fill(p.m, count, 0);
  W::fill(p.e, count, typename W::Scalar(kZeroExponent));
}

// All frames in direction D. Tiles that no complete path crosses are left out: label i is reached at frame i at the
// earliest, and must be reached S - i frames before the end at the latest.
template <Direction D, Keep keep, class W, int K>
FASTCTC_HD void run(const Sequence<typename W::Scalar>& q) {
  using Scalar = typename W::Scalar;
  constexpr bool forward = D == Direction::kForward;
  constexpr int64_t block = int64_t(W::N) * K;
  const int64_t blocks = q.slots / block, tile = blocks == 1 ? q.frames : kTile;
  const Plane<Scalar> none = {nullptr, nullptr};
  const int64_t tiles = q.frames == 0 ? 0 : (q.frames + tile - 1) / tile;
  for (int64_t j = 0; j < tiles; ++j) {
    const int64_t t0 = (forward ? j : tiles - 1 - j) * tile, t1 = t0 + tile < q.frames ? t0 + tile : q.frames;
    for (int64_t k = 0; k < blocks; ++k) {
      const int64_t n = forward ? k : blocks - 1 - k, i0 = n * block;
      const Plane<Scalar> in = q.carries + k * kTile, out = in + kTile;
      if (i0 <= t1 && i0 + block > q.length - (q.frames - t0)) {
        run_tile<D, keep, W, K>(q, i0, t0, t1, k > 0 ? in : none, k + 1 < blocks ? out : none);
      } else {
        fill_zero<W>(out, kTile);
        if (keep == Keep::kOccupancy) {
          for (int64_t t = t0; t < t1; ++t) {
            const int64_t rest = q.length - i0 < block ? q.length - i0 : block;
            W::fill(q.occupancy + t * q.occupancy_stride + i0, rest, 0);
          }
        }
      }
      W::sync();
    }
  }
}

// All states zero but blank i, which is m * 2^e.
template <class W>
FASTCTC_HD void start(const Sequence<typename W::Scalar>& q, int64_t i, typename W::Scalar m, typename W::Scalar e) {
  W::sync();
  fill_zero<W>(q.state_b, q.slots);
  fill_zero<W>(q.state_e, q.slots);
  W::sync();
  W::fill(q.state_b.m + i, 1, m);
  W::fill(q.state_b.e + i, 1, e);
  W::sync();
}

// log2 of P(target | input); minus infinity where no path exists.
template <class Scalar>
FASTCTC_HD double log2_probability(const Sequence<Scalar>& q) {
  const int64_t S = q.length;
  const double b_m = q.state_b.m[S], b_e = q.state_b.e[S];
  const double e_m = S > 0 ? q.state_e.m[S - 1] : Scalar(0), e_e = S > 0 ? q.state_e.e[S - 1] : Scalar(kZeroExponent);
  const double top = b_e > e_e ? b_e : e_e;
  return top + std::log2(b_m * std::exp2(b_e - top) + e_m * std::exp2(e_e - top));
}

// The whole of one sequence: returns log2 P(target | input) and, if asked, fills the occupancies of its frames.
template <class W, int K>
FASTCTC_HD double forward_backward(const Sequence<typename W::Scalar>& q, bool occupancies) {
  using Scalar = typename W::Scalar;
  start<W>(q, 0, 1, 0);
  if (!occupancies) {
    run<Direction::kForward, Keep::kNothing, W, K>(q);
    return log2_probability(q);
  }
  run<Direction::kForward, Keep::kAlpha, W, K>(q);
  const double log2_p = log2_probability(q);
  if (q.length == 0) return log2_p;
  if (log2_p > -INFINITY) {
    const double n = std::floor(log2_p);
    start<W>(q, q.length - 1, Scalar(std::exp2(n - log2_p)), Scalar(-n));
    run<Direction::kBackward, Keep::kOccupancy, W, K>(q);
  } else {
    for (int64_t t = 0; t < q.frames; ++t) W::fill(q.occupancy + t * q.occupancy_stride, q.length, 0);
  }
  return log2_p;
}

}  // namespace fastctc

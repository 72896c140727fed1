// The forward recursion of an alignment by the warps of one block: forced_align.cu.
//
// The scores of a frame are needed every 150 cycles or so, and a load takes up to 700. So they are loaded in batches:
// the loads of a batch are under way while the frames of the one before are worked on.
//
//   fetch     batch 1         batch 2         batch 3         into registers, as they are in memory
//   receive          batch 1         batch 2                  as log-probabilities; what all lanes need, in shared
//   memory frames    batch 0         batch 1         batch 2
#pragma once

#include "../../math/viterbi.h"
#include "../forced_align.h"
#include "../workspace.h"
#include "lanes.h"
#include "targets.h"

namespace fastctc {
namespace cuda {

constexpr int kMaxAlignWarps = 8;
constexpr int kFrames = int(kAlignTile);  // of a tile
constexpr int kBatch = 8;                 // frames whose scores are loaded together

// The bits of 32 slots in one frame.
struct alignas(8) Bits {
  uint32_t from_label, moved;
};

// Of the batch; strides in elements of one sample.
struct AlignWorkspace {
  int64_t* offsets;      // of target_offsets
  double* denominators;  // (N, T) of logits
  double* states;        // (N, snapshots, 2, slots)
  double* carries;       // (N, 2, segment): what a strip hands to the next
  Bits* bits;            // (N, frames that are kept, groups of 32 slots)
  bool whole;            // are the bits of all frames kept, or of one segment?
  int64_t segment, slots, snapshots, rows, groups;
  size_t size;

  AlignWorkspace(void* base, const ForcedAlignParams& p, int column) {
    const CtcLossParams& q = p.loss;
    Workspace w(base);
    segment = alignment_segment(p);
    const int64_t columns = q.max_length / column + 1, across = segment / column + 2;
    slots = columns * column;
    whole = q.batch * q.frames * (slots / kWarp) * int64_t(sizeof(Bits)) <= p.kept_bytes;
    snapshots = whole ? 2 : (q.frames + segment - 1) / segment + 1;
    rows = whole ? q.frames : segment;
    groups = (whole || columns < across ? columns : across) * (column / kWarp);
    offsets = w.take<int64_t>(target_offsets_count(q));
    denominators = w.take<double>(q.from_logits ? q.batch * q.frames : 0);
    states = w.take<double>(q.batch * snapshots * 2 * slots);
    carries = w.take<double>(q.batch * 2 * segment);
    bits = w.take<Bits>(q.batch * rows * groups);
    size = w.size();
  }
};

// What the threads of a block share of their sample.
template <class Element>
struct AlignTask {
  using Scalar = typename ScalarOf<Element>::type;
  const Element* input;  // (T, C)
  DType dtype;
  int64_t stride_t, stride_c, blank, star;
  int64_t frames, length;
  const int64_t* labels;
  const double* denominators;  // (T); null for log-probabilities
  double *states, *carries;    // of AlignWorkspace
  Bits* bits;
  int64_t state_size, groups, carry_size;

  __device__ __forceinline__ AlignTask(const ForcedAlignParams& p, const AlignWorkspace& w, int64_t n, int64_t offset)
      : input(row_of<Element>(p.loss, 0, n)),
        dtype(p.loss.dtype),
        stride_t(p.loss.stride_t),
        stride_c(p.loss.stride_c),
        blank(p.loss.blank),
        star(p.loss.star),
        frames(p.loss.input_lengths[n]),
        length(p.loss.target_lengths[n]),
        labels(p.loss.targets + offset),
        denominators(p.loss.from_logits ? w.denominators + n * p.loss.frames : nullptr),
        states(w.states + n * w.snapshots * 2 * w.slots),
        carries(w.carries + n * 2 * w.segment),
        bits(w.bits + n * w.rows * w.groups),
        state_size(2 * w.slots),
        groups(w.groups),
        carry_size(w.segment) {}

  // The log-probability, from the score that was read.
  __device__ __forceinline__ Scalar log_prob(Element x, double denominator) const {
    return Scalar(double(to_scalar(x)) - denominator);
  }
  __device__ __forceinline__ Scalar score(int64_t t, int64_t label) const {
    if (label == star) return 0;
    return log_prob(input[t * stride_t + label * stride_c], denominators ? denominators[t] : 0);
  }
};

// What the warps exchange.
struct AlignExchange {
  static constexpr int kNone = kMaxAlignWarps, kStrip = kNone + 1;
  // Of each warp, what it hands to the next; then what the first column receives, and the first column of a strip.
  double carries[kMaxAlignWarps + 2][2][kFrames];
  struct Frame {
    double blank, denominator;
  } frames[kMaxAlignWarps][kBatch];  // of the batch of each warp
  Place place;
};

// Frames [t0, t1) in columns [first, last], from the states at `from` to those at `to`.
struct Stretch {
  int64_t t0, t1, first, last;
  const double* from;
  double* to;  // null: they are not needed
  Bits* bits;  // (t1 - t0, groups) from column `first` on; null: not needed
};

// One warp with the K slots of each of its lanes. With one slot in each lane there is one column.
template <class Element, int K>
class AlignWalk {
  using Scalar = typename ScalarOf<Element>::type;
  using W = Lanes<double>;
  static constexpr int kColumn = kWarp * K;

 public:
  __device__ __forceinline__ AlignWalk(const AlignTask<Element>& q, AlignExchange& shared) : q_(q), shared_(shared) {
    for (int i = int(threadIdx.x); i < 2 * kFrames; i += int(blockDim.x)) {
      shared.carries[AlignExchange::kNone][i / kFrames][i % kFrames] = -double(INFINITY);
    }
    __syncthreads();
  }

  // By all threads of a block.
  __device__ __forceinline__ void run(const Stretch& s) {
    const int warps = int(blockDim.x) / kWarp, warp = warp_id();
    const int tiles = int((s.t1 - s.t0 + kFrames - 1) / kFrames);
    int strip = 0;
    for (int64_t column = s.first + warp; column - warp <= s.last; column += warps, ++strip) {
      const bool works = column <= s.last;
      if (works) enter(s, column, strip);
      for (int step = 0; step < tiles + warps - 1; ++step) {
        const int i = step - warp;
        if (works && i >= 0 && i < tiles) tile(s, column, strip, i);
        __syncthreads();
      }
      if (works && s.to) leave(s, column);
    }
    __syncthreads();
  }
  // Was there a score that is NaN or +inf?
  __device__ __forceinline__ bool not_finite() const { return zero_ != 0; }

 private:
  __device__ __forceinline__ void enter(const Stretch& s, int64_t column, int strip) {
    next_frame_ = s.t0;
#pragma unroll
    for (int c = 0; c < K; ++c) {
      const int64_t j = column * kColumn + c * kWarp + lane_id();
      b_[c] = s.from[j];
      e_[c] = s.from[q_.state_size / 2 + j];
      skip_[c] = may_skip(q_.labels, j, q_.length);
      // Nothing comes back from slots beyond the last label, so any score will do there.
      const int64_t label = j < q_.length ? q_.labels[j] : q_.blank;
      star_[c] = label == q_.star;
      next_[c] = q_.input + s.t0 * q_.stride_t + (star_[c] ? q_.blank : label) * q_.stride_c;
    }
    fetch(s.t1);
    fetch_carries(strip, 0);
  }
  __device__ __forceinline__ void leave(const Stretch& s, int64_t column) const {
#pragma unroll
    for (int c = 0; c < K; ++c) {
      const int64_t j = column * kColumn + c * kWarp + lane_id();
      s.to[j] = b_[c];
      s.to[q_.state_size / 2 + j] = e_[c];
    }
  }

  // What the last strip has handed on for a tile, by the first warp.
  __device__ __forceinline__ void fetch_carries(int strip, int64_t k0) {
    if (K == 1 || strip == 0 || warp_id() > 0) return;
    const int64_t k = k0 + lane_id() % kFrames;
    carry_ = q_.carries[(strip & 1 ? 0 : q_.carry_size) + (k < q_.carry_size ? k : 0)];
  }
  // Starts to load the scores of the next batch. Beyond the last frame it loads that frame again.
  __device__ __forceinline__ void fetch(int64_t end) {
    const int left = end - next_frame_ > kBatch ? kBatch + 1 : int(end - next_frame_), k = lane_id() % kBatch;
    const int64_t t = next_frame_ + (k < left ? k : left - 1);
    blank_ = q_.input[t * q_.stride_t + q_.blank * q_.stride_c];
    denominator_ = q_.denominators ? q_.denominators[t] : 0;
#pragma unroll
    for (int f = 0; f < kBatch; ++f) {
      const int64_t step = f + 1 < left ? q_.stride_t : 0;
#pragma unroll
      for (int c = 0; c < K; ++c) {
        loaded_[f][c] = *next_[c];
        next_[c] += step;
      }
    }
    next_frame_ += left - 1;
  }
  // As path_score() of viterbi.h.
  __device__ __forceinline__ double path_score(Element loaded, double denominator) {
    const Scalar x = q_.log_prob(loaded, denominator);
    const bool masked = x < Scalar(kZeroLog);
    zero_ += (masked ? Scalar(0) : x) * Scalar(0);
    return masked ? -double(INFINITY) : double(x);
  }
  // Makes log-probabilities of the scores that were loaded.
  __device__ __forceinline__ void receive() {
    AlignExchange::Frame* const frames = shared_.frames[warp_id()];
    const double blank = path_score(blank_, denominator_);
    __syncwarp();  // the last batch has been read
    if (lane_id() < kBatch) frames[lane_id()] = {blank, denominator_};
    __syncwarp();
#pragma unroll
    for (int f = 0; f < kBatch; ++f) {
#pragma unroll
      for (int c = 0; c < K; ++c) {
        const double score = path_score(loaded_[f][c], frames[f].denominator);
        scores_[f][c] = star_[c] ? 0 : score;
      }
    }
  }

  __device__ __forceinline__ void tile(const Stretch& s, int64_t column, int strip, int i) {
    const int warps = int(blockDim.x) / kWarp, warp = warp_id(), parity = i & 1;
    const int64_t k0 = int64_t(i) * kFrames;
    const int from = column == s.first ? AlignExchange::kNone : warp > 0 ? warp - 1 : AlignExchange::kStrip;
    if (K > 1 && from == AlignExchange::kStrip) {
      if (lane_id() < kFrames) shared_.carries[from][parity][lane_id()] = carry_;
      fetch_carries(strip, k0 + kFrames);
      __syncwarp();
    }
    const double* const in = shared_.carries[from][parity];
    double* const out = shared_.carries[warp][parity];
    Bits* const bits = s.bits ? s.bits + k0 * q_.groups + (column - s.first) * K : nullptr;
    const int64_t left = s.t1 - s.t0 - k0;
#pragma unroll 1
    for (int k = 0; k < kFrames && k < left; k += kBatch) {
      receive();
      fetch(s.t1);
      if (left - k < kBatch) {
        batch<false>(in + k, out + k, int(left - k));
      } else {
        batch<true>(in + k, out + k, kBatch);
      }
      if (bits && lane_id() < kBatch && lane_id() < left - k) {
#pragma unroll
        for (int c = 0; c < K; ++c) bits[(k + lane_id()) * q_.groups + c] = bits_[c];
      }
    }
    if (K > 1 && warp == warps - 1 && column < s.last) {
      __syncwarp();
      if (lane_id() < kFrames && lane_id() < left) {
        q_.carries[(strip & 1 ? q_.carry_size : 0) + k0 + lane_id()] = out[lane_id()];
      }
    }
  }

  // The frames of a batch; kWhole: all of them. Lane f keeps the bits of frame f.
  template <bool kWhole>
  __device__ __forceinline__ void batch(const double* in, double* out, int count) {
#pragma unroll
    for (int f = 0; f < kBatch; ++f) {
      if (!kWhole && f >= count) break;
      double carry = -double(INFINITY);
      if constexpr (K > 1) {
        carry = in[f];
        W::template store_edge<Direction::kForward, K>(out + f, [&](int c) { return e_[c]; });
      }
      const double blank = shared_.frames[warp_id()][f].blank;
      double s[K];
#pragma unroll
      for (int c = 0; c < K; ++c) {
        s[c] = W::template neighbor<Direction::kForward, K>(c, carry, [&](int k) { return e_[k]; });
      }
#pragma unroll
      for (int c = 0; c < K; ++c) {
        const Arrivals<W> arrivals = best_transition<W>(b_[c], e_[c], s[c], skip_[c]);
        b_[c] += blank;
        e_[c] += scores_[f][c];
        const Bits word = {__ballot_sync(kFullWarp, arrivals.from_label), __ballot_sync(kFullWarp, arrivals.moved)};
        if (lane_id() == f) bits_[c] = word;
      }
    }
  }

  const AlignTask<Element>& q_;
  AlignExchange& shared_;
  double b_[K], e_[K];
  bool skip_[K], star_[K];
  const Element* next_[K];  // the label's score in the frame that is loaded next
  int64_t next_frame_ = 0;
  // Loaded: the score of the blank and the denominator of the frame of this lane, and the scores of the labels.
  Element blank_, loaded_[kBatch][K];
  double denominator_, carry_;
  double scores_[kBatch][K];
  Bits bits_[K];
  Scalar zero_ = 0;  // NaN once a score is NaN or +inf
};

}  // namespace cuda
}  // namespace fastctc

// Forced alignment on CUDA:
//
//   inspect       a block per sample: checks lengths and labels
//   denominators  a warp per row of logits
//   align         a block per sample: the recursion, then the way back
//
// The slots are walked in columns of one warp's width, each warp a tile of frames behind the one before it, which hands
// on the label states at its edge. With more columns than warps they go in strips through a segment of frames:
//
//             tile 0    tile 1    ...  of a segment      step:  warp 0    0 1 2 3
//   column 0  [      ]  [      ]                                warp 1      1 2 3 4
//              | carries |                                      warp 2        2 3 4 5
//   column 1  [      ]  [      ]
//
// Back, a warp goes 32 frames at a time: each lane fetches the bits of one frame for the 32 slots that the path can be
// in then, and passes them on when it is their turn.
#include "../forced_align.h"

#include "../../math/viterbi.h"
#include "../workspace.h"
#include "denominator.h"
#include "targets.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int kMaxAlignWarps = 8;
constexpr int kFrames = int(kAlignTile);  // of a tile
constexpr int kAhead = 4;                 // frames whose scores are loaded ahead

// The bits of 32 slots in one frame.
struct alignas(8) Bits {
  uint32_t from_label, moved;
};

// Of the batch; strides in elements of one sample.
struct AlignWorkspace {
  int64_t* offsets;      // (N) of concatenated targets
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

// Slots of a column: one in each lane for short targets, else two.
int column_of(const ForcedAlignParams& p) { return p.loss.max_length < kWarp ? kWarp : 2 * kWarp; }

// The logarithms of the softmax denominators; NaN where all classes are at -inf.
template <class Element>
__global__ void __launch_bounds__(kRowThreads) denominators(CtcLossParams p, double* out) {
  using Scalar = typename ScalarOf<Element>::type;
  using T = RowTeam<1>;
  using W = Lanes<Scalar>;
  for (int64_t r = T::first_row(); r < p.batch * p.frames; r += T::row_step()) {
    const Frame frame(r, p.frames, p.batch, p.stride_t >= p.stride_n);
    if (p.status[frame.n] != kOk || frame.t >= p.input_lengths[frame.n]) continue;
    const Element* const x = row_of<Element>(p, frame.t, frame.n);
    const Row<const Element> row(x, p.stride_c, p.classes);
    Scalar max = Scalar(-INFINITY);
#pragma unroll 4
    for (int64_t c = lane_id(); c < p.classes; c += kWarp) max = W::max(max, to_scalar(x[c * p.stride_c]));
    max = T::reduce(max, static_cast<Scalar*>(nullptr), [](Scalar a, Scalar b) { return W::max(a, b); });
    const Scalar sum = softmax_sum<1, 0>(row, max, static_cast<Scalar*>(nullptr));
    if (lane_id() == 0) {
      const double log_sum = sum == 0 ? double(NAN) : log_of<Lanes<double>>(double(sum));
      out[frame.n * p.frames + frame.t] = double(max) + log_sum;
    }
  }
}

// Runs once a sample is inspected. The status is all that the alignment reads.
struct NothingMore {
  __device__ __forceinline__ void operator()(const CtcLossParams&, int64_t, Status) const {}
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

  __device__ __forceinline__ AlignTask(const ForcedAlignParams& p, const AlignWorkspace& w, int64_t n)
      : input(row_of<Element>(p.loss, 0, n)),
        dtype(p.loss.dtype),
        stride_t(p.loss.stride_t),
        stride_c(p.loss.stride_c),
        blank(p.loss.blank),
        star(p.loss.star),
        frames(p.loss.input_lengths[n]),
        length(p.loss.target_lengths[n]),
        labels(p.loss.targets + target_offset(p.loss, n)),
        denominators(p.loss.from_logits ? w.denominators + n * p.loss.frames : nullptr),
        states(w.states + n * w.snapshots * 2 * w.slots),
        carries(w.carries + n * 2 * w.segment),
        bits(w.bits + n * w.rows * w.groups),
        state_size(2 * w.slots),
        groups(w.groups),
        carry_size(w.segment) {}

  // The log-probability, from the score that was read.
  __device__ __forceinline__ Scalar log_prob(Element x, double denominator) const {
    return denominators ? Scalar(double(to_scalar(x)) - denominator) : to_scalar(x);
  }
  __device__ __forceinline__ Scalar score(int64_t t, int64_t label) const {
    if (label == star) return 0;
    return log_prob(input[t * stride_t + label * stride_c], denominators ? denominators[t] : 0);
  }
};

struct AlignExchange {
  double carries[kMaxAlignWarps][2][kFrames];
  Place place;
};

// Frames [t0, t1) in columns [first, last], from the states at `from` to those at `to`.
struct Stretch {
  int64_t t0, t1, first, last;
  const double* from;
  double* to;  // null: they are not needed
  Bits* bits;  // (t1 - t0, groups) from column `first` on; null: not needed
};

// One warp with the K slots of each of its lanes.
template <class Element, int K>
class AlignWalk {
  using Scalar = typename ScalarOf<Element>::type;
  using W = Lanes<double>;
  static constexpr int kColumn = kWarp * K;

 public:
  __device__ __forceinline__ AlignWalk(const AlignTask<Element>& q, AlignExchange& shared) : q_(q), shared_(shared) {}

  // By all threads of a block.
  __device__ __forceinline__ void run(const Stretch& s) {
    const int warps = int(blockDim.x) / kWarp, warp = warp_id();
    const int tiles = int((s.t1 - s.t0 + kFrames - 1) / kFrames);
    int strip = 0;
    for (int64_t column = s.first + warp; column - warp <= s.last; column += warps, ++strip) {
      const bool works = column <= s.last;
      if (works) enter(s, column);
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
  __device__ __forceinline__ bool not_finite() const { return not_finite_; }

 private:
  __device__ __forceinline__ void enter(const Stretch& s, int64_t column) {
    next_ = q_.input + s.t0 * q_.stride_t;
    next_frame_ = s.t0;
#pragma unroll
    for (int c = 0; c < K; ++c) {
      const int64_t j = column * kColumn + c * kWarp + lane_id();
      b_[c] = s.from[j];
      e_[c] = s.from[q_.state_size / 2 + j];
      skip_[c] = may_skip(q_.labels, j, q_.length);
      exists_[c] = j < q_.length;
      star_[c] = exists_[c] && q_.labels[j] == q_.star;
      place_[c] = exists_[c] && !star_[c] ? q_.labels[j] * q_.stride_c : 0;
    }
#pragma unroll
    for (int d = 0; d < kAhead; ++d) fetch(d, s.t1);
  }
  __device__ __forceinline__ void leave(const Stretch& s, int64_t column) const {
#pragma unroll
    for (int c = 0; c < K; ++c) {
      const int64_t j = column * kColumn + c * kWarp + lane_id();
      s.to[j] = b_[c];
      s.to[q_.state_size / 2 + j] = e_[c];
    }
  }

  __device__ __forceinline__ void fetch(int d, int64_t end) {
    if (next_frame_ < end) {
      blanks_[d] = next_[q_.blank * q_.stride_c];
      denominators_[d] = q_.denominators ? q_.denominators[next_frame_] : 0;
#pragma unroll
      for (int c = 0; c < K; ++c) scores_[d][c] = next_[place_[c]];
    }
    next_ += q_.stride_t;
    ++next_frame_;
  }

  __device__ __forceinline__ void tile(const Stretch& s, int64_t column, int strip, int i) {
    const int warps = int(blockDim.x) / kWarp, warp = warp_id();
    const int64_t k0 = int64_t(i) * kFrames;
    const double* in = warp > 0 ? shared_.carries[warp - 1][i & 1] : q_.carries + (strip & 1 ? 0 : q_.carry_size) + k0;
    double* const out =
        warp < warps - 1 ? shared_.carries[warp][i & 1] : q_.carries + (strip & 1 ? q_.carry_size : 0) + k0;
    if (column == s.first) in = nullptr;
    Bits* bits = s.bits ? s.bits + k0 * q_.groups + (column - s.first) * K : nullptr;
#pragma unroll 1
    for (int k = 0; k < kFrames; k += kAhead) {
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
        if (s.t0 + k0 + k + d >= s.t1) break;
        const double carry = in ? in[k + d] : -double(INFINITY);
        W::template store_edge<Direction::kForward, K>(out + k + d, [&](int c) { return e_[c]; });
        frame(d, carry, bits);
        if (bits) bits += q_.groups;
        fetch(d, s.t1);
      }
    }
  }

  // The frame whose scores are in place d of those loaded ahead.
  __device__ __forceinline__ void frame(int d, double carry, Bits* bits) {
    const Scalar blank = q_.log_prob(blanks_[d], denominators_[d]);
    not_finite_ |= !(blank < Scalar(INFINITY));
    double s[K];
#pragma unroll
    for (int c = 0; c < K; ++c) {
      s[c] = W::template neighbor<Direction::kForward, K>(c, carry, [&](int k) { return e_[k]; });
    }
#pragma unroll
    for (int c = 0; c < K; ++c) {
      Scalar x = q_.log_prob(scores_[d][c], denominators_[d]);
      x = star_[c] ? Scalar(0) : exists_[c] ? x : Scalar(-INFINITY);
      not_finite_ |= !(x < Scalar(INFINITY));
      const Arrivals<W> arrivals = best_transition<W>(b_[c], e_[c], s[c], skip_[c]);
      b_[c] += path_score(blank);
      e_[c] += path_score(x);
      if (bits) {
        const Bits word = {__ballot_sync(kFullWarp, arrivals.from_label), __ballot_sync(kFullWarp, arrivals.moved)};
        if (lane_id() == c) bits[c] = word;
      }
    }
  }

  const AlignTask<Element>& q_;
  AlignExchange& shared_;
  double b_[K], e_[K];
  bool skip_[K], exists_[K], star_[K];
  int64_t place_[K];     // of the label's score in a frame
  const Element* next_;  // the frame that is loaded next
  int64_t next_frame_ = 0;
  Element blanks_[kAhead], scores_[kAhead][K];
  double denominators_[kAhead];
  bool not_finite_ = false;
};

// The 32 bits of slots first..first + 31, from two words.
__device__ __forceinline__ uint32_t window(uint32_t low, uint32_t high, int shift) {
  return uint32_t((uint64_t(high) << 32 | low) >> shift);
}

// One warp: the path in frames [t0, t1), which is at `place` in the last of them. Returns where it is before the first.
template <class Element, class Scalar>
__device__ __forceinline__ Place trace(const AlignTask<Element>& q, const Bits* bits, int64_t first_group, int64_t t0,
                                       int64_t t1, Place place, int64_t* path, Scalar* scores) {
  for (int64_t end = t1; end > t0; end -= kWarp) {
    const int64_t t = end - 1 - lane_id();
    // Slots first..first + 31, of which the last is the one where the path is now.
    const int64_t first = place.slot - (kWarp - 1), group = (first < 0 ? first - (kWarp - 1) : first) / kWarp;
    const int shift = int(first - group * kWarp);
    const bool may = may_skip(q.labels, first + lane_id(), q.length);
    const uint32_t skip = __ballot_sync(kFullWarp, may);
    uint32_t from_label = 0, moved = 0;
    if (t >= t0) {
      const Bits* const row = bits + (t - t0) * q.groups - first_group;
      const Bits low = group >= first_group ? row[group] : Bits{0, 0};
      const Bits high = shift > 0 ? row[group + 1] : Bits{0, 0};
      from_label = window(low.from_label, high.from_label, shift);
      moved = window(low.moved, high.moved, shift);
    }
    Place mine = place;
    const int count = end - t0 < kWarp ? int(end - t0) : kWarp;
    for (int k = 0; k < count; ++k) {
      if (lane_id() == k) mine = place;
      const int bit = int(place.slot - first);
      const uint32_t f = from_lane(from_label, k), m = from_lane(moved, k);
      place = previous_place(place, f >> bit & 1, m >> bit & 1, skip >> bit & 1);
    }
    if (t >= t0) {
      const int64_t label = mine.is_label ? q.labels[mine.slot] : q.blank;
      path[t] = label;
      scores[t] = returned_score(q.score(t, label), q.dtype);
    }
  }
  return place;
}

// The outputs of a sample from frame t0 on, where there is no path.
template <class Scalar>
__device__ __forceinline__ void fill(const ForcedAlignParams& p, int64_t n, int64_t t0, int status) {
  const Scalar value = status == kOk ? Scalar(0) : status == kInfeasible ? Scalar(-INFINITY) : Scalar(NAN);
  for (int64_t t = t0 + threadIdx.x; t < p.loss.frames; t += blockDim.x) {
    p.paths[n * p.loss.frames + t] = p.loss.blank;
    static_cast<Scalar*>(p.scores)[n * p.loss.frames + t] = value;
  }
}

template <class Element, int K>
__global__ void __launch_bounds__(kMaxAlignWarps* kWarp) align(ForcedAlignParams p, AlignWorkspace w) {
  using Scalar = typename ScalarOf<Element>::type;
  constexpr int kColumn = kWarp * K;
  const int64_t n = blockIdx.x;
  int status = p.loss.status[n];
  if (status != kOk) return fill<Scalar>(p, n, 0, status);
  FASTCTC_SHARED_ARRAY(AlignExchange, shared_array, [1]);
  AlignExchange& shared = shared_array[0];
  const AlignTask<Element> q(p, w, n);
  const int64_t last_column = q.length / kColumn, segments = (q.frames + w.segment - 1) / w.segment;
  const auto states = [&](int64_t s) { return q.states + (w.whole ? s & 1 : s) * q.state_size; };
  const auto end_of = [&](int64_t s) { return (s + 1) * w.segment < q.frames ? (s + 1) * w.segment : q.frames; };
  for (int64_t i = threadIdx.x; i < q.state_size; i += blockDim.x) states(0)[i] = i == 0 ? 0 : -double(INFINITY);
  __syncthreads();
  AlignWalk<Element, K> walk(q, shared);
  for (int64_t s = 0; s < segments; ++s) {
    Bits* const bits = w.whole ? q.bits + s * w.segment * q.groups : nullptr;
    walk.run({s * w.segment, end_of(s), 0, last_column, states(s), states(s + 1), bits});
  }
  const double last_blank = states(segments)[q.length];
  const double last_label = q.length > 0 ? states(segments)[q.state_size / 2 + q.length - 1] : -double(INFINITY);
  const bool nan = __syncthreads_or(walk.not_finite());
  const bool none = !(last_blank > -double(INFINITY)) && !(last_label > -double(INFINITY));
  status = nan ? kNotANumber : none ? kInfeasible : kOk;
  if (threadIdx.x == 0) p.loss.status[n] = status;
  fill<Scalar>(p, n, status == kOk ? q.frames : 0, status);
  if (status != kOk) return;

  int64_t* const path = p.paths + n * p.loss.frames;
  Scalar* const scores = static_cast<Scalar*>(p.scores) + n * p.loss.frames;
  Place place = best_end(last_blank, last_label, q.length);
  if (w.whole) {
    if (warp_id() == 0) trace(q, q.bits, 0, 0, q.frames, place, path, scores);
    return;
  }
  for (int64_t s = segments - 1; s >= 0; --s) {
    const int64_t t0 = s * w.segment, t1 = end_of(s), reach = place.slot - (t1 - t0);
    const int64_t first = (reach > 0 ? reach : 0) / kColumn;
    walk.run({t0, t1, first, place.slot / kColumn, states(s), nullptr, q.bits});
    if (warp_id() == 0) {
      place = trace(q, q.bits, first * K, t0, t1, place, path, scores);
      if (lane_id() == 0) shared.place = place;
    }
    __syncthreads();
    place = shared.place;
  }
}

template <class Element, int K>
cudaError_t launch_align(const ForcedAlignParams& p, const AlignWorkspace& w, cudaStream_t stream) {
  const int64_t columns = w.slots / (kWarp * K), warps = columns < kMaxAlignWarps ? columns : kMaxAlignWarps;
  return launch("align", align<Element, K>, dim3(unsigned(p.loss.batch)), dim3(unsigned(kWarp * warps)), 0, stream, p,
                w);
}

template <class Element>
cudaError_t run(ForcedAlignParams p, void* workspace, cudaStream_t stream) {
  CtcLossParams& q = p.loss;
  if (q.batch > INT32_MAX) return cudaErrorInvalidValue;
  const AlignWorkspace w(workspace, p, column_of(p));
  cudaError_t error = inspect_targets(q, w.offsets, NothingMore{}, stream);
  if (!error && q.from_logits) {
    error = launch_warps("denominators", denominators<Element>, q.batch * q.frames, 0, stream, q, w.denominators);
  }
  if (!error)
    error = column_of(p) == kWarp ? launch_align<Element, 1>(p, w, stream) : launch_align<Element, 2>(p, w, stream);
  return error;
}

}  // namespace

size_t forced_align_workspace(const ForcedAlignParams& p) { return AlignWorkspace(nullptr, p, column_of(p)).size; }
int forced_align(const ForcedAlignParams& p, void* workspace, void* stream) {
  return with_element(p.loss.dtype, [&](auto element) {
    return int(run<decltype(element)>(p, workspace, static_cast<cudaStream_t>(stream)));
  });
}

}  // namespace cuda
}  // namespace fastctc

// Forced alignment on CUDA:
//
//   denominators  a warp per row of logits
//   align         a block per sample: checks its lengths and labels; the recursion, then the way back
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

#include "denominator.h"
#include "forced_align_walk.h"

namespace fastctc {
namespace cuda {
namespace {

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
    if (frame.t >= p.input_lengths[frame.n]) continue;
    const Element* const x = row_of<Element>(p, frame.t, frame.n);
    const Row<const Element> row(x, p.stride_c, p.classes);
    Scalar max = Scalar(-INFINITY);
#pragma unroll 4
    for (int64_t c = lane_id(); c < p.classes; c += kWarp) max = W::max(max, to_scalar(x[c * p.stride_c]));
    max = T::reduce(max, static_cast<Scalar*>(nullptr), [](Scalar a, Scalar b) { return W::max(a, b); });
    const Scalar sum = softmax_sum(row, max);
    if (lane_id() == 0) {
      const double log_sum = sum == 0 ? double(NAN) : log_of<Lanes<double>>(double(sum));
      out[frame.n * p.frames + frame.t] = double(max) + log_sum;
    }
  }
}

// The 32 bits of slots first..first + 31, from two words.
__device__ __forceinline__ uint32_t window(uint32_t low, uint32_t high, int shift) {
  return uint32_t((uint64_t(high) << 32 | low) >> shift);
}

// The number of the only bit that is set; -1 if there is none.
__device__ __forceinline__ int number_of(uint32_t bit) { return bit ? __popc(bit - 1) : -1; }

// One warp: the path in frames [t0, t1), which is at `place` in the last of them. Returns where it is before the first.
template <class Element>
__device__ __forceinline__ Place trace(const AlignTask<Element>& q, const Bits* bits, int64_t first_group, int64_t t0,
                                       int64_t t1, Place place, int64_t* path) {
  for (int64_t end = t1; end > t0; end -= kWarp) {
    const int64_t t = end - 1 - lane_id();
    // Slots first..first + 31, of which the last is the one where the path is now.
    const int64_t first = place.slot - (kWarp - 1), group = (first < 0 ? first - (kWarp - 1) : first) / kWarp;
    const int shift = int(first - group * kWarp);
    const bool may = may_skip(q.labels, first + lane_id(), q.length);
    const uint32_t skip = __ballot_sync(kFullWarp, may);
    uint32_t from_label = 0, moved = 0;  // before t0 the path stays
    if (t >= t0) {
      const Bits* const row = bits + (t - t0) * q.groups - first_group;
      const Bits low = group >= first_group ? row[group] : Bits{0, 0};
      const Bits high = shift > 0 ? row[group + 1] : Bits{0, 0};
      from_label = window(low.from_label, high.from_label, shift);
      moved = window(low.moved, high.moved, shift);
    }
    constexpr uint32_t kLast = 1u << (kWarp - 1);
    PlaceBits at = {place.is_label ? 0 : kLast, place.is_label ? kLast : 0}, mine = at;
#pragma unroll
    for (int k = 0; k < kWarp; ++k) {
      if (lane_id() == k) mine = at;
      at = previous_place(at, from_lane(from_label, k), from_lane(moved, k), skip);
    }
    if (t >= t0) path[t] = mine.label ? q.labels[first + number_of(mine.label)] : q.blank;
    place = {first + number_of(at.blank | at.label), at.blank == 0};
  }
  return place;
}

// The outputs of a sample from frame t0 on, where there is no path.
template <class Scalar>
__device__ __forceinline__ void fill(const ForcedAlignParams& p, int64_t n, int64_t t0, Status status) {
  const Scalar value = status == kOk ? Scalar(0) : status == kInfeasible ? Scalar(-INFINITY) : Scalar(NAN);
  for (int64_t t = t0 + threadIdx.x; t < p.loss.frames; t += blockDim.x) {
    p.paths[n * p.loss.frames + t] = p.loss.blank;
    static_cast<Scalar*>(p.scores)[n * p.loss.frames + t] = value;
  }
}

template <class Element, int K>
__global__ void __launch_bounds__(K == 1 ? kWarp : kMaxAlignWarps * kWarp, 1)
    align(ForcedAlignParams p, AlignWorkspace w) {
  using Scalar = typename ScalarOf<Element>::type;
  constexpr int kColumn = kWarp * K;
  const int64_t n = blockIdx.x, offset = target_offset(p.loss, n);
  Status status = inspect(p.loss, n, offset);
  if (status != kOk) {
    if (threadIdx.x == 0) p.loss.status[n] = status;
    return fill<Scalar>(p, n, 0, status);
  }
  FASTCTC_SHARED_ARRAY(AlignExchange, shared_array, [1]);
  AlignExchange& shared = shared_array[0];
  const AlignTask<Element> q(p, w, n, offset);
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
  if (w.whole && warp_id() == 0) trace(q, q.bits, 0, 0, q.frames, place, path);
  for (int64_t s = w.whole ? -1 : segments - 1; s >= 0; --s) {
    const int64_t t0 = s * w.segment, t1 = end_of(s), reach = place.slot - (t1 - t0);
    const int64_t first = (reach > 0 ? reach : 0) / kColumn;
    walk.run({t0, t1, first, place.slot / kColumn, states(s), nullptr, q.bits});
    if (warp_id() == 0) {
      place = trace(q, q.bits, first * K, t0, t1, place, path);
      if (lane_id() == 0) shared.place = place;
    }
    __syncthreads();
    place = shared.place;
  }
  __syncthreads();
  for (int64_t t = threadIdx.x; t < q.frames; t += blockDim.x) scores[t] = returned_score(q.score(t, path[t]), q.dtype);
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
  cudaError_t error = target_offsets(q, w.offsets, stream);
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

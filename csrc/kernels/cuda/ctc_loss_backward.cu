// CTC loss on CUDA, backward:
//
//   sort_labels  a block per sample: its labels in order, each with its position
//   gradient     a warp for a few frames of a sample, or a block for one: a pass over the classes, then the labels,
//   whose
//                occupancies are summed over equal ones in that order
#include "../ctc_loss.h"

#include "../workspace.h"
#include "rows.h"
#include "sort.h"
#include "targets.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int kSortThreads = 256;
constexpr int64_t kSortShared = 4096;  // this many labels are sorted in shared memory

// A label and its position. Sorted, equal labels are neighbors, in the order of the target. Behind them are labels that
// equal the blank, then stars. The key of a sorted label also has its place in the group of equal ones:
//
//   63      32  31     30          25  24      0
//   [ label ]  [last] [equal before ] [position]     the equal ones before it, at most kWarp
using Key = uint64_t;
constexpr int kPositionBits = 25;
constexpr uint32_t kBlankLabel = 0xfffffffdu, kStarLabel = 0xfffffffeu;
constexpr Key kNoKey = ~Key(0);
__device__ __forceinline__ uint32_t label_of(Key key) { return uint32_t(key >> 32); }
__device__ __forceinline__ int64_t position_of(Key key) { return int64_t(key & ((Key(1) << kPositionBits) - 1)); }
__device__ __forceinline__ int equal_before(Key key) { return int(uint32_t(key) << 1 >> (1 + kPositionBits)); }
__device__ __forceinline__ bool is_last(Key key) { return int32_t(uint32_t(key)) < 0; }

struct BackwardWorkspace {
  int64_t columns;   // of keys: max_length, or the next power of two where they are sorted in place
  int64_t* offsets;  // of target_offsets
  Key* keys;         // (N, columns) the labels of each sample, sorted
  uint8_t* blanks;   // (N) is a label of this sample equal to the blank?
  size_t size;

  BackwardWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    columns = p.max_length <= kSortShared ? p.max_length : power_of_two_from(p.max_length);
    offsets = w.take<int64_t>(target_offsets_count(p));
    keys = w.take<Key>(p.batch * columns);
    blanks = w.take<uint8_t>(p.batch);
    size = w.size();
  }
};

__global__ void __launch_bounds__(kSortThreads) sort_labels(CtcLossParams p, BackwardWorkspace w) {
  const int64_t n = blockIdx.x, length = p.target_lengths[n];
  if (p.status[n] != kOk) return;
  const int64_t* const labels = p.targets + target_offset(p, n);
  Key* const out = w.keys + n * w.columns;
  const bool in_place = p.max_length > kSortShared;
  Key* const keys = in_place ? out : dynamic_shared<Key>();
  const int64_t count = power_of_two_from(length);
  bool blank = false;
  for (int64_t i = threadIdx.x; i < count; i += kSortThreads) {
    keys[i] = kNoKey;
    if (i >= length) continue;
    const bool is_blank = labels[i] == p.blank;
    keys[i] = Key(is_blank ? kBlankLabel : labels[i] == p.star ? kStarLabel : uint32_t(labels[i])) << 32 | Key(i);
    blank |= is_blank;
  }
  blank = __syncthreads_or(blank);
  if (threadIdx.x == 0) w.blanks[n] = blank;
  sort_keys<BlockTeam<false>>(keys, count);
  for (int64_t i0 = 0; i0 < length; i0 += kSortThreads) {
    const int64_t i = i0 + threadIdx.x;
    Key key = i < length ? keys[i] : kNoKey;
    Key before = 0;
    while (before < kWarp && i < length && i > int64_t(before) && label_of(keys[i - 1 - before]) == label_of(key)) {
      ++before;
    }
    const bool last = i + 1 >= length || label_of(keys[i + 1]) != label_of(key);
    key |= before << kPositionBits | Key(last) << 31;
    if (in_place) __syncthreads();
    if (i < length) out[i] = key;
    if (in_place) __syncthreads();
  }
}

// Frames of one sample that a team does together, so that it reads the labels once for all of them: as many as find the
// registers that they need.
template <class Element, int kWarps>
constexpr int kFramesTogether = kWarps > 1                                      ? 1
                                : sizeof(typename ScalarOf<Element>::type) == 4 ? 4
                                                                                : 2;
template <class Element, int kWarps>
FASTCTC_HD int64_t groups_of(int64_t frames) {
  return (frames + kFramesTogether<Element, kWarps> - 1) / kFramesTogether<Element, kWarps>;
}

// The gradient of frames [t, t + kFrames) of sample n. Beyond `count` of them the last one is done again.
template <class Element, int kWarps>
class Gradient {
  using Scalar = typename ScalarOf<Element>::type;
  using T = RowTeam<kWarps>;
  static constexpr int kFrames = kFramesTogether<Element, kWarps>;
  static constexpr int kLanes = kWarp / kFrames;  // lane l has the scalars of frame l / kLanes, its own
  static constexpr int V = Pack<Element>::kSize;

 public:
  __device__ __forceinline__ Gradient(const CtcLossParams& p, const BackwardWorkspace& w, int64_t n, int64_t t,
                                      int count)
      : p_(p),
        x_(row_of<Element>(p, t, n)),
        out_(static_cast<Element*>(p.grad) + t * p.grad_stride_t + n * p.grad_stride_n),
        occupancies_(static_cast<const Scalar*>(p.occupancy) + (n * p.frames + t) * p.max_length),
        keys_(w.keys + n * w.columns),
        length_(int(p.target_lengths[n])),
        t_(t),
        last_(count - 1),
        g_(static_cast<const Scalar*>(p.grad_loss)[n]) {}

  // By all threads of the team. Is a label equal to the blank?
  __device__ __forceinline__ void write(const FrameScalars<const Scalar>& of, bool has_blanks, Scalar* shared) {
    const int own = lane_id() / kLanes < last_ ? lane_id() / kLanes : last_;
    Scalar total = sum([&](int) { return true; }, [](int i) { return i; }, shared);
    scale_ = 1 / Lanes<Scalar>::max(total, of.blank[t_ + own]);  // the labels have no more than all paths
    total *= scale_;
    const Scalar stars = p_.star >= 0 ? sum_of(kStarLabel, shared) * scale_ : Scalar(0);
    const Scalar blanks = has_blanks ? sum_of(kBlankLabel, shared) * scale_ : Scalar(0);
    if (p_.from_logits) {
      row_ = {of.max[t_ + own], of.log2_sum[t_ + own]};
      factor_ = g_ * (1 - stars);
    }
    write_classes();
    T::sync();
    write_labels();
    if (T::rank() % kLanes == 0 && T::rank() < kWarp && T::rank() / kLanes <= last_) {
      const Element* const x = x_ + own * p_.stride_t + p_.blank * p_.stride_c;
      const Scalar value = kept(p_.from_logits ? to_scalar(*x) : Scalar(0), row_, factor_);
      const Scalar gamma = (total < 1 ? 1 - total : Scalar(0)) + blanks;
      from_scalar(value - g_ * gamma, out_[own * p_.grad_stride_t + p_.blank * p_.grad_stride_c]);
    }
  }

 private:
  // From frame d to the next one, in data of which frames are `stride` apart.
  template <class X>
  __device__ __forceinline__ X* next(X* x, int d, int64_t stride) const {
    return d < last_ ? x + stride : x;
  }
  // A value of the lanes that have frame d, in every lane.
  __device__ __forceinline__ Scalar of_frame(Scalar x, int d) const {
    return kFrames > 1 ? from_lane(x, d * kLanes) : x;
  }
  __device__ __forceinline__ RowStatistics<Scalar> row(int d) const {
    return {of_frame(row_.max, d), of_frame(row_.log2_sum, d)};
  }
  // What the softmax adds to the gradient of a score: with log-probabilities zero, as `factor` is.
  __device__ __forceinline__ Scalar kept(Scalar x, RowStatistics<Scalar> row, Scalar factor) const {
    return factor * power((x - row.max) * Constants<Scalar>::log2_e - row.log2_sum);
  }

  // The sum of the occupancies of the labels place(i) for which is_wanted(i): of the own frame of a lane.
  template <class Condition, class Place>
  __device__ __forceinline__ Scalar sum(const Condition& is_wanted, const Place& place, Scalar* shared) const {
    Scalar sums[kFrames] = {};
    for (int i = T::rank(); i < length_; i += T::kThreads) {
      if (!is_wanted(i)) continue;
      const Scalar* occupancy = occupancies_ + place(i);
#pragma unroll
      for (int d = 0; d < kFrames; ++d) {
        sums[d] += *occupancy;
        occupancy = next(occupancy, d, p_.max_length);
      }
    }
    if constexpr (kWarps > 1) return T::sum(sums[0], shared);
    return warp_sums(sums);
  }
  __device__ __forceinline__ Scalar sum_of(uint32_t label, Scalar* shared) const {
    return sum([&](int i) { return label_of(keys_[i]) == label; }, [&](int i) { return position_of(keys_[i]); },
               shared);
  }

  // All classes as if they were no labels.
  __device__ __forceinline__ void write_classes() const {
    constexpr int kStep = T::kThreads * V, kPacks = kFrames > 1 ? 1 : 4;
    RowStatistics<Scalar> rows[kFrames];
    Scalar factors[kFrames];
#pragma unroll
    for (int d = 0; d < kFrames; ++d) {
      rows[d] = row(d);
      factors[d] = of_frame(factor_, d);
    }
    int64_t c = T::rank() * V;
    for (; c + (kPacks - 1) * kStep < p_.classes; c += kPacks * kStep) write_packs<kPacks>(c, kStep, rows, factors);
    if (kPacks > 1) {
#pragma unroll 1
      for (; c < p_.classes; c += kStep) write_packs<1>(c, kStep, rows, factors);
    }
  }
  template <int kPacks>
  __device__ __forceinline__ void write_packs(int64_t c, int step, const RowStatistics<Scalar> (&rows)[kFrames],
                                              const Scalar (&factors)[kFrames]) const {
    Pack<Element> y[kFrames][kPacks] = {};
    const Element* x = x_;
#pragma unroll
    for (int d = 0; d < kFrames; ++d) {
      const Row<const Element> in(x, p_.stride_c, p_.classes);
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        if (p_.from_logits) y[d][k] = load_pack(in, c + k * step, Element{});
      }
      x = next(x, d, p_.stride_t);
    }
    Element* out = out_;
#pragma unroll
    for (int d = 0; d < kFrames; ++d) {
      const Row<Element> to(out, p_.grad_stride_c, p_.classes);
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
#pragma unroll
        for (int i = 0; i < V; ++i) from_scalar(kept(to_scalar(y[d][k].x[i]), rows[d], factors[d]), y[d][k].x[i]);
        store_pack(to, c + k * step, y[d][k]);
      }
      out = next(out, d, p_.grad_stride_t);
    }
  }

  // The classes that are labels. Each warp takes a range of the sorted labels: the groups of equal ones that start in
  // it, with the rest of the last one wherever that ends.
  __device__ __forceinline__ void write_labels() const {
    const int share = (length_ + kWarps - 1) / kWarps;
    const int begin = T::rank() / kWarp * share, end = begin + share < length_ ? begin + share : length_;
    if (begin >= end) return;
    Scalar carries[kFrames] = {};
    bool own = false;  // has the group that runs into these 32 labels begun in this range?
    for (int k0 = begin; k0 < length_; k0 += kWarp) {
      const int k = k0 + lane_id();
      const Key key = k < length_ ? keys_[k] : kNoKey;
      const bool counts = label_of(key) < kBlankLabel;
      const int before = equal_before(key);
      const bool continues = before > lane_id();
      // A group is this warp's if it begins in the range; those that begin behind it are the next warp's.
      const bool mine = continues ? own : k - before < end;
      const bool writes = counts && is_last(key) && mine;
      const bool reads = writes && p_.from_logits;
      Scalar sums[kFrames], scores[kFrames];
      const Scalar* occupancy = occupancies_ + position_of(key);
      const Element* x = x_ + int64_t(label_of(key)) * p_.stride_c;
      Element* out = out_ + int64_t(label_of(key)) * p_.grad_stride_c;
#pragma unroll
      for (int d = 0; d < kFrames; ++d) {
        sums[d] = counts ? *occupancy : Scalar(0);
        scores[d] = reads ? to_scalar(*x) : Scalar(0);
        occupancy = next(occupancy, d, p_.max_length);
        x = next(x, d, p_.stride_t);
      }
#pragma unroll
      for (int d = 0; d < kFrames; ++d) {
        sums[d] = sum_of_equal(sums[d], before);
        if (continues) sums[d] += carries[d];
        carries[d] = from_lane(sums[d], kWarp - 1);
        const Scalar value = kept(scores[d], row(d), of_frame(factor_, d));
        const Scalar gamma = sums[d] * of_frame(scale_, d);
        if (writes) from_scalar(value - g_ * gamma, *out);
        out = next(out, d, p_.grad_stride_t);
      }
      own = from_lane(mine && !is_last(key), kWarp - 1);
      if (k0 + kWarp >= end && !own) break;
    }
  }
  // The sum over the lanes up to this one that have the same label.
  static __device__ __forceinline__ Scalar sum_of_equal(Scalar x, int before) {
#pragma unroll
    for (int d = 1; d < kWarp; d *= 2) {
      const Scalar below = from_lane_below(x, d);
      if (lane_id() >= d && before >= d) x += below;
    }
    return x;
  }

  const CtcLossParams& p_;
  const Element* const x_;  // of the first frame, as those below
  Element* const out_;
  const Scalar* const occupancies_;
  const Key* const keys_;
  const int length_;
  const int64_t t_;
  const int last_;
  const Scalar g_;
  // of the own frame
  RowStatistics<Scalar> row_ = {0, 0};
  Scalar factor_ = 0;  // of the softmax
  Scalar scale_ = 0;   // of the occupancies
};

template <class Element, int kWarps>
__global__ void __launch_bounds__(kRowThreads, 2) gradient(CtcLossParams p, BackwardWorkspace w) {
  using Scalar = typename ScalarOf<Element>::type;
  using T = RowTeam<kWarps>;
  constexpr int kFrames = kFramesTogether<Element, kWarps>;
  FASTCTC_SHARED_ARRAY(Scalar, shared, [kWarps]);
  const bool frame_first = p.grad_stride_t >= p.grad_stride_n;
  const int64_t groups = groups_of<Element, kWarps>(p.frames);
  for (int64_t r = T::first_row(); r < p.batch * groups; r += T::row_step()) {
    const Frame group(r, groups, p.batch, frame_first);
    const int64_t n = group.n, t = group.t * kFrames;
    const int count = t + kFrames < p.frames ? kFrames : int(p.frames - t);
    const int32_t status = p.status[n];
    const int64_t left = status == kOk || status == kNotANumber ? p.input_lengths[n] - t : 0;
    const int used = left < 0 ? 0 : left < count ? int(left) : count;
    const bool wrong = status == kNotANumber;
    for (int d = wrong ? 0 : used; d < count; ++d) {
      constexpr int V = Pack<Element>::kSize;
      Pack<Element> y;
      for (int i = 0; i < V; ++i) from_scalar(d < used ? Scalar(NAN) : Scalar(0), y.x[i]);
      Element* const out = static_cast<Element*>(p.grad) + (t + d) * p.grad_stride_t + n * p.grad_stride_n;
      const Row<Element> to(out, p.grad_stride_c, p.classes);
      for (int64_t c = T::rank() * V; c < p.classes; c += T::kThreads * V) store_pack(to, c, y);
    }
    if (wrong || used == 0) continue;
    Gradient<Element, kWarps>(p, w, n, t, used).write({p, n}, w.blanks[n], shared);
  }
}

template <class Element>
cudaError_t backward(CtcLossParams p, void* workspace, cudaStream_t stream) {
  if (p.batch > INT32_MAX || p.max_length > int64_t(1) << kPositionBits || p.classes > INT32_MAX)
    return cudaErrorInvalidValue;
  const BackwardWorkspace w(workspace, p);
  const size_t shared = p.max_length > kSortShared ? 0 : size_t(power_of_two_from(p.max_length)) * sizeof(Key);
  cudaError_t error = target_offsets(p, w.offsets, stream);
  if (!error)
    error = launch("sort_labels", sort_labels, dim3(unsigned(p.batch)), dim3(kSortThreads), shared, stream, p, w);
  if (error) return error;
  const bool is_short = p.classes < kLongRow;
  return launch_rows("gradient", is_short, gradient<Element, 1>, gradient<Element, kRowWarps>,
                     p.batch * (is_short ? groups_of<Element, 1>(p.frames) : p.frames), 0, stream, p, w);
}

}  // namespace

size_t ctc_loss_backward_workspace(const CtcLossParams& p) { return BackwardWorkspace(nullptr, p).size; }
int ctc_loss_backward(const CtcLossParams& p, void* workspace, void* stream) {
  return with_element(p.dtype, [&](auto element) {
    return int(backward<decltype(element)>(p, workspace, static_cast<cudaStream_t>(stream)));
  });
}

}  // namespace cuda
}  // namespace fastctc

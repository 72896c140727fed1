// CTC loss on CUDA, backward:
//
//   sort_labels  a block per sample: its labels in order, each with its position
//   gradient     a warp or a block per row: one pass over the classes, then the labels, whose occupancies are summed
//                over equal ones in that order
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
  int64_t* offsets;  // (N) of concatenated targets
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

// Row t of the gradient of sample n.
template <class Element, int kWarps>
struct Gradient {
  using Scalar = typename ScalarOf<Element>::type;
  using T = RowTeam<kWarps>;

  const CtcLossParams& p;
  const Element* x;
  Element* out;
  const Scalar* occupancy;
  const Key* keys;
  int64_t length;
  bool from_logits;
  RowStatistics<Scalar> row;
  Scalar g, softmax_factor;
  Scalar scale;  // of the occupancies

  __device__ __forceinline__ Scalar softmax(Scalar value) const {
    return power((value - row.max) * Constants<Scalar>::log2_e - row.log2_sum);
  }
  // Class c, of which labels have the occupancy gamma.
  __device__ __forceinline__ void write(int64_t c, Scalar gamma) const {
    Scalar kept = 0;
    if (p.from_logits) kept = softmax_factor * softmax(to_scalar(x[c * p.stride_c]));
    from_scalar(kept - g * gamma, out[c * p.grad_stride_c]);
  }

  // All classes as if they were no labels.
  __device__ __forceinline__ void write_classes() const {
    constexpr int V = Pack<Element>::kSize, kStep = T::kThreads * V, kPacks = 2;
    int64_t c = T::rank() * V;
    for (; c + (kPacks - 1) * kStep < p.classes; c += kPacks * kStep) write_packs<kPacks>(c, kStep);
    if (c < p.classes) write_packs<1>(c, kStep);
  }
  template <int kPacks>
  __device__ __forceinline__ void write_packs(int64_t c, int step) const {
    constexpr int V = Pack<Element>::kSize;
    const Row<const Element> in(x, p.stride_c, p.classes);
    const Row<Element> to(out, p.grad_stride_c, p.classes);
    Pack<Element> y[kPacks];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (p.from_logits) y[k] = load_pack(in, c + k * step, Element{});
    }
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        from_scalar(p.from_logits ? softmax_factor * softmax(to_scalar(y[k].x[i])) : Scalar(0), y[k].x[i]);
      }
      store_pack(to, c + k * step, y[k]);
    }
  }

  // The classes that are labels. Each warp takes a range of the sorted labels: the groups of equal ones that start in
  // it, with the rest of the last one wherever that ends.
  __device__ __forceinline__ void write_labels() const {
    const int64_t share = (length + kWarps - 1) / kWarps;
    const int64_t begin = T::rank() / kWarp * share, end = begin + share < length ? begin + share : length;
    if (begin >= end) return;
    Scalar carry = 0;
    bool own = false;  // has the group that runs into these 32 labels begun in this range?
    for (int64_t k0 = begin; k0 < length; k0 += kWarp) {
      const int64_t k = k0 + lane_id();
      const Key key = k < length ? keys[k] : kNoKey;
      const bool counts = label_of(key) < kBlankLabel;
      const int before = equal_before(key);
      // the sum over the lanes up to this one that have the same label
      Scalar sum = counts ? occupancy[position_of(key)] : Scalar(0);
#pragma unroll
      for (int d = 1; d < kWarp; d *= 2) {
        const Scalar below = from_lane_below(sum, d);
        if (lane_id() >= d && before >= d) sum += below;
      }
      const bool continues = before > lane_id();
      if (continues) sum += carry;
      // A group is this warp's if it begins in the range; those that begin behind it are the next warp's.
      const bool mine = continues ? own : k - before < end;
      if (counts && is_last(key) && mine) write(int64_t(label_of(key)), sum * scale);
      carry = from_lane(sum, kWarp - 1);
      const bool goes_on = from_lane(mine && !is_last(key), kWarp - 1);
      own = goes_on;
      if (k0 + kWarp >= end && !goes_on) break;
    }
  }
};

// Blocks of `gradient` on a multiprocessor, as many as its registers allow without spilling.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kGradientBlocks = 2;
#else
constexpr int kGradientBlocks = 3;
#endif

template <class Element, int kWarps>
__global__ void __launch_bounds__(kRowThreads, sizeof(typename ScalarOf<Element>::type) == 4 ? kGradientBlocks : 2)
    gradient(CtcLossParams p, BackwardWorkspace w) {
  using Scalar = typename ScalarOf<Element>::type;
  using T = RowTeam<kWarps>;
  using W = Lanes<Scalar>;
  FASTCTC_SHARED_ARRAY(Scalar, shared, [kWarps]);
  const bool frame_first = p.grad_stride_t >= p.grad_stride_n;
  for (int64_t r = T::first_row(); r < p.batch * p.frames; r += T::row_step()) {
    const Frame frame(r, p.frames, p.batch, frame_first);
    const int64_t n = frame.n, t = frame.t;
    const int32_t status = p.status[n];
    Element* const out = static_cast<Element*>(p.grad) + t * p.grad_stride_t + n * p.grad_stride_n;
    const bool used = (status == kOk || status == kNotANumber) && t < p.input_lengths[n];
    if (!used || status == kNotANumber) {
      constexpr int V = Pack<Element>::kSize;
      Pack<Element> y;
      for (int i = 0; i < V; ++i) from_scalar(used ? Scalar(NAN) : Scalar(0), y.x[i]);
      const Row<Element> to(out, p.grad_stride_c, p.classes);
      for (int64_t c = T::rank() * V; c < p.classes; c += T::kThreads * V) store_pack(to, c, y);
      continue;
    }
    const Scalar* const occupancy = static_cast<const Scalar*>(p.occupancy) + (n * p.frames + t) * p.max_length;
    const int64_t length = p.target_lengths[n];
    const Key* const keys = w.keys + n * w.columns;
    const bool has_blanks = w.blanks[n];
    Scalar total = 0, stars = 0, blanks = 0;
    for (int64_t i = T::rank(); i < length; i += T::kThreads) {
      total += occupancy[i];
      if (p.star >= 0 && label_of(keys[i]) == kStarLabel) stars += occupancy[position_of(keys[i])];
      if (has_blanks && label_of(keys[i]) == kBlankLabel) blanks += occupancy[position_of(keys[i])];
    }
    const FrameScalars<const Scalar> of(p, n);
    total = T::sum(total, shared);
    const Scalar scale = 1 / W::max(total, of.blank[t]);  // the labels have no more than all paths
    total *= scale;
    if (p.star >= 0) stars = T::sum(stars, shared) * scale;
    if (has_blanks) blanks = T::sum(blanks, shared) * scale;
    const Scalar g = static_cast<const Scalar*>(p.grad_loss)[n];
    RowStatistics<Scalar> row = {0, 0};
    if (p.from_logits) row = {of.max[t], of.log2_sum[t]};
    const Gradient<Element, kWarps> to = {
        p, row_of<Element>(p, t, n), out, occupancy, keys, length, p.from_logits, row, g, g * (1 - stars), scale};
    to.write_classes();
    T::sync();
    to.write_labels();
    if (T::rank() == 0) to.write(p.blank, (total < 1 ? 1 - total : Scalar(0)) + blanks);
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
  return launch_rows("gradient", p.classes < kLongRow, gradient<Element, 1>, gradient<Element, kRowWarps>,
                     p.batch * p.frames, 0, stream, p, w);
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

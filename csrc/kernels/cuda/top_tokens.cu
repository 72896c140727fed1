// The most probable tokens of every frame, by a warp for each row of few classes and by a block for each longer one.
// The block reads a row once, into registers.
#include "top_tokens.h"

#include "denominator.h"
#include "long_row.h"
#include "sort.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int64_t kComparedRow = 256;  // classes; a warp compares each with each
constexpr int kDigit = 11, kBins = 1 << kDigit;
constexpr int kCounted = 64;  // classes that are put in order by counting; more are sorted

// Classes that can be collected where `count` are wanted: a power of two.
int room_of(int64_t count) { return int(power_of_two_from(count + kCounted)); }

// Keys in the order of the scores. The two zeros are the same.
__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t u = bits_of(x == 0 ? 0.0f : x);
  return u ^ (u >> 31 ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ uint64_t key_of(double x) {
  if (x == 0) x = 0;
  uint64_t u;
  memcpy(&u, &x, 8);
  return u ^ (u >> 63 ? ~uint64_t(0) : uint64_t(1) << 63);
}

template <class Element, class Scalar>
__device__ __forceinline__ FrameScores frame_scores(const BeamSearchParams& p, const Row<const Element>& row,
                                                    Scalar max, Scalar softmax_sum, bool faulty) {
  FrameScores f = {0, 0, 0, kOk};
  if (p.from_logits && softmax_sum != 0) {  // else all are at -inf
    f.log_denominator = double(max) + log_of<Lanes<double>>(double(softmax_sum));
  }
  f.best = log_prob(double(max), f.log_denominator);
  f.blank = log_prob(double(to_scalar(row.x[p.blank * row.stride])), f.log_denominator);
  if (f.best > kLargestLogProb) f.status = kInvalid;
  if (faulty || f.log_denominator != f.log_denominator) f.status = kNotANumber;
  return f;
}

// By a warp.
template <class Element, class Scalar>
__device__ __forceinline__ FrameScores short_row_scores(const BeamSearchParams& p, const Row<const Element>& row) {
  Scalar max = Scalar(-INFINITY);
  bool faulty = false;
  for (int64_t c = lane_id(); c < row.classes; c += kWarp) {
    const Scalar x = to_scalar(row.x[c * row.stride]);
    faulty |= x != x;
    max = Lanes<Scalar>::max(max, x);
  }
  max = warp_max(max);
  const Scalar sum = p.from_logits ? softmax_sum(row, max) : Scalar(0);
  return frame_scores<Element, Scalar>(p, row, max, sum, __any_sync(kFullWarp, faulty));
}

// The place of a class among all but the blank is the number of those before it.
template <class Element, class Scalar>
__device__ __forceinline__ void rank_classes(const Row<const Element>& row, int64_t blank, int count, Scalar* scores,
                                             Scalar* out_x, int32_t* out_token) {
  const int classes = int(row.classes);
  __syncwarp();
  for (int c = lane_id(); c < classes; c += kWarp) {
    scores[c] = c == blank ? Scalar(NAN) : to_scalar(row.x[c * row.stride]);  // NaN comes before nothing
  }
  __syncwarp();
  for (int c = lane_id(); c < classes; c += kWarp) {
    const Scalar x = scores[c];
    int place = 0;
    for (int d = 0; d < classes; ++d) place += scores[d] > x || (scores[d] == x && d < c);
    if (c == blank || place >= count) continue;
    out_x[place] = x;
    out_token[place] = c;
  }
}

// The digit of the place `left` (from 1), where the bins count how many have which digit and larger digits come first,
// and the place among those that have it. Called by all threads of a block.
struct Digit {
  int digit, left;
};
__device__ __forceinline__ Digit find_digit(const uint32_t* bins, int left) {
  using T = RowTeam<kRowWarps>;
  using B = BlockTeam<false>;
  constexpr int kOwn = kBins / kRowThreads;  // bins of a thread, which starts at the largest digits
  FASTCTC_SHARED_ARRAY(B::Shared, exchange, [1]);
  FASTCTC_SHARED_ARRAY(Digit, found, [1]);
  T::sync();  // all have been counted
  uint32_t own[kOwn];
  int sum = 0, total;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) own[i] = bins[kBins - kOwn * (T::rank() + 1) + i];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) sum += int(own[i]);
  int before = B::sum_before(sum, total, exchange[0]);
  if (T::rank() == 0) found[0] = {-1, left - total};
  T::sync();
  if (before < left && left <= before + sum) {
#pragma unroll
    for (int i = kOwn - 1; i >= 0; --i) {
      if (before < left && left <= before + int(own[i])) found[0] = {kBins - kOwn * (T::rank() + 1) + i, left - before};
      before += int(own[i]);
    }
  }
  T::sync();
  return found[0];
}
__device__ __forceinline__ void clear(uint32_t* bins) {
  using T = RowTeam<kRowWarps>;
  T::sync();
  for (int i = T::rank(); i < kBins / Pack<uint32_t>::kSize; i += T::kThreads)
    reinterpret_cast<Pack<uint32_t>*>(bins)[i] = {};
  T::sync();
}

// The key of the class in place `left` (from 1) among all but the blank, digit by digit: of the keys with the digits
// known so far, how many have which next one?
template <class Element, class Key>
__device__ __forceinline__ Key select_key(const Row<const Element>& row, int64_t blank, int left, uint32_t* bins,
                                          Key known) {
  using T = RowTeam<kRowWarps>;
  int shift = int(sizeof(Key)) * 8, unknown = shift;
  while (shift > 0) {
    unknown = shift;
    shift = shift > kDigit ? shift - kDigit : 0;
    const Key mask = (Key(1) << (unknown - shift)) - 1;
    clear(bins);
#pragma unroll 1
    for (int64_t c = T::rank(); c < row.classes; c += T::kThreads) {
      const Key key = key_of(to_scalar(row.x[c * row.stride]));
      const bool same = unknown == int(sizeof(Key)) * 8 || key >> unknown == known;
      if (c != blank && same) atomicAdd(&bins[key >> shift & mask], 1u);
    }
    const Digit found = find_digit(bins, left);
    known = Key(known << (unknown - shift)) | Key(found.digit);
    left = found.left;
  }
  return known;
}

// The classes above a key, and the lowest ones of those that have it; `count` in all, in no order. Each warp has a
// stretch of the row, so that equals can be counted in order.
template <class Element, class Scalar, class Key>
__device__ __forceinline__ void collect(const Row<const Element>& row, int64_t blank, Key key, int count, Scalar* x,
                                        int32_t* token) {
  FASTCTC_SHARED_ARRAY(int, above, [1]);
  FASTCTC_SHARED_ARRAY(int, equal, [kRowWarps]);
  const int64_t stretch = (row.classes + kRowThreads - 1) / kRowThreads * kWarp;
  const int64_t begin = warp_id() * stretch, end = begin + stretch < row.classes ? begin + stretch : row.classes;
  const auto put = [&](int place, Scalar value, int64_t c) {
    x[place] = value;
    token[place] = int32_t(c);
  };
  if (threadIdx.x == 0) above[0] = 0;
  __syncthreads();
  int equals = 0;
#pragma unroll 1
  for (int64_t c = begin + lane_id(); c < end; c += kWarp) {
    const Scalar value = to_scalar(row.x[c * row.stride]);
    if (c == blank || key_of(value) < key) continue;
    if (key_of(value) == key) {
      ++equals;
    } else {
      put(atomicAdd(above, 1), value, c);
    }
  }
  equals = warp_sum(equals);
  if (lane_id() == 0) equal[warp_id()] = equals;
  __syncthreads();
  int place = above[0];
  for (int w = 0; w < warp_id(); ++w) place += equal[w];
  for (int64_t c0 = begin; equals > 0 && place < count && c0 < end; c0 += kWarp) {
    const int64_t c = c0 + lane_id();
    const Scalar value = c < end ? to_scalar(row.x[c * row.stride]) : Scalar(0);
    const unsigned mask = __ballot_sync(kFullWarp, c < end && c != blank && key_of(value) == key);
    const int mine = place + __popc(mask & ((1u << lane_id()) - 1u));
    if ((mask >> lane_id() & 1u) && mine < count) put(mine, value, c);
    place += __popc(mask);
  }
}

// The first `count` classes of a row and perhaps some more, `room` at most, in no order. Returns how many; 0 if they
// are not found in this way. Most rows have them.
//
// Scores go to bins, in steps of 1/32 from the maximum down. If few are wanted the maximum of each thread will do: as
// many classes are at least as large.
template <class Element, class Scalar>
__device__ __forceinline__ int collect_near_best(LongRow<Element>& classes, const Row<const Element>& row,
                                                 int64_t blank, Scalar max, int count, int room, uint32_t* bins,
                                                 Scalar* x, int32_t* token) {
  constexpr float kSteps = 32, kLargest = 100000;
  constexpr float kInteger = 8388608;  // from here on, up to twice as much, floats are integers
  FASTCTC_SHARED_ARRAY(int, found, [1]);
  if (!(fabs(max) <= kLargest)) return 0;
  const float origin = kInteger + float(kBins - 2) - kSteps * float(max);
  const auto step = [=](Scalar value) { return fmaf(kSteps, float(value), origin); };  // its low bits are the bin
  const auto add = [=](Scalar value) {
    atomicAdd(&bins[bits_of(fmaxf(step(value), kInteger)) - bits_of(kInteger)], 1u);  // the lowest one for all below
  };
  clear(bins);
  if (count < kRowThreads / 2) {
    add(classes.own_max());
  } else {
    classes.for_each(add);
  }
  if (threadIdx.x == 0) found[0] = 0;
  const Digit last = find_digit(bins, count + 1);  // the blank is counted, too
  if (last.digit <= 0) return 0;
  const float least = kInteger + float(last.digit);
  classes.for_each_mask([&](Scalar value) { return step(value) >= least; },
                        [&](int64_t c) {
                          const int place = c == blank ? room : atomicAdd(found, 1);
                          if (place >= room) return;
                          x[place] = to_scalar(row.x[c * row.stride]);
                          token[place] = int32_t(c);
                        });
  __syncthreads();
  return found[0] <= room ? found[0] : 0;
}

// The first `count` classes of a long row in order. `x` and `token` have room for a power of two.
template <class Element, class Scalar>
__device__ __forceinline__ void select_classes(LongRow<Element>& classes, const Row<const Element>& row, int64_t blank,
                                               Scalar max, int count, int room, uint32_t* bins, Scalar* x,
                                               int32_t* token, Scalar* out_x, int32_t* out_token) {
  using Key = decltype(key_of(Scalar()));
  int found = collect_near_best<Element>(classes, row, blank, max, count, room, bins, x, token);
  if (found == 0) {
    const Key key = count < row.classes - 1 ? select_key<Element, Key>(row, blank, count, bins, 0) : Key(0);
    collect<Element>(row, blank, key, count, x, token);
    found = count;
  }
  if (found <= kCounted) {  // the place of each is the number of those before it
    __syncthreads();
    const int i = int(threadIdx.x);
    if (i >= found) return;
    const Scalar mine = x[i];
    int place = 0;
#pragma unroll 4
    for (int k = 0; k < found; ++k) place += (x[k] > mine) | ((x[k] == mine) & (token[k] < token[i]));
    if (place >= count) return;
    out_x[place] = mine;
    out_token[place] = token[i];
  } else {
    const int size = int(power_of_two_from(found));
    for (int i = found + int(threadIdx.x); i < size; i += kRowThreads) {
      x[i] = Scalar(-INFINITY);
      token[i] = INT32_MAX;
    }
    sort_pairs<BlockTeam<false>>(x, token, size);
    for (int i = threadIdx.x; i < count; i += kRowThreads) {
      out_x[i] = x[i];
      out_token[i] = token[i];
    }
  }
}

// Shared memory: the scores of a short row for each warp; else bins, then the tokens that are sorted.
template <class Scalar>
size_t shared_bytes(bool short_rows, int64_t count) {
  if (short_rows) return kRowWarps * kComparedRow * sizeof(Scalar);
  return kBins * sizeof(uint32_t) + size_t(room_of(count)) * (sizeof(Scalar) + sizeof(int32_t));
}

// Blocks of an SM, which decides how many registers a thread has: more of them for rows in registers.
template <class Scalar, int kWarps>
constexpr int kLeastBlocks = sizeof(Scalar) == 8 ? 1
                             : kWarps == 1       ? 5
                                                 : 2;

template <class Element, class Scalar, int kWarps>
__global__ void __launch_bounds__(kRowThreads, kLeastBlocks<Scalar, kWarps>)
    top_tokens(BeamSearchParams p, int64_t first, TopTokens<Scalar> out, int room) {
  using T = RowTeam<kWarps>;
  const int count = int(out.count);
  for (int64_t r = T::first_row(); r < p.batch * out.frames; r += T::row_step()) {
    const auto [t, n] = Frame(r, out.frames, p.batch, false);
    const int64_t length = p.input_lengths[n];
    if (length > p.frames || first + t >= length) continue;
    const Element* const x = static_cast<const Element*>(p.input) + n * p.stride_n + (first + t) * p.stride_t;
    const Row<const Element> row(x, p.stride_c, p.classes);
    Scalar* const out_x = out.x + r * count;
    int32_t* const out_token = out.token + r * count;
    if constexpr (kWarps == 1) {
      const FrameScores f = short_row_scores<Element, Scalar>(p, row);
      if (T::rank() == 0) out.scores[r] = f;
      if (f.status != kOk || count == 0) continue;
      Scalar* const scores = dynamic_shared<Scalar>() + warp_id() * kComparedRow;
      rank_classes<Element>(row, p.blank, count, scores, out_x, out_token);
    } else {
      LongRow<Element> classes(row);
      const Scalar max = classes.max();
      const Scalar sum = p.from_logits ? classes.softmax_sum(max) : Scalar(0);
      const bool has_nan = __syncthreads_or(classes.has_nan());
      FrameScores f = {0, 0, 0, kOk};
      if (warp_id() == 0) f = frame_scores<Element, Scalar>(p, row, max, sum, has_nan);
      if (T::rank() == 0) out.scores[r] = f;
      if (__syncthreads_or(f.status != kOk) || count == 0) continue;
      uint32_t* const bins = dynamic_shared<uint32_t>();
      Scalar* const sorted = reinterpret_cast<Scalar*>(bins + kBins);
      select_classes<Element>(classes, row, p.blank, max, count, room, bins, sorted,
                              reinterpret_cast<int32_t*>(sorted + room), out_x, out_token);
    }
  }
}

template <class Element, class Scalar>
cudaError_t run(const BeamSearchParams& p, int64_t first, const TopTokens<Scalar>& out, cudaStream_t stream) {
  const bool short_rows = p.classes <= kComparedRow;
  return launch_rows("top_tokens", short_rows, top_tokens<Element, Scalar, 1>, top_tokens<Element, Scalar, kRowWarps>,
                     p.batch * out.frames, shared_bytes<Scalar>(short_rows, out.count), stream, p, first, out,
                     room_of(out.count));
}

}  // namespace

template <>
cudaError_t find_top_tokens(const BeamSearchParams& p, int64_t first, const TopTokens<float>& out,
                            cudaStream_t stream) {
  if (p.dtype == DType::kFloat16) return run<Half>(p, first, out, stream);
  if (p.dtype == DType::kBFloat16) return run<BFloat16>(p, first, out, stream);
  return run<float>(p, first, out, stream);
}
template <>
cudaError_t find_top_tokens(const BeamSearchParams& p, int64_t first, const TopTokens<double>& out,
                            cudaStream_t stream) {
  return run<double>(p, first, out, stream);
}

}  // namespace cuda
}  // namespace fastctc

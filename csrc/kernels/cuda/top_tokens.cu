// The most probable tokens of every frame, by a warp for each row of few classes and by a block for each longer one.
#include "top_tokens.h"

#include "denominator.h"
#include "sort.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int64_t kComparedRow = 256;  // classes; a warp compares each with each
constexpr int kDigit = 11, kBins = 1 << kDigit;

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

template <int kWarps, class Element, class Scalar>
__device__ __forceinline__ FrameScores frame_scores(const BeamSearchParams& p, const Row<const Element>& row,
                                                    Scalar* tile) {
  using T = RowTeam<kWarps>;
  FASTCTC_SHARED_ARRAY(Scalar, maxima, [kRowWarps]);
  Scalar max = Scalar(-INFINITY), faulty = 0;
  for (int64_t c = T::rank(); c < row.classes; c += T::kThreads) {
    const Scalar x = to_scalar(row.x[c * row.stride]);
    if (x != x) faulty = 1;
    max = Lanes<Scalar>::max(max, x);
  }
  const auto larger = [](Scalar a, Scalar b) { return Lanes<Scalar>::max(a, b); };
  max = T::reduce(max, maxima, larger);
  faulty = T::reduce(faulty, maxima, larger);
  FrameScores f = {0, 0, 0, kOk};
  if (p.from_logits) {
    const double sum = double(softmax_sum<kWarps, kBins>(row, max, tile));
    if (sum != 0) f.log_denominator = double(max) + log_of<Lanes<double>>(sum);  // else all are at -inf
  }
  f.best = log_prob(double(max), f.log_denominator);
  f.blank = log_prob(double(to_scalar(row.x[p.blank * row.stride])), f.log_denominator);
  if (f.best > kLargestLogProb) f.status = kInvalid;
  if (faulty != 0 || f.log_denominator != f.log_denominator) f.status = kNotANumber;
  return f;
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

// The key of the class in place `left` (from 1) among all but the blank, digit by digit: of the keys with the digits
// known so far, how many have which next one?
template <class Element, class Key>
__device__ __forceinline__ Key select_key(const Row<const Element>& row, int64_t blank, int left, uint32_t* bins,
                                          Key known) {
  using T = RowTeam<kRowWarps>;
  using B = BlockTeam<false>;
  constexpr int kOwn = kBins / kRowThreads;  // bins of a thread, which starts at the largest digits
  FASTCTC_SHARED_ARRAY(B::Shared, exchange, [1]);
  FASTCTC_SHARED_ARRAY(int, found, [2]);
  int shift = int(sizeof(Key)) * 8, unknown = shift;
  while (shift > 0) {
    unknown = shift;
    shift = shift > kDigit ? shift - kDigit : 0;
    const Key mask = (Key(1) << (unknown - shift)) - 1;
    T::sync();
    for (int i = T::rank(); i < kBins; i += T::kThreads) bins[i] = 0;
    T::sync();
    for (int64_t c = T::rank(); c < row.classes; c += T::kThreads) {
      const Key key = key_of(to_scalar(row.x[c * row.stride]));
      const bool same = unknown == int(sizeof(Key)) * 8 || key >> unknown == known;
      if (c != blank && same) atomicAdd(&bins[key >> shift & mask], 1u);
    }
    T::sync();
    const uint32_t* const own = bins + kBins - kOwn * (T::rank() + 1);
    int sum = 0, total;
    for (int i = 0; i < kOwn; ++i) sum += int(own[i]);
    int before = B::sum_before(sum, total, exchange[0]);
    if (before < left && left <= before + sum) {
      int digit = kOwn - 1;
      for (; before + int(own[digit]) < left; --digit) before += int(own[digit]);
      found[0] = int(own - bins) + digit;
      found[1] = left - before;
    }
    T::sync();
    known = Key(known << (unknown - shift)) | Key(found[0]);
    left = found[1];
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

// The first `count` classes of a long row in order. `x` and `token` have room for a power of two.
template <class Element, class Scalar>
__device__ __forceinline__ void select_classes(const Row<const Element>& row, int64_t blank, int count, uint32_t* bins,
                                               Scalar* x, int32_t* token, Scalar* out_x, int32_t* out_token) {
  using Key = decltype(key_of(Scalar()));
  const Key key = count < row.classes - 1 ? select_key<Element, Key>(row, blank, count, bins, 0) : Key(0);
  collect<Element>(row, blank, key, count, x, token);
  const int size = int(power_of_two_from(count));
  for (int i = count + int(threadIdx.x); i < size; i += kRowThreads) {
    x[i] = Scalar(-INFINITY);
    token[i] = INT32_MAX;
  }
  sort_pairs<BlockTeam<false>>(x, token, size);
  for (int i = threadIdx.x; i < count; i += kRowThreads) {
    out_x[i] = x[i];
    out_token[i] = token[i];
  }
}

// Shared memory: for each team a tile of scores, which serves as bins too; then the tokens that are sorted.
template <class Scalar>
size_t shared_bytes(bool short_rows, int64_t count) {
  if (short_rows) return kRowWarps * kComparedRow * sizeof(Scalar);
  return kBins * sizeof(Scalar) + size_t(power_of_two_from(count)) * (sizeof(Scalar) + sizeof(int32_t));
}

template <class Element, class Scalar, int kWarps>
__global__ void __launch_bounds__(kRowThreads) top_tokens(BeamSearchParams p, int64_t first, TopTokens<Scalar> out) {
  using T = RowTeam<kWarps>;
  Scalar* const tile = dynamic_shared<Scalar>() + (kWarps == 1 ? warp_id() * kComparedRow : 0);
  const int count = int(out.count);
  for (int64_t r = T::first_row(); r < p.batch * out.frames; r += T::row_step()) {
    const auto [t, n] = Frame(r, out.frames, p.batch, false);
    const int64_t length = p.input_lengths[n];
    if (length > p.frames || first + t >= length) continue;
    const Element* const x = static_cast<const Element*>(p.input) + n * p.stride_n + (first + t) * p.stride_t;
    const Row<const Element> row(x, p.stride_c, p.classes);
    const FrameScores f = frame_scores<kWarps, Element, Scalar>(p, row, tile);
    if (T::rank() == 0) out.scores[r] = f;
    if (f.status != kOk || count == 0) continue;
    Scalar* const out_x = out.x + r * count;
    int32_t* const out_token = out.token + r * count;
    if constexpr (kWarps == 1) rank_classes<Element>(row, p.blank, count, tile, out_x, out_token);
    if constexpr (kWarps > 1) {
      Scalar* const sorted = tile + kBins;
      select_classes<Element>(row, p.blank, count, reinterpret_cast<uint32_t*>(tile), sorted,
                              reinterpret_cast<int32_t*>(sorted + power_of_two_from(count)), out_x, out_token);
    }
  }
}

template <class Element, class Scalar>
cudaError_t run(const BeamSearchParams& p, int64_t first, const TopTokens<Scalar>& out, cudaStream_t stream) {
  const bool short_rows = p.classes <= kComparedRow;
  return launch_rows("top_tokens", short_rows, top_tokens<Element, Scalar, 1>, top_tokens<Element, Scalar, kRowWarps>,
                     p.batch * out.frames, shared_bytes<Scalar>(short_rows, out.count), stream, p, first, out);
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

// A long row in the registers of a block.
//
// A row is read in chunks of up to 8192 classes (4096 of doubles). Each warp has a stretch of the chunk, and each lane
// every 32nd class of the stretch:
//
//           | stretch of warp 0     | stretch of warp 1     | ...
//   lane    | 0 1 .. 31  0 1 .. 31  | 0 1 .. 31  0 1 .. 31  |
//
// So the warps, one after the other, add up the terms of the softmax denominator in the order of log_space.h.
#pragma once

#include "../../math/log_space.h"
#include "rows.h"

namespace fastctc {
namespace cuda {

static_assert(kSums == kWarp, "a lane for each sum");

template <class Element>
class LongRow {
  using Scalar = typename ScalarOf<Element>::type;
  using W = Lanes<Scalar>;
  using T = RowTeam<kRowWarps>;
  static constexpr int kOwn = sizeof(Scalar) == 4 ? 32 : 16;  // classes of a thread
  static constexpr int kGroup = 4;                            // of those that are gone through together
  static constexpr int64_t kChunk = kOwn * kRowThreads;

 public:
  // By all threads of a block, as all that follows.
  __device__ __forceinline__ explicit LongRow(const Row<const Element>& row) : row_(row) { load(0); }

  // NaN is passed over.
  __device__ __forceinline__ Scalar max() {
    FASTCTC_SHARED_ARRAY(Scalar, maxima, [kRowWarps]);
    for_each([&](Scalar x) {
      has_nan_ |= x != x;
      own_max_ = W::max(own_max_, x);
    });
    return T::reduce(own_max_, maxima, [](Scalar a, Scalar b) { return W::max(a, b); });
  }
  // Of the classes of this thread: the maximum, and is there a NaN? Known after max().
  __device__ __forceinline__ Scalar own_max() const { return own_max_; }
  __device__ __forceinline__ bool has_nan() const { return has_nan_; }

  // The sum of exp(x - max): 0 where the classes are all at -inf, NaN where a NaN or +inf is in the row.
  __device__ __forceinline__ Scalar softmax_sum(Scalar max) {
    FASTCTC_SHARED_ARRAY(Scalar, sums, [kSums]);
    const Scalar shift = max == Scalar(-INFINITY) ? Scalar(0) : max;
    if (warp_id() == 0) sums[lane_id()] = 0;
    for_each_chunk([&] {
      Scalar terms[kOwn];
      for_each_own([&](int j, Scalar x) { terms[j] = softmax_term<W>(x, shift); });
      if (warp_id() > 0) named_barrier(warp_id(), 2 * kWarp);  // the warp before this one is done
      Scalar sum = sums[lane_id()];
      for_each_own([&](int j, Scalar) { sum += terms[j]; });
      sums[lane_id()] = sum;
      if (warp_id() < kRowWarps - 1) named_barrier(warp_id() + 1, 2 * kWarp);
      T::sync();
    });
    const Scalar sum = sums[lane_id()];
    T::sync();  // before another row begins
    return warp_sum(sum);
  }

  // f(x) for the classes of this thread. Those beyond the last one are at -inf.
  template <class Function>
  __device__ __forceinline__ void for_each(const Function& f) {
    for_each_chunk([&] { for_each_own([&](int, Scalar x) { f(x); }); });
  }
  // found(c) for the classes for which is_wanted(x); they are few.
  template <class Condition, class Function>
  __device__ __forceinline__ void for_each_mask(const Condition& is_wanted, const Function& found) {
    for_each_chunk([&] {
      uint32_t mask = 0;
      for_each_own([&](int j, Scalar x) { mask |= uint32_t(is_wanted(x)) << j; });
      for (; mask != 0; mask &= mask - 1) found(first_ + __popc(~mask & (mask - 1)) * kWarp);
    });
  }

 private:
  // The chunk from class c0 on.
  __device__ __forceinline__ void load(int64_t c0) {
    constexpr int kTogether = kGroup * kRowThreads;
    const int left = row_.classes - c0 < kChunk ? int(row_.classes - c0) : int(kChunk);
    count_ = (left + kTogether - 1) / kTogether * kGroup;
    const int begin = warp_id() * count_ * kWarp + lane_id(), size = count_ * kWarp;
    const int exist = left - begin < size ? left - begin : size;  // negative if none do
    first_ = c0 + begin;
    const Element* x = row_.x + first_ * row_.stride;
    if (row_.stride == 1 && __all_sync(kFullWarp, exist > size - kWarp)) {
      for_each_own([&](int j, Scalar) { x_[j] = to_scalar(x[j * kWarp]); });
    } else {
      for_each_own([&](int j, Scalar) {
        x_[j] = j * kWarp < exist ? to_scalar(*x) : Scalar(-INFINITY);
        x += kWarp * row_.stride;
      });
    }
  }
  template <class Function>
  __device__ __forceinline__ void for_each_chunk(const Function& f) {
#pragma unroll 1
    for (int64_t c0 = 0; c0 < row_.classes; c0 += kChunk) {
      if (row_.classes > kChunk) load(c0);
      f();
    }
  }
  template <class Function>
  __device__ __forceinline__ void for_each_own(const Function& f) {
#pragma unroll
    for (int j = 0; j < kOwn; j += kGroup) {
      if (j >= count_) break;
#pragma unroll
      for (int i = 0; i < kGroup; ++i) f(j + i, x_[j + i]);
    }
  }

  const Row<const Element> row_;
  int64_t first_;  // class of this thread
  int count_;      // classes of a lane in this chunk
  Scalar x_[kOwn];
  Scalar own_max_ = Scalar(-INFINITY);
  bool has_nan_ = false;
};

}  // namespace cuda
}  // namespace fastctc

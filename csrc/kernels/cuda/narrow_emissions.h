// The emissions of narrow_walk.h, and what the warps that make and that use them share: limits, rings in shared memory,
// and which lane has which labels.
#pragma once

#include "walk_task.h"

namespace fastctc {
namespace cuda {

constexpr int kNarrowColumns = 2;                               // longer targets are not narrow
constexpr int kNarrowSlots = 2 * kWarp;                         // of a column
constexpr int kMostNarrow = kNarrowColumns * kNarrowSlots - 2;  // labels
constexpr int kNarrowFrames = 8;                                // of a tile

constexpr int kLongestRow = 1 << 26;  // labels; the bytes of a row of pairs are an int

constexpr int kMostEmission = 120;    // the largest exponent of an emission, and of its reciprocal
constexpr int kNothing = -(1 << 28);  // the exponent of a state that no path has reached

struct alignas(8) TwoFloats {
  float first, second;
};
struct alignas(8) Carry {
  float m;
  int x;
};

// What a column receives; [2] are odd and even tiles.
struct NarrowRing {
  KeptPair kept[2][kNarrowFrames][kWarp];
  TwoFloats emissions[2][kNarrowFrames][kWarp];
  Carry carries[2][kNarrowFrames];
};

constexpr FASTCTC_HD int narrow_columns(int64_t length) {
  return int((length + 1 + (length & 1) + kNarrowSlots - 1) / kNarrowSlots);
}
// The threads and the shared memory of a block that has these columns.
constexpr FASTCTC_HD int narrow_threads(int columns) { return 4 * columns * kWarp; }
constexpr FASTCTC_HD size_t narrow_shared(int columns) { return 2 * columns * sizeof(NarrowRing); }

// A pointer to the place `bytes * count` behind another.
template <class T>
__device__ __forceinline__ T* behind(T* p, int bytes, int64_t count) {
#ifdef FASTCTC_EMULATED_CUDA
  if (!p) return p;  // nothing is kept; a sanitizer refuses to move a null pointer
#endif
  return reinterpret_cast<T*>(reinterpret_cast<char*>(p) + bytes * count);
}
FASTCTC_HD int larger(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

// The part of a warp in a narrow sample: its direction and column, and its two positions in each lane.
struct NarrowPlace {
  bool forward;
  int column, columns;
  int label[2], slot[2];
  bool has_label[2];
  int even;  // the even one of the two labels
  bool has_even;

  template <class Element, class Scalar>
  __device__ __forceinline__ NarrowPlace(const Task<Element, Scalar>& q, int warp)
      : forward(warp % 2 == 0), columns(narrow_columns(q.length)) {
    column = warp / 2 % columns;
    const int count = q.length + (q.length & 1);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int position = column * kNarrowSlots + 2 * lane_id() + c;
      label[c] = forward ? position : count - 1 - position;
      slot[c] = forward ? position : count - position;
      has_label[c] = unsigned(label[c]) < unsigned(q.length);
    }
    even = forward ? label[0] : label[1];
    has_even = forward ? has_label[0] : has_label[1];
  }
};

// The frames of a walk, in tiles. Tiles end where the other direction, or this one, takes the totals of a segment.
template <bool kSecond>
struct NarrowFrames {
  int first, count, step, offset, tiles;

  template <class Element, class Scalar>
  __device__ __forceinline__ NarrowFrames(const Task<Element, Scalar>& q, bool forward)
      : first(forward ? (kSecond ? q.middle : 0) : (kSecond ? q.middle : q.frames) - 1),
        count(forward == kSecond ? q.frames - q.middle : q.middle),
        step(forward ? 1 : -1),
        offset(kSecond ? 0 : (kNarrowFrames - 1 - count) & (kNarrowFrames - 1)),
        tiles(count > 0 ? (count + offset + kNarrowFrames - 1) / kNarrowFrames : 0) {}
  // The number of the first frame of a tile, which may be before 0; the frames [begin, end) of the tile exist.
  __device__ __forceinline__ int number(int tile) const { return tile * kNarrowFrames - offset; }
  __device__ __forceinline__ int begin(int tile) const { return number(tile) < 0 ? -number(tile) : 0; }
  __device__ __forceinline__ int end(int tile) const {
    const int left = count - number(tile);
    return left < kNarrowFrames ? left : kNarrowFrames;
  }
  __device__ __forceinline__ int64_t frame(int number) const { return first + step * number; }
};

// x * log2 e = n + r with an integer n.
struct BinarySplit {
  float n, r;
  __device__ __forceinline__ explicit BinarySplit(float x) {
    constexpr float log2_e_lo = 1.92596303e-8f;
    n = fmaf(x, Constants<float>::log2_e, kRound) - kRound;
    r = fmaf(x, log2_e_lo, fmaf(x, Constants<float>::log2_e, -n));
  }
  static constexpr float kRound = 12582912.0f;
};

// Makes the emissions of a column, and fetches what the other direction has kept.
template <bool kSecond, class Element>
class Producer {
 public:
  __device__ __forceinline__ Producer(const Task<Element, float>& q, const Streams<Element, float>& streams,
                                      const NarrowPlace& place, NarrowRing& ring, int64_t blank)
      : q_(q), blanks_(streams.blank), ring_(ring), frames_(q, place.forward), has_pair_(place.has_even) {
    step_ = frames_.step * q.stride_t;
    const int64_t t = frames_.frame(frames_.number(0));
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int64_t label = place.has_label[c] ? q.labels[place.label[c]] : blank;
      scores_[c] = streams.input + t * q.stride_t + label * q.stride_c;
    }
    kept_step_ = frames_.step * pairs_of(q.stride);
    kept_ = behind(streams.pairs, sizeof(KeptPair), t * pairs_of(q.stride) + place.even / 2);
    if (frames_.tiles > 0) load(0);
  }
  __device__ __forceinline__ int tiles() const { return frames_.tiles; }

  __device__ __forceinline__ void tile(int i) {
    const int parity = i & 1;
    if constexpr (kSecond) copy_kept(i, parity);
    TwoFloats x[kNarrowFrames];
#pragma unroll
    for (int d = 0; d < kNarrowFrames; ++d) x[d] = {to_scalar(next_[d][0]), to_scalar(next_[d][1])};
    narrow_ &= blank_ >= kZeroLog;
    const BinarySplit blank(blank_);
    float n[kNarrowFrames], r[kNarrowFrames];
#pragma unroll
    for (int d = 0; d < kNarrowFrames; ++d) {
      n[d] = from_lane(blank.n, d);
      r[d] = from_lane(blank.r, d);
    }
    if (i + 1 < frames_.tiles) load(i + 1);
#pragma unroll
    for (int d = 0; d < kNarrowFrames; ++d) {
      ring_.emissions[parity][d][lane_id()] = {emission(x[d].first, n[d], r[d]), emission(x[d].second, n[d], r[d])};
    }
    if constexpr (kSecond) async_wait<0>();
  }
  __device__ __forceinline__ bool is_narrow() const { return narrow_; }
  // The logarithm of the origins of all frames, in every lane.
  __device__ __forceinline__ double origins() const { return warp_sum(origins_ - kLn2 * log2_sums_); }

 private:
  __device__ __forceinline__ float emission(float score, float n, float r) {
    constexpr float round = BinarySplit::kRound;
    const BinarySplit x(score);
    const float fraction = x.r - r, rounded = fraction + round;
    const float exponent = (x.n - n) + rounded;  // an integer in the low bits of the mantissa
    narrow_ &= exponent >= round - kMostEmission && exponent <= round + kMostEmission;
    const float m = exp2_fraction(fraction - (rounded - round), 0.0f);
    return float_of(bits_of(m) + (bits_of(exponent) << 23));
  }

  // Loads the scores of a tile. Frames that do not exist get those of their neighbor.
  __device__ __forceinline__ void load(int i) {
    const int begin = frames_.begin(i), end = frames_.end(i);
    if (i > 0 && i < frames_.tiles - 1) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const Element* score = scores_[c];
#pragma unroll
        for (int d = 0; d < kNarrowFrames; ++d, score += step_) next_[d][c] = *score;
        scores_[c] = score;
      }
    } else {
#pragma unroll
      for (int d = 0; d < kNarrowFrames; ++d) {
        const int existing = d < begin ? begin : d < end ? d : end - 1;
        next_[d][0] = scores_[0][existing * step_];
        next_[d][1] = scores_[1][existing * step_];
      }
      scores_[0] += kNarrowFrames * step_;
      scores_[1] += kNarrowFrames * step_;
    }
    const int d = lane_id() < begin ? begin : lane_id() < end ? lane_id() : end - 1;
    const int64_t t = frames_.frame(frames_.number(i) + d);
    blank_ = blanks_[t];
    if (kSecond || d != lane_id()) return;
    origins_ += double(blank_);
    if (!q_.max) return;
    origins_ -= double(q_.max[t]);
    log2_sums_ += double(q_.log2_sum[t]);
  }

  __device__ __forceinline__ void copy_kept(int i, int parity) {
    const int end = frames_.end(i);
    KeptPair* const to = &ring_.kept[parity][0][lane_id()];
    if (has_pair_) {
      if (end == kNarrowFrames) {
#pragma unroll
        for (int d = 0; d < kNarrowFrames; ++d) async_copy<16>(to + d * kWarp, kept_ + d * kept_step_);
      } else {
#pragma unroll 1
        for (int d = 0; d < end; ++d) async_copy<16>(to + d * kWarp, kept_ + d * kept_step_);
      }
    }
    kept_ += kNarrowFrames * kept_step_;
    async_commit();
  }

  const Task<Element, float>& q_;
  const float* const blanks_;
  NarrowRing& ring_;
  const NarrowFrames<kSecond> frames_;
  const bool has_pair_;
  int64_t step_, kept_step_;  // from frame to frame
  const Element* scores_[2];  // of frame 0 of the tile that is loaded next
  const KeptPair* kept_;      // of frame 0 of the tile that is made next
  Element next_[kNarrowFrames][2];
  float blank_ = 0;  // in lane d of frame d
  bool narrow_ = true;
  double origins_ = 0, log2_sums_ = 0;
};

}  // namespace cuda
}  // namespace fastctc

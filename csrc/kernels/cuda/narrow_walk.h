// The walks of walk.h for samples whose emissions have a narrow range: about six times faster. A sample that turns out
// not to be narrow is done again by walk.h.
//
// A lane has two neighboring slots. Its states are mantissas in [1, 2), or a little more, with integer exponents:
//
//              b[0]   e[0]   b[1]   e[1]   of lane l   --->   s of lane l + 1, one shuffle for each part of e[1]
//
// No state is zero. States that no path has reached are about 2^kNothing, and vanish in sums with others.
//
// Emissions are floats, relative to the blank's. Other warps, the producers, make them, one tile ahead, in shared
// memory. A block has one warp of each kind for each column of 64 slots in each direction:
//
//   step        0        1        2        3               A barrier of all warps of a direction ends each step.
//   producer 0  tile 0   tile 1   tile 2
//   walker 0             tile 0   tile 1   tile 2
//   producer 1           tile 0   tile 1   tile 2          Of column 1, which receives the states at the edge of
//   walker 1                      tile 0   tile 1          column 0 one tile later.
//
// Backward, the target is walked in reverse, so that both directions have the same code: position k is label k forward,
// and label E - 1 - k backward. E is the even one of S and S + 1: both directions have the same two labels in a lane.
// A position without a label has the blank's emissions. Its states reach no other that counts.
#pragma once

#include "walk.h"

namespace fastctc {
namespace cuda {

constexpr int kNarrowColumns = 2;                               // longer targets are not narrow
constexpr int kNarrowSlots = 2 * kWarp;                         // of a column
constexpr int kMostNarrow = kNarrowColumns * kNarrowSlots - 2;  // labels
constexpr int kNarrowFrames = 8;                                // of a tile

constexpr int kMostEmission = 120;  // the largest exponent of an emission, and of its reciprocal
constexpr int kNothing = -(1 << 28);

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
__device__ __forceinline__ T* behind(T* p, int bytes, int count) {
  return reinterpret_cast<T*>(reinterpret_cast<char*>(p) + int64_t(bytes) * count);
}
__device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }
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
    kept_ = streams.pairs + t * pairs_of(q.stride) + place.even / 2;
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

// m * 2^x. No number but those of paths has an exponent above kNothing / 2.
struct LaneNumber {
  float m;
  int x;

  __device__ __forceinline__ Scaled<Lanes<float>> scaled() const {
    using X = Scaled<Lanes<float>>;
    return x < kNothing / 2 ? X::zero() : normalize(X{m, float(x)});
  }
};
// m * 2^(x - top)
__device__ __forceinline__ float aligned(LaneNumber a, int top) {
  return a.m * float_of((uint32_t(larger(a.x - top, -127)) << 23) + (127u << 23));
}
__device__ __forceinline__ float aligned_sum(LaneNumber a, LaneNumber b, int top) {
  const float f = float_of((uint32_t(larger(a.x - top, -127)) << 23) + (127u << 23));
  return fmaf(a.m, f, aligned(b, top));
}

// The states of a lane.
struct NarrowStates {
  LaneNumber b[2], e[2];

  __device__ __forceinline__ explicit NarrowStates(const NarrowPlace& place, int length) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      b[c] = {1, place.slot[c] == (place.forward ? 0 : length) ? 0 : kNothing};
      e[c] = {1, kNothing};
    }
  }
};

// Walks a column. See transition() of recursion.h.
template <bool kSecond, class Element>
class Walker {
  using X = Scaled<Lanes<float>>;

 public:
  __device__ __forceinline__ Walker(const Task<Element, float>& q, const Streams<Element, float>& streams,
                                    const NarrowPlace& place, NarrowRing* rings, NarrowStates& states)
      : q_(q),
        place_(place),
        ring_(rings[place.column]),
        next_ring_(rings[place.column + 1 < place.columns ? place.column + 1 : 0]),
        states_(states),
        frames_(q, place.forward),
        hands_on_(lane_id() == kWarp - 1 && place.column + 1 < place.columns),
        keeps_(q.keep && place.has_even),
        barred_{may_skip(q.labels, place.slot[0], q.length) ? 0 : 2 * kNothing,
                may_skip(q.labels, place.slot[1], q.length) ? 0 : 2 * kNothing},
        last_tile_(frames_.tiles - 1),
        measured_(kSecond  ? kSegmentTiles - 1
                  : q.keep ? ((frames_.count + frames_.offset) / kNarrowFrames) % kSegmentTiles
                           : -1) {
    const int64_t t = frames_.frame(frames_.number(0));
    step_ = frames_.step * int(kSecond ? q.stride * sizeof(float) : pairs_of(q.stride) * sizeof(KeptPair));
    kept_ = streams.pairs + t * pairs_of(q.stride) + place.even / 2;
    for (int c = 0; c < 2; ++c) occupancies_[c] = streams.kept.m + t * q.stride + place.label[c];
    receive();
  }
  __device__ __forceinline__ int tiles() const { return frames_.tiles; }

  __device__ __forceinline__ void tile(int i) {
    const int parity = i & 1;
    const TwoFloats* const emissions = ring_.emissions[parity][0] + lane_id();
    const Carry* const carries = ring_.carries[parity];
    const KeptPair* const kept = ring_.kept[parity][0] + lane_id();
    if (i > 0 && i < last_tile_) {
      TwoFloats p = emissions[0];
      Carry carry = carries[0];
#pragma unroll
      for (int d = 0; d < kNarrowFrames; ++d) {
        // Loads come before stores that the compiler takes for the same memory.
        const int ahead = d + 1 < kNarrowFrames ? d + 1 : d;
        const TwoFloats next_p = emissions[ahead * kWarp];
        const Carry next_carry = carries[ahead];
        frame(parity, d, p, carry, kept[d * kWarp]);
        p = next_p;
        carry = next_carry;
      }
    } else {
#pragma unroll 1
      for (int d = frames_.begin(i); d < frames_.end(i); ++d) {
        frame(parity, d, emissions[d * kWarp], carries[d], kept[d * kWarp]);
      }
    }
    normalize_blanks();
    kept_ = behind(kept_, step_, kNarrowFrames);
    for (int c = 0; c < 2; ++c) occupancies_[c] = behind(occupancies_[c], step_, kNarrowFrames);
    if (i % kSegmentTiles == measured_) {
      const int last = frames_.number(i) + kNarrowFrames - 1;
      if (kSecond) {
        measure(last);
      } else {
        snapshot(frames_.count - 1 - last);
      }
    }
  }

 private:
  static constexpr int kSegmentTiles = kSegment / kNarrowFrames;

  // Takes over the edge of the lane below.
  __device__ __forceinline__ void receive() {
    received_.x = from_lane_below(states_.e[1].x, 1);
    received_.m = from_lane_below(states_.e[1].m, 1);
  }

  __device__ __forceinline__ void frame(int parity, int d, TwoFloats p, Carry carry, KeptPair kept) {
    NarrowStates& a = states_;
    if (hands_on_) next_ring_.carries[parity][d] = {a.e[1].m, a.e[1].x};
    const LaneNumber e0 = a.e[0];
    const LaneNumber s = {lane_id() == 0 ? carry.m : received_.m, lane_id() == 0 ? carry.x : received_.x};
    const LaneNumber open1 = open(a.b[1], a.e[1], e0, barred_[1]);
    a.e[1] = close(open1, p.second);
    receive();
    const LaneNumber open0 = open(a.b[0], e0, s, barred_[0]);
    a.e[0] = close(open0, p.first);
    a.b[1] = sum(a.b[1], e0);
    a.b[0] = sum(a.b[0], s);
    if constexpr (kSecond) {
      occupancy_[0] = product(open0, {kept.second, kept.second_x});
      occupancy_[1] = product(open1, {kept.first, kept.first_x});
      if (place_.has_label[0]) *behind(occupancies_[0], step_, d) = occupancy_[0];
      if (place_.has_label[1]) *behind(occupancies_[1], step_, d) = occupancy_[1];
    } else {
      if (keeps_) *behind(kept_, step_, d) = {a.e[1].m, a.e[1].x, a.e[0].m, a.e[0].x};
    }
  }

  static __device__ __forceinline__ LaneNumber sum(LaneNumber a, LaneNumber b) {
    const int top = larger(a.x, b.x);
    return {aligned_sum(a, b, top), top};
  }
  // e + b + s, without s where it is barred.
  static __device__ __forceinline__ LaneNumber open(LaneNumber b, LaneNumber e, LaneNumber s, int barred) {
    s.x += barred;
    const int top = larger(larger(b.x, e.x), s.x);
    const float f = float_of((uint32_t(larger(e.x - top, -127)) << 23) + (127u << 23));
    return {fmaf(e.m, f, aligned_sum(b, s, top)), top};
  }
  // Times an emission, with a mantissa in [1, 2).
  static __device__ __forceinline__ LaneNumber close(LaneNumber a, float p) {
    const uint32_t bits = bits_of(a.m * p);
    return {float_of((bits & 0x7fffffu) | 127u << 23), a.x + int(bits >> 23) - 127};
  }
  static __device__ __forceinline__ float product(LaneNumber a, LaneNumber b) {
    return aligned({a.m * b.m, a.x}, -b.x);
  }
  __device__ __forceinline__ void normalize_blanks() {
#pragma unroll
    for (int c = 0; c < 2; ++c) states_.b[c] = close(states_.b[c], 1);
  }

  __device__ __forceinline__ bool has_slot(int c) const { return unsigned(place_.slot[c]) <= unsigned(q_.length); }
  __device__ __forceinline__ int64_t snapshot_row(int k) const { return int64_t(k / kSegment) * (q_.stride + 1); }

  // Keeps the blanks for frame number k of the other direction's second walk, if totals are taken there.
  __device__ __forceinline__ void snapshot(int k) const {
    if (k < 0) return;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      if (!has_slot(c)) continue;
      q_.snapshots[!place_.forward].store(snapshot_row(k) + place_.slot[c], states_.b[c].scaled());
    }
  }
  // The sum over all paths at frame number k, the part of this column.
  __device__ __forceinline__ void measure(int k) const {
    auto* const totals = q_.totals[!place_.forward];
    if (k >= frames_.count) return;
    float total = 0;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      if (place_.has_label[c]) total += occupancy_[c];
      if (!has_slot(c)) continue;
      const X other = q_.snapshots[place_.forward].load(snapshot_row(k) + place_.slot[c]);
      total += (states_.b[c].scaled() * other).value();
    }
    total = warp_sum(total);
    if (lane_id() == 0) totals[k / kSegment].of_warp[place_.column] = total;
  }

  const Task<Element, float>& q_;
  const NarrowPlace& place_;
  NarrowRing &ring_, &next_ring_;
  NarrowStates& states_;
  const NarrowFrames<kSecond> frames_;
  const bool hands_on_, keeps_;
  const int barred_[2];             // is added to the exponent of a neighbor that may not be skipped
  const int last_tile_, measured_;  // tiles modulo kSegmentTiles at whose ends totals are taken
  int step_;                        // bytes from frame to frame
  KeptPair* kept_;                  // of frame 0 of the next tile, as
  float* occupancies_[2];
  float occupancy_[2];
  LaneNumber received_;
};

// The warps of a block in a narrow sample.
template <class Element>
class NarrowBlock {
 public:
  __device__ __forceinline__ NarrowBlock(const Task<Element, float>& q, const Streams<Element, float>& streams,
                                         NarrowRing* rings, int64_t blank)
      : q_(q),
        streams_(streams),
        place_(q, warp_id()),
        rings_(rings + (place_.forward ? 0 : place_.columns)),
        states_(place_, q.length),
        blank_(blank) {
    if (role() != kWalker || place_.column > 0 || lane_id() >= 2 * kNarrowFrames) return;
    (&rings_[0].carries[0][0])[lane_id()] = {1, kNothing};
  }

  // Returns whether the sample is narrow. Leaves the sum of the origins of each direction in `offsets`, and the states
  // in the memory of the task.
  __device__ __forceinline__ bool first_walks(double* offsets) {
    bool narrow = true;
    if (role() == kProducer) {
      Producer<false, Element> producer(q_, streams_, place_, rings_[place_.column], blank_);
      walk(producer, place_.column);
      narrow = producer.is_narrow();
      const double origins = producer.origins();
      if (place_.column == 0 && lane_id() == 0) offsets[!place_.forward] = origins;
    } else if (role() == kWalker) {
      Walker<false, Element> walker(q_, streams_, place_, rings_, states_);
      walk(walker, place_.column + 1);
      leave();
    }
    return __syncthreads_and(narrow);
  }
  // From the states where the first walks have ended, divided by m * 2^e.
  __device__ __forceinline__ void second_walks(float m, float e) {
    if (role() == kProducer) {
      Producer<true, Element> producer(q_, streams_, place_, rings_[place_.column], blank_);
      walk(producer, place_.column);
    } else if (role() == kWalker) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        for (LaneNumber* number : {&states_.b[c], &states_.e[c]}) *number = {number->m * (1 / m), number->x - int(e)};
      }
      Walker<true, Element> walker(q_, streams_, place_, rings_, states_);
      walk(walker, place_.column + 1);
    }
    __syncthreads();
  }

 private:
  enum Role { kWalker, kProducer, kIdle };
  __device__ __forceinline__ Role role() const { return Role(smaller(warp_id() / (2 * place_.columns), 2)); }
  // All tiles, from step `first` on; all warps of a direction take the same number of steps.
  template <class Part>
  __device__ __forceinline__ void walk(Part& part, int first) const {
    const int steps = part.tiles() + place_.columns;
#pragma unroll 1
    for (int step = 0; step < first; ++step) end_step();
#pragma unroll 1
    for (int i = 0; i < part.tiles(); ++i) {
      part.tile(i);
      end_step();
    }
#pragma unroll 1
    for (int step = first + part.tiles(); step < steps; ++step) end_step();
  }
  __device__ __forceinline__ void end_step() const { named_barrier(1 + place_.forward, 2 * place_.columns * kWarp); }
  // Leaves the states for meet().
  __device__ __forceinline__ void leave() const {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      if (unsigned(place_.slot[c]) > unsigned(q_.length)) continue;
      q_.states[!place_.forward].store(place_.slot[c], states_.b[c].scaled());
      q_.states[!place_.forward].store(q_.stride + 1 + place_.slot[c], states_.e[c].scaled());
    }
  }

  const Task<Element, float>& q_;
  const Streams<Element, float>& streams_;
  const NarrowPlace place_;
  NarrowRing* const rings_;  // of this direction
  NarrowStates states_;
  const int64_t blank_;
};

}  // namespace cuda
}  // namespace fastctc

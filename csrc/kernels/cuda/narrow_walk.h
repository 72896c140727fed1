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

#include "narrow_emissions.h"
#include "walk.h"

namespace fastctc {
namespace cuda {

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
    kept_ = behind(streams.pairs, sizeof(KeptPair), t * pairs_of(q.stride) + place.even / 2);
    for (int c = 0; c < 2; ++c) occupancies_[c] = behind(streams.kept.m, sizeof(float), t * q.stride + place.label[c]);
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

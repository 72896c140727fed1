// The data of the walks in walk.h: the memory of a batch, the task that is a sample, and what warps exchange.
#pragma once

#include "../../math/recursion.h"
#include "../ctc_loss.h"
#include "../workspace.h"
#include "lanes.h"
#include "targets.h"

namespace fastctc {
namespace cuda {

// Warps in each direction: as many as find the registers that they need.
template <class Scalar>
constexpr int kMaxWarps = sizeof(Scalar) == 4 ? 8 : 4;
template <class Scalar>
constexpr int kTileFrames = kSegment / kMaxWarps<Scalar>;
constexpr int kTotals = 4;  // segments whose totals are in use at the same time

// Of a segment of the second walk.
template <class Scalar, class Stored>
struct SegmentTotals {
  Stored of_warp[kMaxWarps<Scalar>];  // of all paths at its last frame, the part of each warp
  Stored correction;                  // of the states at its first frame

  __device__ __forceinline__ Stored sum(int warps) const {
    Stored total = 0;
    for (int w = 0; w < warps; ++w) total += of_warp[w];
    return total;
  }
};

// Two neighboring label states of a narrow walk, m * 2^x each.
struct alignas(16) KeptPair {
  float second;
  int32_t second_x;
  float first;
  int32_t first_x;
};
FASTCTC_HD int64_t pairs_of(int64_t length) { return (length + 1) / 2; }

// The memory of a batch. For each (n, t, i) it holds an exponent: the mantissas of label states are kept in place of
// the occupancies.
template <class Stored>
struct ForwardWorkspace {
  int64_t* offsets;  // of target_offsets
  Plane<Stored> states, snapshots;
  Stored* exponents;  // (N, T, S) of the kept states; or, in the same memory,
  KeptPair* pairs;    // (N, T, pairs_of(S)) what narrow walks keep
  char* totals;       // (N, 2) SegmentTotals of each segment; with states of any type
  uint8_t* counts;    // (N, S) of loss_bound.h
  size_t size;

  ForwardWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    offsets = w.take<int64_t>(target_offsets_count(p));
    states = w.take_plane<Stored>(p.batch * 2 * states_size(p));
    snapshots = w.take_plane<Stored>(p.need_grad ? p.batch * 2 * snapshots_size(p) : 0);
    const int64_t rows = p.need_grad ? p.batch * p.frames : 0;
    const int64_t narrow = sizeof(Stored) == 4 && !p.has_options() ? rows * pairs_of(p.max_length) : 0;
    const int64_t bytes = rows * p.max_length * int64_t(sizeof(Stored));
    pairs = w.take<KeptPair>(narrow * int64_t(sizeof(KeptPair)) > bytes ? narrow : (bytes + 15) / 16);
    exponents = reinterpret_cast<Stored*>(pairs);
    totals = w.take<char>(p.need_grad ? p.batch * 2 * totals_bytes(p) : 0);
    counts = w.take<uint8_t>(p.batch * p.max_length);
    size = w.size();
  }
  // of one direction of one sample
  static FASTCTC_HD int64_t states_size(const CtcLossParams& p) { return 2 * (p.max_length + 1); }
  static FASTCTC_HD int64_t totals_bytes(const CtcLossParams& p) {
    return ((p.frames + 1) / 2 / kSegment + 1) * int64_t(sizeof(SegmentTotals<float, Stored>));
  }
  static FASTCTC_HD int64_t snapshots_size(const CtcLossParams& p) {
    return (p.frames + 1) / 2 / kSegment * (p.max_length + 1);
  }
};

// An array of scaled floats. It has mantissas of type Stored. Its exponents are floats, too, or integers where floats
// would not be exact (wide: Scalar is double, Stored is float).
template <class Scalar, class Stored>
struct ExponentOf {
  using type = Scalar;
};
template <>
struct ExponentOf<double, float> {
  using type = int32_t;
};
template <class Scalar, class Stored>
struct Numbers {
  using X = Scaled<Lanes<Scalar>>;
  using Exponent = typename ExponentOf<Scalar, Stored>::type;
  Stored* m;
  Exponent* e;

  static __device__ __forceinline__ Exponent exponent(Scalar e) {
    constexpr Scalar limit = 1 << 30;
    if constexpr (sizeof(Scalar) != sizeof(Stored)) {
      e = Lanes<Scalar>::min(Lanes<Scalar>::max(e, -limit), limit);
    }
    return Exponent(e);
  }
  __device__ __forceinline__ X load(int64_t i) const { return {Scalar(m[i]), Scalar(e[i])}; }
  __device__ __forceinline__ void store(int64_t i, X x) const {
    m[i] = Stored(x.m);
    e[i] = exponent(x.e);
  }
  __device__ __forceinline__ Numbers operator+(int64_t i) const { return {m + i, e + i}; }
};

// The arrays of a sample that a walk reads and writes in every frame.
template <class Element, class Scalar>
struct Streams {
  using Stored = typename ScalarOf<Element>::type;
  const Element* input;          // (T, C)
  Stored* blank;                 // (T) the blank's scores; the second walk leaves the totals of all paths there
  Numbers<Scalar, Stored> kept;  // (T, stride): closed label states; the mantissas are where the occupancies will be
  KeptPair* pairs;               // (T, pairs_of(stride)): those of narrow walks
};

template <class Element, class Scalar>
__device__ __forceinline__ Streams<Element, Scalar> make_streams(
    const CtcLossParams& p, const ForwardWorkspace<typename ScalarOf<Element>::type>& w, int64_t n) {
  using Stored = typename ScalarOf<Element>::type;
  using Exponent = typename Numbers<Scalar, Stored>::Exponent;
  const int64_t rows = n * p.frames * p.max_length;
  return {row_of<Element>(p, 0, n),
          FrameScalars<Stored>(p, n).blank,
          {static_cast<Stored*>(p.occupancy) + rows, reinterpret_cast<Exponent*>(w.exponents) + rows},
          w.pairs + n * p.frames * pairs_of(p.max_length)};
}

// The rest of what a walk needs of a sample. It is in shared memory, to save registers.
template <class Element, class Scalar>
struct Task {
  using Stored = typename ScalarOf<Element>::type;
  using Memory = Numbers<Scalar, Stored>;

  int frames, middle;  // the first walk forward has frames [0, middle)
  int length;          // S of this sample
  int columns, warps;  // of slots; in each direction
  int stride;          // of the rows of labels: max_length
  int filled;          // labels that occupancies are written for; zero from `length` on
  bool keep;           // label states, for a second walk
  int far;             // frames by which scores are brought into the cache ahead of use; all if they are there
  int64_t stride_t, stride_c;
  const int64_t* labels;
  const Stored *max, *log2_sum;              // (T) row statistics; null for log-probabilities
  Memory states[2];                          // of each direction (2, stride + 1): b and e of each slot
  Memory snapshots[2];                       // of each direction (segments, stride + 1): closed blank states
  SegmentTotals<Scalar, Stored>* totals[2];  // of each direction (segments)
  // options
  const Stored* bias;
  Stored blank_bias;
  int64_t star;
  double delay_penalty;
};

template <class Element, class Scalar>
__device__ __forceinline__ Task<Element, Scalar> make_task(const CtcLossParams& p,
                                                           const ForwardWorkspace<typename ScalarOf<Element>::type>& w,
                                                           int64_t n, int64_t offset, int column) {
  using Stored = typename ScalarOf<Element>::type;
  using Memory = typename Task<Element, Scalar>::Memory;
  using Exponent = typename Memory::Exponent;
  const int64_t S = p.max_length;
  const auto memory = [](Plane<Stored> plane, int64_t i) {
    return Memory{plane.m + i, reinterpret_cast<Exponent*>(plane.e) + i};
  };
  Task<Element, Scalar> q;
  q.frames = int(p.input_lengths[n]);
  q.middle = q.frames / 2;
  q.length = int(p.target_lengths[n]);
  q.columns = q.length / column + 1;
  q.warps = q.columns < kMaxWarps<Scalar> ? q.columns : kMaxWarps<Scalar>;
  q.stride = int(S);
  q.filled = int(S < q.columns * column - 1 ? S : q.columns * column - 1);
  q.keep = p.need_grad;
  // An input of more than 32 MiB is taken to have left the cache since its statistics were made.
  const bool cached = p.frames * p.batch * p.classes * int64_t(sizeof(Element)) <= int64_t(32) << 20;
  q.far = cached ? q.frames : 24;
  q.stride_t = p.stride_t;
  q.stride_c = p.stride_c;
  q.labels = p.targets + offset;
  const FrameScalars<Stored> frame(p, n);
  q.max = frame.max;
  q.log2_sum = frame.log2_sum;
  for (int side = 0; side < 2; ++side) {
    q.states[side] = memory(w.states, (2 * n + side) * w.states_size(p));
    q.totals[side] = reinterpret_cast<SegmentTotals<Scalar, Stored>*>(w.totals + (2 * n + side) * w.totals_bytes(p));
    q.snapshots[side] = memory(w.snapshots, (2 * n + side) * w.snapshots_size(p));
  }
  q.bias = static_cast<const Stored*>(p.class_bias);
  q.blank_bias = q.bias ? q.bias[p.blank] : Stored(0);
  q.star = p.star;
  q.delay_penalty = p.delay_penalty;
  return q;
}

// What the warps of a block exchange; [2] are the directions.
template <class Scalar>
struct Exchange {
  static constexpr int kWarps = kMaxWarps<Scalar>;
  Scalar carry_m[2][kWarps + 1][2][kTileFrames<Scalar>];  // the last: zero, what the first column receives
  Scalar carry_e[2][kWarps + 1][2][kTileFrames<Scalar>];
  Scalar totals[2][kTotals][kWarps];
  Scalar range[2][kWarps];  // largest exponents
  Scalar p_m, p_e;          // the probability of all paths
  double offset[2];         // the logarithm of the origins
};

}  // namespace cuda
}  // namespace fastctc

// CTC loss on CUDA, forward:
//
//   statistics  a warp or a block per row of logits
//   recursions  a block per sample: checks its lengths and labels, then the walks of walk.h; then again in double for
//               the samples that need it. Values decide which those are: one score of 1e7 in one frame is enough. So
//               the host launches this for any shape.
//
// The scores of labels are read from the input where they are needed, twice.
#include "../ctc_loss.h"

#include "../loss_bound.h"
#include "rows.h"
#include "narrow_walk.h"
#include "walk.h"

namespace fastctc {
namespace cuda {
namespace {

// A team takes several rows at a time: what is to be done once for each of them, its lanes do for all.
template <int kWarps>
constexpr int kRowsTogether = kWarps == 1 ? 8 : 1;

template <class Element, int kWarps>
__global__ void __launch_bounds__(kRowThreads, sizeof(typename ScalarOf<Element>::type) == 4 ? 3 : 2)
    statistics(CtcLossParams p) {
  using Stored = typename ScalarOf<Element>::type;
  using T = RowTeam<kWarps>;
  constexpr int kRows = kRowsTogether<kWarps>;
  FASTCTC_SHARED_ARRAY(Stored, shared, [kWarps]);
  const bool frame_first = p.stride_t >= p.stride_n;
  const int64_t rows = p.batch * p.frames;
  for (int64_t r0 = T::first_row() * kRows; r0 < rows; r0 += T::row_step() * kRows) {
    const int own = lane_id() % kRows;
    const int64_t r = r0 + own < rows ? r0 + own : rows - 1;
    const Frame frame(r, p.frames, p.batch, frame_first);
    const bool used = frame.t < p.input_lengths[frame.n];
    const int64_t offset = used ? frame.t * p.stride_t + frame.n * p.stride_n : 0;
    RowSum<Stored> row = {0, 1};
#pragma unroll 1
    for (int k = 0; k < kRows; ++k) {
      const Element* const x = static_cast<const Element*>(p.input) + (kRows > 1 ? from_lane(offset, k) : offset);
      const RowSum<Stored> found = sum_row<kWarps>(Row<const Element>(x, p.stride_c, p.classes), shared);
      if (used && own == k) row = found;
    }
    if (T::rank() >= kRows || r0 + own >= rows) continue;
    const FrameScalars<Stored> out(p, frame.n);
    out.blank[frame.t] = used ? to_scalar(row_of<Element>(p, frame.t, frame.n)[p.blank * p.stride_c]) : Stored(0);
    out.max[frame.t] = row.max;
    out.log2_sum[frame.t] = std::log2(row.sum);
  }
}

// Zeros in what the walks have left of the occupancies of sample n: labels from `filled` on, and frames from `frames`
// on.
template <class Stored>
__device__ __forceinline__ void clear(const CtcLossParams& p, int64_t n, int64_t frames, int64_t filled) {
  if (!p.need_grad) return;
  const int64_t S = p.max_length;
  Stored* const out = static_cast<Stored*>(p.occupancy) + n * p.frames * S;
  for (int64_t t = warp_id(); filled < S && t < frames; t += blockDim.x / kWarp) {
    for (int64_t i = filled + lane_id(); i < S; i += kWarp) out[t * S + i] = 0;
  }
  for (int64_t i = frames * S + threadIdx.x; i < p.frames * S; i += blockDim.x) out[i] = 0;
}

// Inspects a sample, by all threads of a block; reads the blank's scores where these are log-probabilities. Returns
// false if there is nothing to walk, and writes the status and the loss.
template <class Element>
__device__ __forceinline__ bool begin(const CtcLossParams& p, int64_t n, int64_t offset) {
  using Stored = typename ScalarOf<Element>::type;
  const Status status = inspect(p, n, offset);
  const int64_t frames = status == kOk ? p.input_lengths[n] : 0;
  if (status != kOk && threadIdx.x == 0) {
    p.status[n] = status;
    static_cast<Stored*>(p.loss)[n] = status == kInfeasible ? Stored(INFINITY) : Stored(NAN);
  }
  if (!p.from_logits) {
    Stored* const blank = FrameScalars<Stored>(p, n).blank;
    const Element* const x = row_of<Element>(p, 0, n) + p.blank * p.stride_c;
#pragma unroll 4
    for (int64_t t = threadIdx.x; t < p.frames; t += blockDim.x) {
      blank[t] = t < frames ? to_scalar(x[t * p.stride_t]) : Stored(0);
    }
  }
  return status == kOk;
}

// The status and the loss of a sample, from what the first walks have found.
struct Outcome {
  Status status;
  double loss;
};
template <bool kOptions, class Element, class Scalar>
__device__ __forceinline__ Outcome outcome(const Task<Element, Scalar>& q, const Exchange<Scalar>& shared,
                                           Scaled<Lanes<Scalar>> total) {
  double offset = shared.offset[0] + shared.offset[1];
  double range = 0;
  for (int i = 0; i < q.warps; ++i) range = fmax(range, fmax(double(shared.range[0][i]), double(shared.range[1][i])));
  if (kOptions && q.delay_penalty != 0) {
    range = fmax(range, largest_tilt(q.delay_penalty, q.length));
    offset -= tilt_of_all_paths(q.delay_penalty, q.length, q.frames);
  }
  Outcome found = {kOk, double(NAN)};
  if (!(fabs(offset) < double(INFINITY)) || total.m != total.m) {
    found.status = kNotANumber;
  } else if (sizeof(Scalar) == 4 && range * q.frames > kLargestExponent) {
    found.status = kTooWide;
  } else if (!(total.m > 0)) {
    found = {kInfeasible, double(INFINITY)};
  } else {
    found.loss = 0 - (kLn2 * (log2(double(total.m)) + double(total.e)) + offset);
  }
  return found;
}

// Is P at most 1? By all threads of a block; see loss_bound.h. It is apart from the kernel, to which it would cost
// registers, and gets a copy, because the address of a kernel's parameter would.
template <class Stored>
FASTCTC_OUT_OF_LINE bool is_bounded(CtcLossParams p, int64_t n, const int64_t* labels, uint8_t* counts) {
  if (p.delay_penalty != 0) return false;
  bool bounded = true;
  for (int64_t i = threadIdx.x; i < p.target_lengths[n]; i += blockDim.x) {
    bounded &= label_is_bounded(p, labels, i, counts);
  }
  bounded = __syncthreads_and(bounded);
  if (!bounded || frames_are_bounded(p)) return bounded;
  for (int64_t t = threadIdx.x; bounded && t < p.input_lengths[n]; t += blockDim.x) {
    bounded = frame_is_bounded<Stored>(p, n, t, labels, counts);
  }
  return __syncthreads_and(bounded);
}

// What all first walks together have found, by all threads of a block. Writes the status and the loss.
template <bool kOptions, class Element, class Scalar>
__device__ __forceinline__ Outcome settle(const CtcLossParams& p, int64_t n, const Task<Element, Scalar>& q,
                                          Exchange<Scalar>& shared, uint8_t* counts) {
  using Stored = typename ScalarOf<Element>::type;
  if (warp_id() == 0) {
    const Scaled<Lanes<Scalar>> total = meet(q);
    if (lane_id() == 0) {
      shared.p_m = total.m;
      shared.p_e = total.e;
    }
  }
  __syncthreads();
  Outcome found = outcome<kOptions>(q, shared, {shared.p_m, shared.p_e});
  if (found.loss < 0 && is_bounded<Stored>(p, n, q.labels, counts)) found.loss = 0;
  if (threadIdx.x == 0) {
    p.status[n] = found.status;
    static_cast<Stored*>(p.loss)[n] = Stored(found.loss);
  }
  return found;
}

// The shared memory of a block; the rings of narrow walks follow.
template <class Element, class Scalar>
struct alignas(16) BlockMemory {
  Exchange<Scalar> shared;
  Task<Element, Scalar> task;
};

// Does a sample by narrow walks, with all threads of a block, and returns true; returns false if it is not narrow.
template <class Element>
__device__ __forceinline__ bool walk_narrow(const CtcLossParams& p, int64_t n, const Task<Element, float>& q,
                                            const Streams<Element, float>& streams, Exchange<float>& shared,
                                            NarrowRing* rings, uint8_t* counts) {
  const int columns = narrow_columns(q.length);
  if (columns > kNarrowColumns || q.stride > kLongestRow) return false;
  if (double(kMostEmission) * q.frames > kLargestExponent) return false;
  NarrowBlock<Element> block(q, streams, rings, p.blank);
  if (threadIdx.x < 2 * kMaxWarps<float>) (&shared.range[0][0])[threadIdx.x] = 0;
  if (!block.first_walks(shared.offset)) return false;
  const Outcome found = settle<false>(p, n, q, shared, counts);
  if (found.status != kOk) {
    clear<float>(p, n, 0, 0);
  } else if (p.need_grad) {
    for (int i = threadIdx.x; i <= (q.frames + 1) / 2 / kSegment; i += blockDim.x) {
      q.totals[0][i].correction = q.totals[1][i].correction = 1;
    }
    block.second_walks(shared.p_m, shared.p_e);
    clear<float>(p, n, q.frames, q.length);
    keep_totals(q, streams.blank, columns);
  }
  return true;
}

// K labels in each lane, at most kWarps warps in each direction. The states are Scalars. Where these are not of the
// type of the results (wide), the kernel does the samples marked kTooWide only. Long function: the phases between its
// barriers share what the threads hold in registers.
template <class Element, class Scalar, int K, int kWarps, bool kOptions>
__global__ void __launch_bounds__(2 * kWarp * kWarps, 1)
    recursions(CtcLossParams p, ForwardWorkspace<typename ScalarOf<Element>::type> w) {
  using Stored = typename ScalarOf<Element>::type;
  using X = Scaled<Lanes<Scalar>>;
  constexpr bool kWide = sizeof(Scalar) != sizeof(Stored);
  const int64_t n = blockIdx.x;
  if (kWide && p.status[n] != kTooWide) return;
  const int64_t offset = target_offset(p, n);
  if (!kWide && !begin<Element>(p, n, offset)) return clear<Stored>(p, n, 0, 0);
  auto& memory = *dynamic_shared<BlockMemory<Element, Scalar>>();
  Exchange<Scalar>& shared = memory.shared;
  if (threadIdx.x == 0) memory.task = make_task<Element, Scalar>(p, w, n, offset, K * kWarp);
  const Task<Element, Scalar>& q = memory.task;
  const Streams<Element, Scalar> streams = make_streams<Element, Scalar>(p, w, n);
  const int warps = blockDim.x / kWarp / 2, side = warp_id() / warps, rank = warp_id() % warps;
  if (rank == 0 && lane_id() < 2 * kTileFrames<Scalar>) {
    (&shared.carry_m[side][kMaxWarps<Scalar>][0][0])[lane_id()] = 0;
    (&shared.carry_e[side][kMaxWarps<Scalar>][0][0])[lane_id()] = Scalar(kZeroExponent);
  }
  __syncthreads();
  if constexpr (sizeof(Scalar) == 4 && !kOptions) {
    const auto rings = reinterpret_cast<NarrowRing*>(&memory + 1);
    if (walk_narrow(p, n, q, streams, shared, rings, w.counts + n * p.max_length)) return;
  }
  if (rank < q.warps) {
    const Scalar range =
        side == 0 ? Walk<Direction::kForward, false, K, kOptions, Element, Scalar>(q, streams, shared, rank).run({})
                  : Walk<Direction::kBackward, false, K, kOptions, Element, Scalar>(q, streams, shared, rank).run({});
    if (lane_id() == 0) shared.range[side][rank] = range;
  }
  if (rank == 0) {
    const double offset = sum_origins(q, streams.blank, side == 0);
    if (lane_id() == 0) shared.offset[side] = offset;
  }
  __syncthreads();
  const Outcome found = settle<kOptions>(p, n, q, shared, w.counts + n * p.max_length);
  if (found.status == kTooWide) return;
  if (found.status != kOk) return clear<Stored>(p, n, 0, 0);
  if (!p.need_grad) return;

  const X factor = {1 / shared.p_m, -shared.p_e};
  if (rank < q.warps) {
    if (side == 0) {
      Walk<Direction::kForward, true, K, kOptions, Element, Scalar>(q, streams, shared, rank).run(factor);
    } else {
      Walk<Direction::kBackward, true, K, kOptions, Element, Scalar>(q, streams, shared, rank).run(factor);
    }
  }
  clear<Stored>(p, n, q.frames, q.filled);
  __syncthreads();
  keep_totals(q, streams.blank, q.warps);
}

template <class Element, class Scalar, int K, int kWarps, bool kOptions>
cudaError_t run_recursions(const CtcLossParams& p, const ForwardWorkspace<typename ScalarOf<Element>::type>& w,
                           cudaStream_t stream) {
  constexpr bool kWide = sizeof(Scalar) != sizeof(typename ScalarOf<Element>::type);
  const int64_t columns = p.max_length / (K * kWarp) + 1;
  int threads = 2 * kWarp * int(columns < kWarps ? columns : kWarps);
  size_t shared_bytes = sizeof(BlockMemory<Element, Scalar>);
  if constexpr (sizeof(Scalar) == 4 && !kOptions) {
    const int narrow = narrow_columns(p.max_length < kMostNarrow ? p.max_length : kMostNarrow);
    threads = larger(threads, narrow_threads(narrow));
    shared_bytes += narrow_shared(narrow);
  }
  return launch(kWide ? "recursions, wide" : "recursions", recursions<Element, Scalar, K, kWarps, kOptions>,
                dim3(unsigned(p.batch)), dim3(unsigned(threads)), shared_bytes, stream, p, w);
}

template <class Element>
cudaError_t run_recursions(const CtcLossParams& p, const ForwardWorkspace<typename ScalarOf<Element>::type>& w,
                           cudaStream_t stream) {
  using Scalar = typename ScalarOf<Element>::type;
  constexpr int kWarps = kMaxWarps<Scalar>;
  // Fewer threads have more registers, which narrow walks need.
  constexpr int kShortWarps = sizeof(Scalar) == 4 ? narrow_threads(kNarrowColumns) / kWarp / 2 : kWarps;
  if (p.has_options() && p.max_length < kWarp) return run_recursions<Element, Scalar, 1, 1, true>(p, w, stream);
  if (p.has_options()) return run_recursions<Element, Scalar, 2, kWarps, true>(p, w, stream);
  if (p.max_length <= kMostNarrow) return run_recursions<Element, Scalar, 2, kShortWarps, false>(p, w, stream);
  return run_recursions<Element, Scalar, 2, kWarps, false>(p, w, stream);
}

template <class Element>
cudaError_t forward(CtcLossParams p, void* workspace, cudaStream_t stream) {
  using Stored = typename ScalarOf<Element>::type;
  if (p.batch > INT32_MAX || p.frames > INT32_MAX / 2 || p.max_length > INT32_MAX / 2) return cudaErrorInvalidValue;
  const ForwardWorkspace<Stored> w(workspace, p);
  cudaError_t error = target_offsets(p, w.offsets, stream);
  if (!error && p.from_logits) {
    error = launch_rows(
        "statistics", p.classes < kLongRow, statistics<Element, 1>, statistics<Element, kRowWarps>,
        p.classes < kLongRow ? (p.batch * p.frames + kRowsTogether<1> - 1) / kRowsTogether<1> : p.batch * p.frames, 0,
        stream, p);
  }
  if (!error) error = run_recursions<Element>(p, w, stream);
  if constexpr (sizeof(Stored) < sizeof(double)) {
    if (!error) error = run_recursions<Element, double, 2, kMaxWarps<double>, true>(p, w, stream);
  }
  return error;
}

}  // namespace

size_t ctc_loss_forward_workspace(const CtcLossParams& p) {
  if (p.dtype == DType::kFloat64) return ForwardWorkspace<double>(nullptr, p).size;
  return ForwardWorkspace<float>(nullptr, p).size;
}
int ctc_loss_forward(const CtcLossParams& p, void* workspace, void* stream) {
  return with_element(p.dtype, [&](auto element) {
    return int(forward<decltype(element)>(p, workspace, static_cast<cudaStream_t>(stream)));
  });
}

}  // namespace cuda
}  // namespace fastctc

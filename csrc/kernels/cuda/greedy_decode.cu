// Greedy decoding on CUDA: a warp per frame finds its best class, then a warp per sample merges the frames.
#include "../greedy_decode.h"

#include "../../math/prefix.h"
#include "../workspace.h"
#include "denominator.h"

namespace fastctc {
namespace cuda {
namespace {

struct GreedyWorkspace {
  int64_t* best;  // (N, T)
  double* score;  // (N, T) its log-probability, NaN where the frame has no valid one
  size_t size;

  GreedyWorkspace(void* base, const GreedyDecodeParams& p) {
    Workspace w(base);
    best = w.take<int64_t>(p.batch * p.frames);
    score = w.take<double>(p.batch * p.frames);
    size = w.size();
  }
};

template <class Scalar>
struct Candidate {
  Scalar value;
  int64_t index;  // the number of classes: none yet
};
// The larger value; the lower class of equals.
template <class Scalar>
__device__ __forceinline__ Candidate<Scalar> better(Candidate<Scalar> a, Candidate<Scalar> b, int64_t none) {
  if (a.index == none) return b;
  if (b.index == none) return a;
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

template <class Element>
__device__ __forceinline__ void best_class(const GreedyDecodeParams& p, const GreedyWorkspace& w, int64_t frame) {
  using Scalar = typename ScalarOf<Element>::type;
  const auto [t, n] = Frame(frame, p.frames, p.batch, false);
  if (t >= p.input_lengths[n]) return;
  const Element* const x = static_cast<const Element*>(p.input) + n * p.stride_n + t * p.stride_t;
  Candidate<Scalar> best = {Scalar(-INFINITY), p.classes};
  bool nan = false;
  for (int64_t c = lane_id(); c < p.classes; c += kWarp) {
    const Scalar value = to_scalar(x[c * p.stride_c]);
    nan |= value != value;
    best = better(best, Candidate<Scalar>{value, c}, p.classes);
  }
  for (int d = kWarp / 2; d > 0; d /= 2) {
    best = better(best, Candidate<Scalar>{from_lane_across(best.value, d), from_lane_across(best.index, d)}, p.classes);
  }
  nan = __any_sync(kFullWarp, nan);
  double log_denominator = 0;
  if (p.from_logits && !nan) {
    const Row<const Element> row(x, p.stride_c, p.classes);
    const double sum = double(softmax_sum(row, best.value));
    if (sum != 0) log_denominator = double(best.value) + log_of<Lanes<double>>(sum);  // else all are at -inf
  }
  if (lane_id() == 0) {
    const double log_prob = double(best.value) - log_denominator;
    w.best[frame] = best.index;
    w.score[frame] = !nan && log_prob <= kLargestLogProb ? log_prob : double(NAN);
  }
}

template <class Element>
__global__ void __launch_bounds__(kRowThreads) best_classes(GreedyDecodeParams p, GreedyWorkspace w) {
  using T = RowTeam<1>;
  for (int64_t r = T::first_row(); r < p.batch * p.frames; r += T::row_step()) best_class<Element>(p, w, r);
}

// 32 frames at a time: a ballot of the frames that start a token gives each its place.
template <class Scalar>
__global__ void __launch_bounds__(kWarp) merge_frames(GreedyDecodeParams p, GreedyWorkspace w) {
  const int64_t n = blockIdx.x, frames = p.input_lengths[n];
  const int64_t* const best = w.best + n * p.frames;
  const double* const frame_score = w.score + n * p.frames;
  const GreedyOutput<Scalar> out(p, n);
  const bool in_range = frames >= 0 && frames <= p.frames;
  double score = in_range ? 0.0 : double(NAN);
  int64_t length = 0;
  for (int64_t t0 = 0; in_range && t0 < frames; t0 += kWarp) {
    const int64_t t = t0 + lane_id();
    const bool starts = t < frames && best[t] != p.blank && (t == 0 || best[t] != best[t - 1]);
    const unsigned mask = __ballot_sync(kFullWarp, starts);
    if (starts) {
      const int64_t place = length + __popc(mask & ((1u << lane_id()) - 1u));
      int64_t end = t + 1, peak_frame = t;
      double peak = frame_score[t], sum = peak;
      for (; end < frames && best[end] == best[t]; ++end) {
        sum += frame_score[end];
        if (frame_score[end] > peak) {
          peak = frame_score[end];
          peak_frame = end;
        }
      }
      out.template put<Lanes<double>>(place, best[t], t, end, peak_frame, peak, sum);
    }
    length += __popc(mask);
    const int64_t count = frames - t0 < kWarp ? frames - t0 : int64_t(kWarp);
    for (int64_t k = 0; k < count; ++k) score += frame_score[t0 + k];  // in order, as on the CPU
  }
  if (score != score) length = 0;
  __syncwarp();
  for (int64_t i = length + lane_id(); i < p.frames; i += kWarp) out.pad(i);
  if (lane_id() == 0) {
    p.lengths[n] = length;
    static_cast<Scalar*>(p.scores)[n] = Scalar(at_most_zero(score));
  }
}

template <class Element>
cudaError_t decode(const GreedyDecodeParams& p, void* workspace, cudaStream_t stream) {
  using Scalar = typename ScalarOf<Element>::type;
  const GreedyWorkspace w(workspace, p);
  const cudaError_t error = launch_warps("best_classes", best_classes<Element>, p.batch * p.frames, 0, stream, p, w);
  if (error) return error;
  return launch("merge_frames", merge_frames<Scalar>, dim3(unsigned(p.batch)), dim3(kWarp), 0, stream, p, w);
}

}  // namespace

size_t greedy_decode_workspace(const GreedyDecodeParams& p) { return GreedyWorkspace(nullptr, p).size; }
int greedy_decode(const GreedyDecodeParams& p, void* workspace, void* stream) {
  return with_element(p.dtype, [&](auto element) {
    return int(decode<decltype(element)>(p, workspace, static_cast<cudaStream_t>(stream)));
  });
}

}  // namespace cuda
}  // namespace fastctc

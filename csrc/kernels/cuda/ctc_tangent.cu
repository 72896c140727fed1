// Derivatives of the CTC occupancies on CUDA.
//
//   inspect_samples  a block per sample: checks lengths and labels
//   frames           a warp per frame:  log-softmax statistics, what emissions are relative to, NaN
//   derive           a warp per sample: emissions and recursions (tangent_sample.h), the result
#include "../ctc_tangent.h"

#include "../tangent_sample.h"
#include "rows.h"
#include "targets.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int kMaxRegisters = 2;
constexpr int kInspectThreads = 128;

using TangentLanes = Lanes<double>;

struct CudaWorkspace {
  int64_t* offsets;    // of target_offsets
  int32_t* inspected;  // (N) the status before any frame was read
  char* samples;
  size_t sample_size, size;

  CudaWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    offsets = w.take<int64_t>(target_offsets_count(p));
    inspected = w.take<int32_t>(p.batch);
    sample_size = TangentWorkspace<TangentLanes>(nullptr, p.frames, p.max_length).size;
    samples = w.take<char>(p.batch * int64_t(sample_size));
    size = w.size();
  }
  __device__ __forceinline__ TangentWorkspace<TangentLanes> sample(const CtcLossParams& p, int64_t n) const {
    return {samples + n * sample_size, p.frames, p.max_length};
  }
};

// Keeps the status twice: the frames kernel changes one while it reads the other.
__global__ void __launch_bounds__(kInspectThreads) inspect_samples(CtcLossParams p, int32_t* inspected) {
  const int64_t n = blockIdx.x;
  const Status status = inspect(p, n, target_offset(p, n));
  if (threadIdx.x == 0) p.status[n] = inspected[n] = status;
}

// The log-sum-exp of a row of logits, by the whole warp. Another sum would change the bits of second derivatives
// (log_space.h).
__device__ __forceinline__ double log_sum_exp(const TangentScores& scores, int64_t t) {
  double top = -double(INFINITY), sum = 0;
  bool nan = false;
  for (int64_t c = lane_id(); c < scores.p.classes; c += kWarp) {
    const double x = scores.input(t, c);
    top = x > top ? x : top;
    nan |= x != x;
  }
  if (__any_sync(kFullWarp, nan)) return NAN;
  top = warp_max(top);
  for (int64_t c = lane_id(); c < scores.p.classes; c += kWarp) sum += std::exp(scores.input(t, c) - top);
  return top + std::log(warp_sum(sum));
}

__device__ __forceinline__ void inspect_frame(const CtcTangentParams& params, const CudaWorkspace& workspace, int64_t n,
                                              int64_t t) {
  const CtcLossParams& p = params.loss;
  if (workspace.inspected[n] != kOk || t >= p.input_lengths[n]) return;
  const TangentScores scores(params, n);
  const double star = p.from_logits ? log_sum_exp(scores, t) : 0;
  const bool finite = look_at_frame(scores, p.targets + target_offset(p, n), t, star, workspace.sample(p, n));
  if (!finite) atomicMax(&p.status[n], int32_t(kNotANumber));
}

__global__ void __launch_bounds__(kRowThreads) frames(CtcTangentParams params, CudaWorkspace workspace) {
  using T = RowTeam<1>;
  const CtcLossParams& p = params.loss;
  for (int64_t r = T::first_row(); r < p.batch * p.frames; r += T::row_step()) {
    const Frame frame(r, p.frames, p.batch, false);
    inspect_frame(params, workspace, frame.n, frame.t);
  }
}

template <class Scalar>
__global__ void __launch_bounds__(kWarp) derive(CtcTangentParams params, CudaWorkspace workspace) {
  const CtcLossParams& p = params.loss;
  const int64_t n = blockIdx.x;
  const TangentWorkspace<TangentLanes> w = workspace.sample(p, n);
  int32_t status = p.status[n];
  if (status == kOk) {
    TangentSample<TangentLanes, kMaxRegisters> sample(params, n, p.targets + target_offset(p, n), w);
    if (!sample.run()) status = kInfeasible;
  }
  write_occupancy_tangent<TangentLanes, Scalar>(params, n, status, w.occupancy_tangent);
}

cudaError_t tangent(CtcTangentParams p, void* workspace, cudaStream_t stream) {
  const CudaWorkspace w(workspace, p.loss);
  const dim3 samples{unsigned(p.loss.batch)}, warp(kWarp);
  cudaError_t error = target_offsets(p.loss, w.offsets, stream);
  if (!error) {
    error = launch("inspect_samples", inspect_samples, samples, dim3(kInspectThreads), 0, stream, p.loss, w.inspected);
  }
  if (!error) error = launch_warps("frames", frames, p.loss.batch * p.loss.frames, 0, stream, p, w);
  if (error) return error;
  if (p.loss.dtype == DType::kFloat64) return launch("derive", derive<double>, samples, warp, 0, stream, p, w);
  return launch("derive", derive<float>, samples, warp, 0, stream, p, w);
}

}  // namespace

size_t ctc_tangent_workspace(const CtcTangentParams& p) { return CudaWorkspace(nullptr, p.loss).size; }
int ctc_tangent(const CtcTangentParams& p, void* workspace, void* stream) {
  return int(tangent(p, workspace, static_cast<cudaStream_t>(stream)));
}

}  // namespace cuda
}  // namespace fastctc

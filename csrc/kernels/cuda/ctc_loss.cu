// CTC loss on CUDA.
//
// forward:   inspect     a warp per sample: checks lengths and labels, where a path may skip a blank
//            emissions   a warp per frame:  log-softmax statistics, emissions of the blank and of the labels
//            recursions  a warp per sample: alpha, then beta and the occupancies
// backward:  chain       a warp per sample: links equal labels
//            gradient    a warp per frame:  one pass over the classes, then the labels
#include "../ctc_loss.h"

#include "../../math/element.h"
#include "../workspace.h"
#include "lanes.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kMaxLabelsPerLane = 4;

int labels_per_lane(int64_t length) { return length < kWarp ? 1 : length < 2 * kWarp ? 2 : kMaxLabelsPerLane; }

template <class Scalar>
struct ForwardWorkspace {
  int64_t slots, blocks;
  Plane<Scalar> labels, blank, alpha, state_b, state_e, carries;
  uint8_t *skip_into, *skip_from;
  int32_t* inspected;  // (N) the status before any emission was read
  size_t size;

  ForwardWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    const int64_t block = int64_t(kWarp) * labels_per_lane(p.max_length), N = p.batch, T = p.frames;
    blocks = (p.max_length + 1 + block - 1) / block;
    slots = blocks * block;
    labels = w.take_plane<Scalar>(N * T * slots);
    blank = w.take_plane<Scalar>(N * T);
    alpha = w.take_plane<Scalar>(p.need_grad ? N * T * slots : 0);
    state_b = w.take_plane<Scalar>(N * slots);
    state_e = w.take_plane<Scalar>(N * slots);
    carries = w.take_plane<Scalar>(N * (blocks + 1) * kTile);
    skip_into = w.take<uint8_t>(N * slots);
    skip_from = w.take<uint8_t>(N * slots);
    inspected = w.take<int32_t>(N);
    size = w.size();
  }
};

struct BackwardWorkspace {
  int32_t* next;   // (N, S) the next position with the same label, or -1
  uint8_t* first;  // (N, S) is no earlier label the same?
  size_t size;

  BackwardWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    next = w.take<int32_t>(p.batch * p.max_length);
    first = w.take<uint8_t>(p.batch * p.max_length);
    size = w.size();
  }
};

template <class Scalar>
__global__ void __launch_bounds__(kWarp) inspect(CtcLossParams p, ForwardWorkspace<Scalar> w) {
  const int64_t n = blockIdx.x, offset = p.target_offsets[n], length = p.target_lengths[n];
  const int64_t end = p.target_columns < 0 ? p.target_count : offset + p.target_columns;
  int32_t status = lengths_are_valid(p.input_lengths[n], p.frames, length, offset, end) ? kOk : kInvalid;
  const int64_t* const labels = p.targets + offset;
  if (status == kOk) {
    bool valid = true;
    for (int64_t i = lane_id(); i < length; i += kWarp) valid &= label_is_valid(labels[i], p.classes, p.blank);
    if (!__all_sync(kFullWarp, valid)) status = kInvalid;
  }
  if (status == kOk && (length > p.input_lengths[n] || length > p.max_length)) status = kInfeasible;
  if (lane_id() == 0) p.status[n] = w.inspected[n] = status;
  if (status != kOk) return;
  for (int64_t i = lane_id(); i < w.slots; i += kWarp) {
    w.skip_into[n * w.slots + i] = may_skip(labels, i, length);
    w.skip_from[n * w.slots + i] = may_skip(labels, i + 1, length);
  }
}

template <class Element, class Scalar>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock) emissions(CtcLossParams p, ForwardWorkspace<Scalar> w) {
  const int64_t frame = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int64_t n = frame / p.frames, t = frame % p.frames;
  if (n >= p.batch) return;
  const bool used = w.inspected[n] == kOk && t < p.input_lengths[n];
  const Element* const x = static_cast<const Element*>(p.input) + t * p.stride_t + n * p.stride_n;
  RowStatistics<Scalar> statistics = {0, 0};
  if (p.from_logits) {
    if (used) statistics = row_statistics(x, p.classes, p.stride_c);
    if (p.need_grad && lane_id() == 0) {
      Scalar* const out = static_cast<Scalar*>(p.row_statistics) + frame * 2;
      out[0] = statistics.max;
      out[1] = statistics.log2_sum;
    }
  }
  if (!used) return;
  const RowStatistics<Scalar>* const row = p.from_logits ? &statistics : nullptr;
  const int64_t* const labels = p.targets + p.target_offsets[n];
  const int64_t length = p.target_lengths[n];
  bool nan = false;
  for (int64_t i = lane_id(); i < w.slots; i += kWarp) {
    Emission<Scalar> y = {0, 0};
    if (i < length) y = emission<Scalar>(to_scalar(x[labels[i] * p.stride_c]), row);
    w.labels.m[frame * w.slots + i] = y.m;
    w.labels.e[frame * w.slots + i] = y.e;
    nan |= y.m != y.m;
  }
  if (lane_id() == 0) {
    const Emission<Scalar> y = emission<Scalar>(to_scalar(x[p.blank * p.stride_c]), row);
    w.blank.m[frame] = y.m;
    w.blank.e[frame] = y.e;
    nan |= y.m != y.m;
  }
  if (__any_sync(kFullWarp, nan) && lane_id() == 0) atomicMax(&p.status[n], int32_t(kNotANumber));
}

template <class Scalar, int K>
__global__ void __launch_bounds__(kWarp) recursions(CtcLossParams p, ForwardWorkspace<Scalar> w) {
  const int64_t n = blockIdx.x, slots = w.slots, frames = p.frames;
  Scalar* const loss = static_cast<Scalar*>(p.loss) + n;
  const int32_t status = p.status[n];
  if (status != kOk) {
    if (lane_id() == 0) *loss = status == kInfeasible ? Scalar(INFINITY) : Scalar(NAN);
    return;
  }
  Sequence<Scalar> q;
  q.frames = p.input_lengths[n];
  q.length = p.target_lengths[n];
  q.slots = slots;
  q.labels = w.labels + n * frames * slots;
  q.blank = w.blank + n * frames;
  q.skip_into = w.skip_into + n * slots;
  q.skip_from = w.skip_from + n * slots;
  q.alpha = w.alpha + n * frames * slots;
  q.state_b = w.state_b + n * slots;
  q.state_e = w.state_e + n * slots;
  q.carries = w.carries + n * (w.blocks + 1) * kTile;
  q.occupancy = static_cast<Scalar*>(p.occupancy) + n * frames * p.max_length;
  q.occupancy_stride = p.max_length;
  const double log2_p = forward_backward<Lanes<Scalar>, K>(q, p.need_grad);
  if (lane_id() == 0) {
    *loss = Scalar(-0.6931471805599453 * log2_p);
    if (!(log2_p > -INFINITY)) p.status[n] = kInfeasible;
  }
}

__global__ void __launch_bounds__(kWarp) chain(CtcLossParams p, BackwardWorkspace w) {
  const int64_t n = blockIdx.x;
  if (p.status[n] != kOk) return;
  const int64_t* const labels = p.targets + p.target_offsets[n];
  const int64_t length = p.target_lengths[n];
  for (int64_t i = lane_id(); i < length; i += kWarp) {
    int64_t next = i + 1, before = i - 1;
    while (next < length && labels[next] != labels[i]) ++next;
    while (before >= 0 && labels[before] != labels[i]) --before;
    w.next[n * p.max_length + i] = next < length ? int32_t(next) : -1;
    w.first[n * p.max_length + i] = before < 0;
  }
}

template <class Element>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock) gradient(CtcLossParams p, BackwardWorkspace w) {
  using Scalar = typename ScalarOf<Element>::type;
  const int64_t frame = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int64_t n = frame / p.frames, t = frame % p.frames;
  if (n >= p.batch) return;
  const int32_t status = p.status[n];
  Element* const out = static_cast<Element*>(p.grad) + t * p.grad_stride_t + n * p.grad_stride_n;
  const bool used = (status == kOk || status == kNotANumber) && t < p.input_lengths[n];
  if (!used || status == kNotANumber) {
    for (int64_t c = lane_id(); c < p.classes; c += kWarp) {
      from_scalar(used ? Scalar(NAN) : Scalar(0), out[c * p.grad_stride_c]);
    }
    return;
  }
  const Scalar g = static_cast<const Scalar*>(p.grad_loss)[n];
  const Element* const x = static_cast<const Element*>(p.input) + t * p.stride_t + n * p.stride_n;
  const Scalar* const statistics = static_cast<const Scalar*>(p.row_statistics) + frame * 2;
  const auto softmax = [&](int64_t c) {
    if (!p.from_logits) return Scalar(0);
    return std::exp2((to_scalar(x[c * p.stride_c]) - statistics[0]) * Log2E<Scalar>::hi - statistics[1]);
  };
  for (int64_t c = lane_id(); c < p.classes; c += kWarp) from_scalar(g * softmax(c), out[c * p.grad_stride_c]);
  __syncwarp();

  const int64_t* const labels = p.targets + p.target_offsets[n];
  const int64_t length = p.target_lengths[n];
  const Scalar* const occupancy = static_cast<const Scalar*>(p.occupancy) + frame * p.max_length;
  Scalar total = 0;
  for (int64_t i = lane_id(); i < length; i += kWarp) {
    if (!w.first[n * p.max_length + i]) continue;
    Scalar gamma = 0;
    for (int64_t k = i; k >= 0; k = w.next[n * p.max_length + k]) gamma += occupancy[k];
    from_scalar(g * (softmax(labels[i]) - gamma), out[labels[i] * p.grad_stride_c]);
    total += gamma;
  }
  const Scalar blank = Scalar(1) - warp_sum(total);
  if (lane_id() == 0)
    from_scalar(g * (softmax(p.blank) - (blank > 0 ? blank : Scalar(0))), out[p.blank * p.grad_stride_c]);
}

dim3 blocks_for_frames(const CtcLossParams& p) {
  return dim3(unsigned((p.batch * p.frames + kWarpsPerBlock - 1) / kWarpsPerBlock));
}

template <class Scalar, int K>
cudaError_t run_recursions(const CtcLossParams& p, const ForwardWorkspace<Scalar>& w, cudaStream_t stream) {
  return launch(recursions<Scalar, K>, dim3(unsigned(p.batch)), dim3(kWarp), 0, stream, p, w);
}

template <class Element>
cudaError_t forward(const CtcLossParams& p, void* workspace, cudaStream_t stream) {
  using Scalar = typename ScalarOf<Element>::type;
  const ForwardWorkspace<Scalar> w(workspace, p);
  if (p.need_grad) {
    const size_t bytes = size_t(p.batch * p.frames * p.max_length) * sizeof(Scalar);
    if (const cudaError_t error = cudaMemsetAsync(p.occupancy, 0, bytes, stream)) return error;
  }
  const dim3 samples{unsigned(p.batch)};
  if (const cudaError_t error = launch(inspect<Scalar>, samples, dim3(kWarp), 0, stream, p, w)) return error;
  const dim3 rows(kWarp * kWarpsPerBlock);
  if (const cudaError_t error = launch(emissions<Element, Scalar>, blocks_for_frames(p), rows, 0, stream, p, w))
    return error;
  switch (labels_per_lane(p.max_length)) {
    case 1:
      return run_recursions<Scalar, 1>(p, w, stream);
    case 2:
      return run_recursions<Scalar, 2>(p, w, stream);
    default:
      return run_recursions<Scalar, kMaxLabelsPerLane>(p, w, stream);
  }
}

template <class Element>
cudaError_t backward(const CtcLossParams& p, void* workspace, cudaStream_t stream) {
  const BackwardWorkspace w(workspace, p);
  if (const cudaError_t error = launch(chain, dim3(unsigned(p.batch)), dim3(kWarp), 0, stream, p, w)) return error;
  return launch(gradient<Element>, blocks_for_frames(p), dim3(kWarp * kWarpsPerBlock), 0, stream, p, w);
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

size_t ctc_loss_backward_workspace(const CtcLossParams& p) { return BackwardWorkspace(nullptr, p).size; }
int ctc_loss_backward(const CtcLossParams& p, void* workspace, void* stream) {
  return with_element(p.dtype, [&](auto element) {
    return int(backward<decltype(element)>(p, workspace, static_cast<cudaStream_t>(stream)));
  });
}

}  // namespace cuda
}  // namespace fastctc

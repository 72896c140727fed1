#include "targets.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int kThreads = 512;

// An exclusive prefix sum by one block: each thread has a range of samples.
__global__ void __launch_bounds__(kThreads) sum_lengths(CtcLossParams p, int64_t* offsets) {
  FASTCTC_SHARED_ARRAY(int64_t, warp_totals, [kThreads / kWarp]);
  const int64_t each = (p.batch + kThreads - 1) / kThreads;
  const int64_t begin = int64_t(threadIdx.x) * each, end = begin + each < p.batch ? begin + each : p.batch;
  int64_t own = 0;
  for (int64_t n = begin; n < end; ++n) own += summed_length(p, n);
  const int64_t sum = warp_sum_up_to(own);
  if (lane_id() == kWarp - 1) warp_totals[warp_id()] = sum;
  __syncthreads();
  int64_t offset = sum - own;
  for (int w = 0; w < warp_id(); ++w) offset += warp_totals[w];
  for (int64_t n = begin; n < end; ++n) {
    offsets[n] = offset;
    offset += summed_length(p, n);
  }
}

}  // namespace

cudaError_t target_offsets(CtcLossParams& p, int64_t* offsets, cudaStream_t stream) {
  p.target_offsets = target_offsets_count(p) > 0 ? offsets : nullptr;
  if (!p.target_offsets) return cudaSuccess;
  return launch("sum_lengths", sum_lengths, dim3(1), dim3(kThreads), 0, stream, p, offsets);
}

}  // namespace cuda
}  // namespace fastctc

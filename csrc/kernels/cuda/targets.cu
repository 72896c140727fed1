#include "targets.h"

#include "lanes.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int kThreads = 512;

// An exclusive prefix sum by one block: each thread has a range of samples.
__global__ void __launch_bounds__(kThreads) sum_lengths(CtcLossParams p, int64_t* offsets) {
  FASTCTC_SHARED_ARRAY(int64_t, warp_totals, [kThreads / kWarp]);
  const int64_t each = (p.batch + kThreads - 1) / kThreads;
  const int64_t begin = int64_t(threadIdx.x) * each, end = begin + each < p.batch ? begin + each : p.batch;
  // A length that is out of range marks its own sample as invalid. Here it must not overflow.
  const auto length = [&](int64_t n) {
    const int64_t x = p.target_lengths[n];
    return x < 0 ? int64_t(0) : x <= p.target_count ? x : p.target_count + 1;
  };
  int64_t own = 0;
  for (int64_t n = begin; n < end; ++n) own += length(n);
  const int64_t sum = warp_sum_up_to(own);
  if (lane_id() == kWarp - 1) warp_totals[warp_id()] = sum;
  __syncthreads();
  int64_t offset = sum - own;
  for (int w = 0; w < warp_id(); ++w) offset += warp_totals[w];
  for (int64_t n = begin; n < end; ++n) {
    offsets[n] = offset;
    offset += length(n);
  }
}

}  // namespace

cudaError_t target_offsets(CtcLossParams& p, int64_t* offsets, cudaStream_t stream) {
  if (p.target_columns >= 0 || p.batch == 0) return cudaSuccess;
  p.target_offsets = offsets;
  return launch("sum_lengths", sum_lengths, dim3(1), dim3(kThreads), 0, stream, p, offsets);
}

}  // namespace cuda
}  // namespace fastctc

// The targets of a batch: where the labels of each sample start, and whether they and the lengths are valid.
#pragma once

#include "../../math/lattice.h"
#include "../ctc_loss.h"
#include "lanes.h"

namespace fastctc {
namespace cuda {

// Concatenated targets of at most this many samples: each warp adds up the lengths before its own sample. The additions
// of a batch grow with the square of it, so for more samples a kernel adds them up once.
constexpr int64_t kMostAdded = 1024;

// Values that target_offsets needs room for.
inline int64_t target_offsets_count(const CtcLossParams& p) {
  return p.target_columns < 0 && p.batch > kMostAdded ? p.batch : 0;
}

// Fills `offsets` and makes p.target_offsets point to it, where target_offsets_count is not 0; else makes it null.
cudaError_t target_offsets(CtcLossParams& p, int64_t* offsets, cudaStream_t stream);

// A length that is out of range marks its own sample as invalid. In sums it must not overflow.
__device__ __forceinline__ int64_t summed_length(const CtcLossParams& p, int64_t n) {
  const int64_t x = p.target_lengths[n];
  return x < 0 ? int64_t(0) : x <= p.target_count ? x : p.target_count + 1;
}

// Where the labels of sample n start, by a whole warp. Offsets are never negative, and never decrease, whatever the
// lengths are.
__device__ __forceinline__ int64_t target_offset(const CtcLossParams& p, int64_t n) {
  if (p.target_columns >= 0) return n * p.target_columns;
  if (p.target_offsets) return p.target_offsets[n];
  int64_t sum = 0;
#pragma unroll 4
  for (int64_t i = lane_id(); i < n; i += kWarp) sum += summed_length(p, i);
  return warp_sum(sum);
}

// The status of a sample, whose labels start at `offset`, by all threads of a block: kOk, kInfeasible or kInvalid.
__device__ __forceinline__ Status inspect(const CtcLossParams& p, int64_t n, int64_t offset) {
  const int64_t frames = p.input_lengths[n], length = p.target_lengths[n];
  const int64_t end = p.target_columns < 0 ? p.target_count : offset + p.target_columns;
  bool valid = lengths_are_valid(frames, p.frames, length, offset, end);
  for (int64_t i = threadIdx.x; valid && i < length; i += blockDim.x) {
    valid = label_is_valid(p, p.targets[offset + i]);
  }
  valid = __syncthreads_and(valid);
  const bool fits = length <= frames && length <= p.max_length;
  return !valid ? kInvalid : fits ? kOk : kInfeasible;
}

}  // namespace cuda
}  // namespace fastctc

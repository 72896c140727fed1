// Where the labels of each sample start, and the labels of a sample in order.
#pragma once

#include "../ctc_loss.h"
#include "launch.h"

namespace fastctc {
namespace cuda {

// Values that target_offsets needs room for; 0 for padded targets, whose offsets need no memory.
inline int64_t target_offsets_count(const CtcLossParams& p) { return p.target_columns < 0 ? p.batch : 0; }

// Fills `offsets` and makes p.target_offsets point to it, where the targets are concatenated. Offsets are never
// negative, and never decrease, whatever the lengths are.
cudaError_t target_offsets(CtcLossParams& p, int64_t* offsets, cudaStream_t stream);

__device__ __forceinline__ int64_t target_offset(const CtcLossParams& p, int64_t n) {
  return p.target_columns < 0 ? p.target_offsets[n] : n * p.target_columns;
}

}  // namespace cuda
}  // namespace fastctc

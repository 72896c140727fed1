// The targets of a batch: where the labels of each sample start, and whether they and the lengths are valid.
#pragma once

#include "../../math/lattice.h"
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

constexpr int kInspectThreads = 128;

// A block per sample checks its lengths and labels, and writes its status: kOk, kInfeasible or kInvalid. All threads of
// the block then call then(p, n, status).
template <class Then>
__global__ void __launch_bounds__(kInspectThreads) inspect(CtcLossParams p, Then then) {
  const int64_t n = blockIdx.x, frames = p.input_lengths[n], length = p.target_lengths[n];
  const int64_t offset = target_offset(p, n), end = p.target_columns < 0 ? p.target_count : offset + p.target_columns;
  bool valid = lengths_are_valid(frames, p.frames, length, offset, end);
  for (int64_t i = threadIdx.x; valid && i < length; i += kInspectThreads) {
    valid = label_is_valid(p, p.targets[offset + i]);
  }
  valid = __syncthreads_and(valid);
  const bool fits = length <= frames && length <= p.max_length;
  const Status status = !valid ? kInvalid : fits ? kOk : kInfeasible;
  if (threadIdx.x == 0) p.status[n] = status;
  then(p, n, status);
}

// Runs target_offsets, then inspect.
template <class Then>
cudaError_t inspect_targets(CtcLossParams& p, int64_t* offsets, const Then& then, cudaStream_t stream) {
  if (const cudaError_t error = target_offsets(p, offsets, stream)) return error;
  return launch("inspect", inspect<Then>, dim3(unsigned(p.batch)), dim3(kInspectThreads), 0, stream, p, then);
}

}  // namespace cuda
}  // namespace fastctc

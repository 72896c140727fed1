// The directional derivative of the occupancies of ctc_loss.h:
//
//   occupancy_tangent[n, t, i] = d/de P(label i emits frame t | target n) as the log-probabilities move by e * tangent
//
// which second derivatives of the loss are made of. It comes from the same recursions, on dual numbers, and all of it
// is computed in double.
//
// The tangent is a direction of log-probabilities, even where the input is logits. What is added to all classes of a
// frame changes nothing, unless a label is the star: its log-probability stays 0.
#pragma once

#include "ctc_loss.h"

namespace fastctc {

struct CtcTangentParams {
  CtcLossParams loss;   // input, targets and options; `status` (N) is scratch, the other results are not used
  const void* tangent;  // (T, N, C) Scalar
  int64_t tangent_stride_t, tangent_stride_n, tangent_stride_c;  // in elements
  void* occupancy_tangent;  // (N, T, S) Scalar: 0 where n has no frame t or no label i, and where n is infeasible or
                            // invalid; NaN for the frames and labels of a sample that is not a number
};

namespace cpu {
size_t ctc_tangent_workspace(const CtcTangentParams& p);
// Samples [begin, end).
void ctc_tangent(const CtcTangentParams& p, int64_t begin, int64_t end, void* workspace);
}  // namespace cpu

namespace cuda {
size_t ctc_tangent_workspace(const CtcTangentParams& p);
// Returns a cudaError_t as int; 0 is success. `stream` is a cudaStream_t.
int ctc_tangent(const CtcTangentParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace fastctc

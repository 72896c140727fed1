// Forced alignment: the most probable of the paths that spell a target, frame by frame (math/viterbi.h).
//
//   paths[n, t]   the class that the path of sample n is at in frame t; of equally probable paths the one of
//                 math/viterbi.h; `star` where it is at the star; `blank` from input_lengths[n] on
//   scores[n, t]  the natural-log probability of that class there; 0 for a star, and from input_lengths[n] on
//
// A sample without a path has blanks and scores of -inf in all T frames, one that is not a number or invalid has blanks
// and NaN. Logits are log-softmaxed; a path is the best by the scores that are returned, in their type.
//
//            segment 0    segment 1   ...        two bits for each slot and frame tell where its best path comes
//   forward  [snapshot >>][snapshot >>]          from. If the bits of all frames need more than kept_bytes, the
//   back     [>>>>> <<<<<][>>>>> <<<<<]          states before each segment are kept instead, and the segments are
//                                                gone through once more, from the last to the first, but only in the
//                                                slots that the path can be in there: at most one for each frame.
#pragma once

#include "ctc_loss.h"

namespace fastctc {

struct ForcedAlignParams {
  CtcLossParams loss;          // input, targets, blank, star, from_logits and `status`; other options are not used
  int64_t* paths;              // (N, T)
  void* scores;                // (N, T) Scalar
  int64_t kept_bytes;          // room for the bits of a sample (CPU) or of the batch (CUDA)
  int64_t segment_frames = 0;  // 0: alignment_segment() decides
};

// A log-probability as it is returned: 0 where it is above that by rounding alone.
template <class Scalar>
FASTCTC_HD Scalar returned_score(Scalar log_prob, DType dtype) {
  const double rounding = log_softmax_error(dtype) + roundoff(dtype);
  return log_prob > 0 && double(log_prob) <= rounding ? Scalar(0) : log_prob;
}

constexpr int64_t kAlignTile = 16;  // frames that are worked on at once; segments are a multiple

// Frames of a segment: enough that the snapshots need little room, or no more than the bits of one segment.
inline int64_t alignment_segment(const ForcedAlignParams& p) {
  if (p.segment_frames > 0) return p.segment_frames;
  constexpr int64_t kSnapshotBytes = int64_t(40) << 20;
  const int64_t length = p.loss.max_length + 1;
  int64_t frames = 512;
  while ((p.loss.frames / frames + 1) * length * 16 > kSnapshotBytes && frames < length) frames *= 2;
  return frames;
}

namespace cpu {
size_t forced_align_workspace(const ForcedAlignParams& p);
// Samples [begin, end).
void forced_align(const ForcedAlignParams& p, int64_t begin, int64_t end, void* workspace);
}  // namespace cpu

namespace cuda {
size_t forced_align_workspace(const ForcedAlignParams& p);
// Returns a cudaError_t as int; 0 is success. `stream` is a cudaStream_t.
int forced_align(const ForcedAlignParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace fastctc

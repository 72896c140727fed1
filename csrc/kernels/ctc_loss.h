// CTC loss: the negative log-likelihood of a target and the label occupancies its gradient is made of.
//
// forward:  loss[n] = -ln P(target n | input n), status[n], and for the gradient the occupancies
//           occupancy[n, t, i] = P(label i emits frame t | target n) and the statistics of each row
// backward: grad[t, n, c] = grad_loss[n] * (kept * softmax(x)[c] - gamma[c])   for logits
//           grad[t, n, c] = -grad_loss[n] * gamma[c]                            for log-probabilities
//           with gamma[c] the sum of the occupancies of the labels c; for the blank 1 - the total of all labels
//           is added. kept is 1 but for stars: 1 - the sum of their occupancies.
//
// N batch, T frames, C classes, S labels. Kernels neither allocate nor synchronize; all sums have a fixed order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../math/lattice.h"
#include "dtype.h"

namespace fastctc {

struct CtcLossParams {
  // input: log-probabilities or logits; strides in elements
  const void* input;  // (T, N, C)
  DType dtype;
  int64_t stride_t, stride_n, stride_c;
  int64_t frames, batch, classes;  // T, N, C
  const int64_t* targets;          // all labels; the labels of sample n start at target_offsets[n]
  const int64_t* target_offsets;   // (N); set by the caller on the CPU, by the kernels on CUDA
  int64_t target_count;            // elements of targets
  int64_t target_columns;          // columns of padded targets, -1 if concatenated
  const int64_t* input_lengths;    // (N)
  const int64_t* target_lengths;   // (N)
  int64_t max_length;              // S: no feasible target is longer
  int64_t blank;
  bool from_logits;
  bool need_grad;      // fill occupancy
  bool refuses_blank;  // is a label that equals the blank invalid? In an alignment it is.
  // options
  const void* class_bias;  // (C) Scalar, added to the log-probabilities; null: none
  int64_t star;            // a label that stands for anything, with probability 1; -1: none
  double delay_penalty;    // a path's score falls by this for each frame that a label starts later (math/delay.h)
  // written by forward, read by backward; "Scalar" is double for kFloat64 and float otherwise
  void* loss;            // (N) Scalar
  void* occupancy;       // (N, T, S) Scalar, zero where n has no frame t or no label i; without need_grad scratch on
                         // the CPU and unused on CUDA
  void* row_statistics;  // (3 or 1, N, T) Scalar: the blank's score, and for logits the maximum and the log2 of the
                         // sum of 2^((x - max) log2 e); zero where n has no frame t. With need_grad, CUDA has in
                         // place of the blank's score what the posteriors of the frame add up to.
  int32_t* status;       // (N) enum Status
  // backward
  const void* grad_loss;  // (N) Scalar
  void* grad;             // (T, N, C) of dtype
  int64_t grad_stride_t, grad_stride_n, grad_stride_c;

  FASTCTC_HD bool has_options() const { return class_bias || star >= 0 || delay_penalty != 0; }
};

// Row (t, n) of the input; its classes are stride_c apart.
template <class Element>
FASTCTC_HD const Element* row_of(const CtcLossParams& p, int64_t t, int64_t n) {
  return static_cast<const Element*>(p.input) + t * p.stride_t + n * p.stride_n;
}

// Is this a label that a target may have?
FASTCTC_HD bool label_is_valid(const CtcLossParams& p, int64_t label) {
  return label_is_valid(label, p.classes, p.star) && !(p.refuses_blank && label == p.blank);
}

// The planes of row_statistics for sample n, (T) each.
template <class Scalar>
struct FrameScalars {
  Scalar *blank, *max, *log2_sum;  // the last two are null for log-probabilities
  FASTCTC_HD FrameScalars(const CtcLossParams& p, int64_t n)
      : blank(static_cast<Scalar*>(p.row_statistics) + n * p.frames),
        max(p.from_logits ? blank + p.batch * p.frames : nullptr),
        log2_sum(p.from_logits ? max + p.batch * p.frames : nullptr) {}
};

// The CPU kernels work on a range of items, so that the caller can spread them over threads; each thread brings a
// workspace of its own, aligned to 64 bytes.
namespace cpu {
constexpr int64_t kFramesPerChunk = 64;
size_t ctc_loss_scores_workspace(const CtcLossParams& p);
size_t ctc_loss_forward_workspace(const CtcLossParams& p, bool wide);
size_t ctc_loss_backward_workspace(const CtcLossParams& p);

// The first phase of forward: row_statistics, and the scores of the labels in place of their occupancies. Chunks
// [begin, end) of kFramesPerChunk frames each; sample n has the chunks [n * k, (n + 1) * k) with k = chunks(T).
void ctc_loss_scores(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace);

// The second phase: parts [first, last) of each of `count` samples. Parts 0 and 1 of a sample may run at the same time,
// and after them parts 2 and 3; a sample that is not done at once needs a workspace of its own. A sample whose
// exponents could leave the exact range of a float gets the status kTooWide. The caller does it again with `wide`, in
// double.
constexpr int kForwardParts = 4;
void ctc_loss_forward(const CtcLossParams& p, const int64_t* samples, int64_t count, int first, int last, bool wide,
                      void* workspace);

// Chunks [begin, end) of the rows of the gradient, and how many chunks there are.
int64_t ctc_loss_backward_chunks(const CtcLossParams& p);
void ctc_loss_backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace);

// The instruction set that was chosen for this processor: "avx512", "avx2" or "baseline".
const char* instruction_set();
}  // namespace cpu

namespace cuda {
// The workspace that forward (of this need_grad) or backward needs, from shapes alone.
size_t ctc_loss_forward_workspace(const CtcLossParams& p);
size_t ctc_loss_backward_workspace(const CtcLossParams& p);
// Return a cudaError_t as int; 0 is success. `stream` is a cudaStream_t.
int ctc_loss_forward(const CtcLossParams& p, void* workspace, void* stream);
int ctc_loss_backward(const CtcLossParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace fastctc

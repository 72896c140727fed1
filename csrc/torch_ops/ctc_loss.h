// The arguments that the ops of the CTC loss share: their checks, and how their work is spread on the CPU.
#pragma once

#include <optional>
#include <vector>

#include "../kernels/ctc_loss.h"
#include "tensors.h"

namespace fastctc {

// How losses become one, on the CPU.
enum class Reduction { kNone, kMean, kSum };
// The loss of a batch on the CPU. "mean" divides each loss by its target length, or by 1. Sums are compensated: they
// have the rounding of a single addition, whatever N is. With need_grad a block follows, for reduced_loss_backward.
std::vector<Tensor> reduced_loss(const Tensor& input, const Tensor& targets, const Lengths& input_lengths,
                                 const Lengths& target_lengths, const std::optional<Tensor>& class_bias,
                                 int64_t max_length, int64_t blank, int64_t star, double delay_penalty,
                                 bool from_logits, bool need_grad, Reduction reduction, bool zero_infinity);
// The gradient of the input, where `grad` is the gradient of the reduced loss.
Tensor reduced_loss_backward(const Tensor& grad, const Tensor& input, const Tensor& targets,
                             const Lengths& input_lengths, const Lengths& target_lengths, const Tensor& block,
                             int64_t blank, int64_t star, bool from_logits, Reduction reduction);

// Everything but options and results. The offsets of the targets are left to set_offsets or the device.
CtcLossParams parameters(const Tensor& input, const Tensor& targets, const Lengths& input_lengths,
                         const Lengths& target_lengths, int64_t max_length, int64_t blank, int64_t star,
                         bool from_logits);
void set_class_bias(CtcLossParams& p, const std::optional<Tensor>& class_bias, const Tensor& input);

// On the CPU: points p.target_offsets to the offsets that it returns, N + 1 of them.
std::vector<int64_t> set_offsets(CtcLossParams& p);
// Does what set_offsets does, and checks every target and its length. On CUDA the kernels check them.
std::vector<int64_t> set_checked_offsets(CtcLossParams& p);

// The forward pass, with all fields set that it reads or writes. Raises if a target is wrong.
void forward_on_cpu(CtcLossParams p);
// The backward pass, with all fields set but the gradient's, which is returned.
Tensor backward_on_cpu(CtcLossParams p, const Tensor& input);

// f(begin, end, workspace) for ranges of [0, count), on several threads.
template <class F>
void parallel(int64_t count, size_t workspace_bytes, const F& f) {
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    const HostWorkspace workspace(workspace_bytes);
    f(begin, end, workspace.get());
  });
}

}  // namespace fastctc

// The arguments that the ops of the CTC loss share: their checks, and how their work is spread on the CPU.
#pragma once

#include <optional>
#include <vector>

#include "../kernels/ctc_loss.h"
#include "tensors.h"

namespace fastctc {

// Everything but options and results. The offsets of the targets are left to set_offsets or the device.
CtcLossParams parameters(const Tensor& input, const Tensor& targets, const Tensor& input_lengths,
                         const Tensor& target_lengths, int64_t max_length, int64_t blank, int64_t star,
                         bool from_logits);
void set_class_bias(CtcLossParams& p, const std::optional<Tensor>& class_bias, const Tensor& input);

// On the CPU: points p.target_offsets to the offsets that it returns, N + 1 of them.
std::vector<int64_t> set_offsets(CtcLossParams& p);
// Does what set_offsets does, and checks every target and its length. On CUDA the kernels check them.
std::vector<int64_t> set_checked_offsets(CtcLossParams& p);

// f(begin, end, workspace) for ranges of [0, count), on several threads.
template <class F>
void parallel(int64_t count, size_t workspace_bytes, const F& f) {
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    const HostWorkspace workspace(workspace_bytes);
    f(begin, end, workspace.get());
  });
}

}  // namespace fastctc

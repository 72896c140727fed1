// fastctc::forced_align: checks, allocation, registration.
#include "../kernels/forced_align.h"

#include <vector>

#include "ctc_loss.h"
#include "decoders.h"

namespace fastctc {

// Room for back-pointers: of a sample on the CPU, which has to fault it in, and of the batch on a GPU.
static constexpr int64_t kCpuBytes = int64_t(16) << 20, kCudaBytes = int64_t(256) << 20;

Tensors<3> forced_align(Tensor input, Tensor targets, Tensor input_lengths, Tensor target_lengths, int64_t max_length,
                        int64_t blank, int64_t star, bool from_logits) {
  ForcedAlignParams p{};
  p.loss = parameters(input, targets, input_lengths, target_lengths, max_length, blank, star, from_logits);
  p.loss.refuses_blank = true;
  const int64_t batch = p.loss.batch, frames = p.loss.frames;
  Tensor paths = empty_tensor(input, {batch, frames}, ScalarType::Long);
  Tensor scores = empty_tensor(input, {batch, frames}, scalar_type_of(input));
  Tensor status = empty_tensor(input, {batch}, ScalarType::Int);
  p.paths = static_cast<int64_t*>(paths.mutable_data_ptr());
  p.scores = scores.mutable_data_ptr();
  p.loss.status = static_cast<int32_t*>(status.mutable_data_ptr());
  if (on_cuda(input)) {
    p.kept_bytes = kCudaBytes;
    run_on_cuda(input, p, cuda::forced_align_workspace, cuda::forced_align);
  } else {
    p.kept_bytes = kCpuBytes;
    const std::vector<int64_t> offsets = set_checked_offsets(p.loss);
    parallel(batch, cpu::forced_align_workspace(p),
             [&](int64_t begin, int64_t end, void* workspace) { cpu::forced_align(p, begin, end, workspace); });
  }
  return {paths, scores, status};
}

FASTCTC_DEFINE(m) {
  m.def(
      "forced_align(Tensor input, Tensor targets, Tensor input_lengths, Tensor target_lengths, SymInt max_length, "
      "int blank, int star, bool from_logits) -> (Tensor paths, Tensor scores, Tensor status)");
}
FASTCTC_IMPLEMENT(m) { m.impl("forced_align", TORCH_BOX(&forced_align)); }

}  // namespace fastctc

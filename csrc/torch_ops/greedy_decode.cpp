// fastctc::greedy_decode: checks, allocation, registration.
#include "../kernels/greedy_decode.h"

#include "decoders.h"
#include "log_probs.h"

namespace fastctc {

Tensors<8> greedy_decode(Tensor input, Tensor input_lengths, int64_t blank, bool from_logits) {
  GreedyDecodeParams p{};
  set_input(p, input, Layout::kBatchFirst, input_lengths, blank);
  p.from_logits = from_logits;

  const ScalarType scalar = scalar_type_of(input);
  const auto per_token = [&](ScalarType type) { return empty_tensor(input, {p.batch, p.frames}, type); };
  Tensor tokens = per_token(ScalarType::Long), timesteps = per_token(ScalarType::Long);
  Tensor ends = per_token(ScalarType::Long), peaks = per_token(ScalarType::Long);
  Tensor confidences = per_token(scalar), token_scores = per_token(scalar);
  Tensor lengths = empty_tensor(input, {p.batch}, ScalarType::Long);
  Tensor scores = empty_tensor(input, {p.batch}, scalar);
  p.tokens = static_cast<int64_t*>(tokens.mutable_data_ptr());
  p.lengths = static_cast<int64_t*>(lengths.mutable_data_ptr());
  p.scores = scores.mutable_data_ptr();
  p.timesteps = static_cast<int64_t*>(timesteps.mutable_data_ptr());
  p.ends = static_cast<int64_t*>(ends.mutable_data_ptr());
  p.peaks = static_cast<int64_t*>(peaks.mutable_data_ptr());
  p.confidences = confidences.mutable_data_ptr();
  p.token_scores = token_scores.mutable_data_ptr();
  if (on_cuda(input)) {
    run_on_cuda(input, p, cuda::greedy_decode_workspace, cuda::greedy_decode);
  } else {
    parallel_for(p.batch, 1, [&](int64_t begin, int64_t end) {
      const HostWorkspace workspace(cpu::greedy_decode_workspace(p));
      cpu::greedy_decode(p, begin, end, workspace.get());
    });
    for (int64_t n = 0; n < p.batch; ++n) {
      const bool failed = p.dtype == DType::kFloat64 ? std::isnan(static_cast<const double*>(p.scores)[n])
                                                     : std::isnan(static_cast<const float*>(p.scores)[n]);
      if (failed) check_log_probs(p, n);
    }
  }
  return {tokens, lengths, scores, timesteps, confidences, ends, peaks, token_scores};
}

FASTCTC_DEFINE(m) {
  m.def(
      "greedy_decode(Tensor input, Tensor input_lengths, int blank, bool from_logits) "
      "-> (Tensor tokens, Tensor lengths, Tensor scores, Tensor timesteps, Tensor confidences, Tensor ends, "
      "Tensor peaks, Tensor token_scores)");
}
FASTCTC_IMPLEMENT(m) { m.impl("greedy_decode", TORCH_BOX(&greedy_decode)); }

}  // namespace fastctc

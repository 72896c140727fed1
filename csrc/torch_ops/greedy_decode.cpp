// fastctc::greedy_decode: checks, allocation, registration.
#include "../kernels/greedy_decode.h"

#include <tuple>

#include "tensors.h"

namespace fastctc {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> greedy_decode(Tensor input, Tensor input_lengths, int64_t blank,
                                                                 bool from_logits) {
  GreedyDecodeParams p{};
  set_input(p, input, Layout::kBatchFirst, input_lengths, blank);
  p.from_logits = from_logits;

  Tensor tokens = empty_tensor(input, {p.batch, p.frames}, ScalarType::Long);
  Tensor lengths = empty_tensor(input, {p.batch}, ScalarType::Long);
  Tensor scores = empty_tensor(input, {p.batch}, scalar_type_of(input));
  Tensor timesteps = empty_tensor(input, {p.batch, p.frames}, ScalarType::Long);
  Tensor confidences = empty_tensor(input, {p.batch, p.frames}, scalar_type_of(input));
  p.tokens = static_cast<int64_t*>(tokens.mutable_data_ptr());
  p.lengths = static_cast<int64_t*>(lengths.mutable_data_ptr());
  p.scores = scores.mutable_data_ptr();
  p.timesteps = static_cast<int64_t*>(timesteps.mutable_data_ptr());
  p.confidences = confidences.mutable_data_ptr();
  if (on_cuda(input)) {
    run_on_cuda(input, p, cuda::greedy_decode_workspace, cuda::greedy_decode);
  } else {
    parallel_for(p.batch, 1, [&](int64_t begin, int64_t end) { cpu::greedy_decode(p, begin, end); });
  }
  return {tokens, lengths, scores, timesteps, confidences};
}

}  // namespace

FASTCTC_DEFINE(m) {
  m.def(
      "greedy_decode(Tensor input, Tensor input_lengths, int blank, bool from_logits) "
      "-> (Tensor tokens, Tensor lengths, Tensor scores, Tensor timesteps, Tensor confidences)");
}
FASTCTC_IMPLEMENT(m) { m.impl("greedy_decode", TORCH_BOX(&greedy_decode)); }

}  // namespace fastctc

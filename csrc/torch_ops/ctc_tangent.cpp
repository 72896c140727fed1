// fastctc::ctc_loss_tangent: checks, allocation, registration.
#include "../kernels/ctc_tangent.h"

#include <optional>
#include <vector>

#include "ctc_loss.h"

namespace fastctc {
namespace {

Tensor ctc_loss_tangent(Tensor input, Tensor tangent, Tensor targets, Tensor input_lengths, Tensor target_lengths,
                        std::optional<Tensor> class_bias, int64_t max_length, int64_t blank, int64_t star,
                        double delay_penalty, bool from_logits) {
  const ScalarType scalar = scalar_type_of(input);
  CtcTangentParams p{};
  p.loss = parameters(input, targets, input_lengths, target_lengths, max_length, blank, star, from_logits);
  p.loss.delay_penalty = delay_penalty;
  set_class_bias(p.loss, class_bias, input);
  if (!has_shape(tangent, {p.loss.frames, p.loss.batch, p.loss.classes}) || tangent.scalar_type() != scalar) {
    value_error("tangent must have the shape of input, and the type of the loss");
  }
  check_device(tangent, "tangent", input);
  p.tangent = tangent.const_data_ptr();
  p.tangent_stride_t = tangent.stride(0);
  p.tangent_stride_n = tangent.stride(1);
  p.tangent_stride_c = tangent.stride(2);
  Tensor occupancy_tangent = empty_tensor(input, {p.loss.batch, p.loss.frames, p.loss.max_length}, scalar);
  p.occupancy_tangent = occupancy_tangent.mutable_data_ptr();
  if (on_cuda(input)) {
    Tensor status = empty_tensor(input, {p.loss.batch}, ScalarType::Int);
    p.loss.status = static_cast<int32_t*>(status.mutable_data_ptr());
    run_on_cuda(input, p, cuda::ctc_tangent_workspace, cuda::ctc_tangent);
  } else {
    const std::vector<int64_t> offsets = set_checked_offsets(p.loss);
    parallel(p.loss.batch, cpu::ctc_tangent_workspace(p),
             [&](int64_t begin, int64_t end, void* workspace) { cpu::ctc_tangent(p, begin, end, workspace); });
  }
  return occupancy_tangent;
}

}  // namespace

FASTCTC_DEFINE(m) {
  m.def(
      "ctc_loss_tangent(Tensor input, Tensor tangent, Tensor targets, Tensor input_lengths, Tensor target_lengths, "
      "Tensor? class_bias, SymInt max_length, int blank, int star, float delay_penalty, bool from_logits) "
      "-> Tensor occupancy_tangent");
}
FASTCTC_IMPLEMENT(m) { m.impl("ctc_loss_tangent", TORCH_BOX(&ctc_loss_tangent)); }

}  // namespace fastctc

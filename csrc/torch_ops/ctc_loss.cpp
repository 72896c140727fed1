// fastctc::ctc_loss and its backward: checks, allocation, registration.
#include "ctc_loss.h"

#include <algorithm>
#include <numeric>

#include "../math/lattice.h"

namespace fastctc {

CtcLossParams parameters(const Tensor& input, const Tensor& targets, const Lengths& input_lengths,
                         const Lengths& target_lengths, int64_t max_length, int64_t blank, int64_t star,
                         bool from_logits) {
  CtcLossParams p{};
  set_input(p, input, Layout::kFrameFirst, input_lengths, blank);
  p.targets = int64_data(targets, "targets", input);
  p.target_count = targets.numel();
  p.target_columns = targets.dim() == 2 ? targets.size(1) : -1;
  p.target_lengths = lengths_data(target_lengths, "target_lengths", input, p.batch);
  p.max_length = std::min({max_length, p.frames, targets.dim() == 2 ? targets.size(1) : p.target_count});
  p.star = star;
  p.from_logits = from_logits;
  const bool whole = targets.dim() == 1 || (targets.dim() == 2 && targets.size(0) == p.batch);
  if (!whole) value_error("targets must be (N, S) or (sum of target_lengths)");
  if (star == blank) value_error("star is ", star, ", the blank");
  return p;
}

void set_class_bias(CtcLossParams& p, const std::optional<Tensor>& class_bias, const Tensor& input) {
  if (!class_bias) return;
  if (!has_shape(*class_bias, {p.classes}) || class_bias->scalar_type() != scalar_type_of(input)) {
    value_error("class_bias must have one value, of the loss's type, for each of the ", p.classes, " classes");
  }
  check_place(*class_bias, "class_bias", input);
  p.class_bias = class_bias->const_data_ptr();
}

static void check_target(const CtcLossParams& p, int64_t n) {
  const int64_t frames = p.input_lengths[n], length = p.target_lengths[n], offset = p.target_offsets[n];
  const bool padded = p.target_columns >= 0;
  if (length < 0) value_error("target_lengths[", n, "] is ", length, ", but must not be negative");
  if (padded && length > p.target_columns) {
    value_error("target_lengths[", n, "] is ", length, ", but targets has ", p.target_columns, " columns");
  }
  if (!padded && (offset < 0 || length > p.target_count - offset)) {
    value_error("target_lengths[", n, "] is ", length, ", but targets has only ", p.target_count, " elements");
  }
  if (length <= frames && length > p.max_length) {
    value_error("target_lengths[", n, "] is ", length, ", but max_length is ", p.max_length);
  }
  for (int64_t i = 0; i < length; ++i) {
    const int64_t label = p.targets[offset + i];
    if (label_is_valid(p, label)) continue;
    std::ostringstream where;
    if (padded) {
      where << "targets[" << n << ", " << i << "] is " << label;
    } else {
      where << "targets[" << offset + i << "] (sample " << n << ") is " << label;
    }
    if (label == p.blank) value_error(where.str(), ", the blank");
    value_error(where.str(), ", but log_probs has ", p.classes, " classes");
  }
}

std::vector<int64_t> set_offsets(CtcLossParams& p) {
  std::vector<int64_t> offsets(size_t(p.batch) + 1, 0);
  for (int64_t n = 0; n < p.batch; ++n) {
    offsets[n + 1] = offsets[n] + (p.target_columns < 0 ? p.target_lengths[n] : p.target_columns);
  }
  p.target_offsets = offsets.data();
  return offsets;
}

std::vector<int64_t> set_checked_offsets(CtcLossParams& p) {
  std::vector<int64_t> offsets = set_offsets(p);
  for (int64_t n = 0; n < p.batch; ++n) check_target(p, n);
  if (p.target_columns < 0 && offsets[p.batch] != p.target_count) {
    value_error("target_lengths add up to ", offsets[p.batch], ", but targets has ", p.target_count, " elements");
  }
  return offsets;
}

// The second phase of forward for some samples. Two threads share a sample where there are more threads than samples,
// and the work is worth it.
static void run_forward(const CtcLossParams& p, const std::vector<int64_t>& samples, bool wide) {
  constexpr int64_t kLeastStates = 1 << 16;
  const auto count = int64_t(samples.size());
  if (count == 0) return;
  const size_t bytes = cpu::ctc_loss_forward_workspace(p, wide);
  if (count >= int64_t(torch::stable::get_num_threads()) || p.frames * (p.max_length + 1) < kLeastStates) {
    return parallel(count, bytes, [&](int64_t begin, int64_t end, void* workspace) {
      cpu::ctc_loss_forward(p, samples.data() + begin, end - begin, 0, cpu::kForwardParts, wide, workspace);
    });
  }
  const HostWorkspace workspace(samples.size() * bytes);
  for (int first = 0; first < cpu::kForwardParts; first += 2) {
    parallel_for(2 * count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        char* const memory = static_cast<char*>(workspace.get()) + size_t(i / 2) * bytes;
        const int part = first + int(i % 2);
        cpu::ctc_loss_forward(p, &samples[size_t(i / 2)], 1, part, part + 1, wide, memory);
      }
    });
  }
}

void forward_on_cpu(CtcLossParams p) {
  const std::vector<int64_t> offsets = set_checked_offsets(p);
  const int64_t chunks = p.batch * ((p.frames + cpu::kFramesPerChunk - 1) / cpu::kFramesPerChunk);
  parallel(chunks, cpu::ctc_loss_scores_workspace(p),
           [&](int64_t begin, int64_t end, void* workspace) { cpu::ctc_loss_scores(p, begin, end, workspace); });
  std::vector<int64_t> samples(static_cast<size_t>(p.batch));
  std::iota(samples.begin(), samples.end(), 0);
  run_forward(p, samples, false);
  const auto is_done = [&](int64_t n) { return p.status[n] != kTooWide; };
  samples.erase(std::remove_if(samples.begin(), samples.end(), is_done), samples.end());
  run_forward(p, samples, true);
}

static Tensor set_gradient(CtcLossParams& p, Tensor grad) {
  p.grad = grad.mutable_data_ptr();
  p.grad_stride_t = grad.stride(0);
  p.grad_stride_n = grad.stride(1);
  p.grad_stride_c = grad.stride(2);
  return grad;
}

Tensor backward_on_cpu(CtcLossParams p, const Tensor& input) {
  Tensor grad = set_gradient(p, reused_tensor_like(input));
  const std::vector<int64_t> offsets = set_offsets(p);
  advise_huge_pages(p.grad, size_t(grad.numel()) * grad.element_size());
  parallel(cpu::ctc_loss_backward_chunks(p), cpu::ctc_loss_backward_workspace(p),
           [&](int64_t begin, int64_t end, void* workspace) { cpu::ctc_loss_backward(p, begin, end, workspace); });
  return grad;
}

namespace {

Tensors<4> ctc_loss(Tensor input, Tensor targets, Tensor input_lengths, Tensor target_lengths,
                    std::optional<Tensor> class_bias, int64_t max_length, int64_t blank, int64_t star,
                    double delay_penalty, bool from_logits, bool need_grad) {
  CtcLossParams p = parameters(input, targets, input_lengths, target_lengths, max_length, blank, star, from_logits);
  p.need_grad = need_grad;
  p.delay_penalty = delay_penalty;
  const ScalarType scalar = scalar_type_of(input);
  set_class_bias(p, class_bias, input);
  Tensor loss = empty_tensor(input, {p.batch}, scalar);
  const auto occupancies = [&](bool filled) {
    return empty_tensor(input, {p.batch, filled ? p.frames : 0, p.max_length}, scalar);
  };
  Tensor occupancy = occupancies(need_grad);
  Tensor room = need_grad || on_cuda(input) ? occupancy : occupancies(true);  // on the CPU also scratch
  Tensor row_statistics = empty_tensor(input, {from_logits ? 3 : 1, p.batch, p.frames}, scalar);
  Tensor status = empty_tensor(input, {p.batch}, ScalarType::Int);
  p.loss = loss.mutable_data_ptr();
  p.occupancy = room.mutable_data_ptr();
  p.row_statistics = row_statistics.mutable_data_ptr();
  p.status = static_cast<int32_t*>(status.mutable_data_ptr());
  if (on_cuda(input)) {
    run_on_cuda(input, p, cuda::ctc_loss_forward_workspace, cuda::ctc_loss_forward);
  } else {
    advise_huge_pages(p.occupancy, size_t(room.numel()) * room.element_size());
    forward_on_cpu(p);
  }
  return {loss, occupancy, row_statistics, status};
}

// class_bias and delay_penalty are in the occupancies already; only the derivative of this function needs them.
Tensor ctc_loss_backward(Tensor grad_loss, Tensor input, Tensor targets, Tensor input_lengths, Tensor target_lengths,
                         Tensor occupancy, Tensor row_statistics, Tensor status, std::optional<Tensor>, int64_t blank,
                         int64_t star, double, bool from_logits) {
  CtcLossParams p =
      parameters(input, targets, input_lengths, target_lengths, occupancy.size(2), blank, star, from_logits);
  const ScalarType scalar = scalar_type_of(input);
  const Tensor g = grad_loss.is_contiguous() ? grad_loss : torch::stable::contiguous(grad_loss);
  p.grad_loss = saved_data(g, "grad_loss", input, scalar, {p.batch});
  p.occupancy = saved_data(occupancy, "occupancy", input, scalar, {p.batch, p.frames, p.max_length});
  p.row_statistics =
      saved_data(row_statistics, "row_statistics", input, scalar, {row_statistics.size(0), p.batch, p.frames});
  if (row_statistics.size(0) < (from_logits ? 3 : 1)) value_error("row_statistics are not of logits");
  p.status = static_cast<int32_t*>(saved_data(status, "status", input, ScalarType::Int, {p.batch}));
  if (!on_cuda(input)) return backward_on_cpu(p, input);
  Tensor grad = set_gradient(p, tensor_like(input));
  run_on_cuda(input, p, cuda::ctc_loss_backward_workspace, cuda::ctc_loss_backward);
  return grad;
}

}  // namespace

FASTCTC_DEFINE(m) {
  m.def(
      "ctc_loss(Tensor input, Tensor targets, Tensor input_lengths, Tensor target_lengths, Tensor? class_bias, "
      "SymInt max_length, int blank, int star, float delay_penalty, bool from_logits, bool need_grad) "
      "-> (Tensor loss, Tensor occupancy, Tensor row_statistics, Tensor status)");
  m.def(
      "ctc_loss_backward(Tensor grad_loss, Tensor input, Tensor targets, Tensor input_lengths, Tensor target_lengths, "
      "Tensor occupancy, Tensor row_statistics, Tensor status, Tensor? class_bias, int blank, int star, "
      "float delay_penalty, bool from_logits) -> Tensor");
}

FASTCTC_IMPLEMENT(m) {
  m.impl("ctc_loss", TORCH_BOX(&ctc_loss));
  m.impl("ctc_loss_backward", TORCH_BOX(&ctc_loss_backward));
}

}  // namespace fastctc

// The loss of a batch on the CPU with its reduction, for calls without PyTorch's dispatcher (direct.cpp).
#include <algorithm>
#include <cmath>

#include "../kernels/workspace.h"
#include "ctc_loss.h"

namespace fastctc {
namespace {

// A sum with the error of each addition beside it (Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation
// endlicher Summen", 1974).
class Sum {
 public:
  void add(double x) {
    const double total = sum_ + x;
    error_ += std::fabs(sum_) >= std::fabs(x) ? (sum_ - total) + x : (x - total) + sum_;
    sum_ = total;
  }
  double value() const { return std::isfinite(sum_) ? sum_ + error_ : sum_; }

 private:
  double sum_ = 0, error_ = 0;
};

template <class Function>
auto with_scalar(ScalarType type, const Function& f) {
  return type == ScalarType::Double ? f(double()) : f(float());
}

int64_t divisor(const int64_t* lengths, int64_t n) { return std::max(lengths[n], int64_t(1)); }

template <class Scalar>
double reduced(const CtcLossParams& p, const Scalar* losses, Reduction reduction) {
  const bool mean = reduction == Reduction::kMean;
  Sum sum;
  for (int64_t n = 0; n < p.batch; ++n) sum.add(mean ? losses[n] / double(divisor(p.target_lengths, n)) : losses[n]);
  return mean && p.batch > 0 ? sum.value() / double(p.batch) : sum.value();
}

// What the gradient needs, in one block of Scalars: occupancy, row_statistics, and status in place of N Scalars.
template <class Scalar>
struct Block {
  int64_t rows, planes, size;

  explicit Block(const CtcLossParams& p)
      : rows(p.batch * p.frames), planes(p.from_logits ? 3 : 1), size(rows * (p.max_length + planes) + p.batch) {}
  void set(CtcLossParams& p, void* memory) const {
    Scalar* const scalars = static_cast<Scalar*>(memory);
    p.occupancy = scalars;
    p.row_statistics = scalars + rows * p.max_length;
    p.status = reinterpret_cast<int32_t*>(scalars + rows * (p.max_length + planes));
  }
};

}  // namespace

std::vector<Tensor> reduced_loss(const Tensor& input, const Tensor& targets, const Lengths& input_lengths,
                                 const Lengths& target_lengths, const std::optional<Tensor>& class_bias,
                                 int64_t max_length, int64_t blank, int64_t star, double delay_penalty,
                                 bool from_logits, bool need_grad, Reduction reduction, bool zero_infinity) {
  CtcLossParams p = parameters(input, targets, input_lengths, target_lengths, max_length, blank, star, from_logits);
  p.need_grad = need_grad;
  p.delay_penalty = delay_penalty;
  set_class_bias(p, class_bias, input);
  const ScalarType type = scalar_type_of(input);
  const bool losses_are_result = reduction == Reduction::kNone;
  return with_scalar(type, [&](auto scalar) {
    using Scalar = decltype(scalar);
    const Block<Scalar> block(p);
    std::vector<Tensor> found;
    found.reserve(2);
    found.push_back(losses_are_result ? empty_tensor(input, {p.batch}, type) : empty_tensor(input, {}, type));
    if (need_grad) found.push_back(reused_tensor(input, block.size, type));
    auto* const result = static_cast<Scalar*>(found[0].mutable_data_ptr());
    const HostWorkspace scratch(size_t(p.batch + (need_grad ? 0 : block.size)) * sizeof(Scalar));
    p.loss = losses_are_result ? result : static_cast<Scalar*>(scratch.get());
    block.set(p, need_grad ? found[1].mutable_data_ptr() : static_cast<Scalar*>(scratch.get()) + p.batch);
    advise_huge_pages(p.occupancy, size_t(block.size) * sizeof(Scalar));
    forward_on_cpu(p);
    auto* const losses = static_cast<Scalar*>(p.loss);
    if (zero_infinity) std::replace(losses, losses + p.batch, Scalar(INFINITY), Scalar(0));
    if (!losses_are_result) *result = Scalar(reduced(p, losses, reduction));
    return found;
  });
}

Tensor reduced_loss_backward(const Tensor& grad, const Tensor& input, const Tensor& targets,
                             const Lengths& input_lengths, const Lengths& target_lengths, const Tensor& block,
                             int64_t blank, int64_t star, bool from_logits, Reduction reduction) {
  CtcLossParams p = parameters(input, targets, input_lengths, target_lengths, 0, blank, star, from_logits);
  const ScalarType type = scalar_type_of(input);
  const int64_t rows = p.batch * p.frames;
  p.max_length = rows == 0 ? 0 : (block.numel() - p.batch) / rows - (from_logits ? 3 : 1);
  return with_scalar(type, [&](auto scalar) {
    using Scalar = decltype(scalar);
    const Block<Scalar> parts(p);
    parts.set(p, saved_data(block, "block", input, type, {parts.size}));
    const bool none = reduction == Reduction::kNone, mean = reduction == Reduction::kMean;
    const Tensor dense = grad.is_contiguous() ? grad : torch::stable::contiguous(grad);
    const auto* const g = static_cast<const Scalar*>(none ? saved_data(dense, "grad", input, type, {p.batch})
                                                          : saved_data(dense, "grad", input, type, {}));
    const HostWorkspace scratch(none ? 0 : size_t(p.batch) * sizeof(Scalar));
    auto* const each = static_cast<Scalar*>(scratch.get());
    for (int64_t n = 0; n < p.batch && !none; ++n) {
      each[n] = mean ? *g / Scalar(p.batch) / Scalar(divisor(p.target_lengths, n)) : *g;
    }
    p.grad_loss = none ? g : each;
    return backward_on_cpu(p, input);
  });
}

}  // namespace fastctc

// When a loss cannot be negative, so that a value below 0 is rounding.
//
// Two paths that spell a target differ in the class of some frame. So their probabilities add up to at most the product
// over frames of z[t], the sum of the probabilities of the classes that occur in the target, the blank among them:
//
//   P <= z[0] z[1] ... z[T-1],    and P <= 1 where no z[t] exceeds 1
//
// Logits are normalized here, so z[t] <= 1 but for a class_bias above 0. Log-probabilities are normalized by the
// caller. Of those, z[t] may exceed 1 by the rounding of their type and of the log-softmax. If it exceeds 1 by more in
// any frame, the scores are no probabilities, and a negative loss is right.
//
// The bound does not hold for a star, whose probability is 1 beside the classes, for a label that equals the blank,
// where several paths have the same classes, and with a delay penalty.
//
// It is looked at only for a loss below 0.
#pragma once

#include <cmath>

#include "../math/emission.h"
#include "ctc_loss.h"

namespace fastctc {

// Is label i neither a star nor the blank? `counts` gets whether it is the first label of its class.
FASTCTC_HD bool label_is_bounded(const CtcLossParams& p, const int64_t* labels, int64_t i, uint8_t* counts) {
  bool first = true;
  for (int64_t k = 0; k < i && first; ++k) first = labels[k] != labels[i];
  counts[i] = first;
  return labels[i] != p.star && labels[i] != p.blank;
}

// Is z[t] at most 1, up to rounding? `counts` is of label_is_bounded.
template <class Stored>
FASTCTC_HD bool frame_is_bounded(const CtcLossParams& p, int64_t n, int64_t t, const int64_t* labels,
                                 const uint8_t* counts) {
  const FrameScalars<Stored> frame(p, n);
  const double log_sum = p.from_logits ? double(frame.max[t]) + kLn2 * double(frame.log2_sum[t]) : 0;
  double z = 0, spread = 0;
  const auto add = [&](int64_t c) {
    const double bias = p.class_bias ? double(static_cast<const Stored*>(p.class_bias)[c]) : 0;
    const double x = element_at(p.input, p.dtype, t * p.stride_t + n * p.stride_n + c * p.stride_c);
    const double y = x - log_sum + bias;
    if (y < double(kZeroLog)) return;
    const double probability = std::exp(y);
    z += probability;
    spread += probability * std::fabs(x - log_sum);
  };
  add(p.blank);
  for (int64_t i = 0; i < p.target_lengths[n]; ++i) {
    if (counts[i]) add(labels[i]);
  }
  const double rounding = p.from_logits ? 0 : 2 * roundoff(p.dtype) * spread;  // of a log-softmax to the elements
  return z <= 1 + rounding + log_softmax_error(p.dtype);
}

// Does the bound hold for logits without a look at the frames?
FASTCTC_HD bool frames_are_bounded(const CtcLossParams& p) { return p.from_logits && !p.class_bias; }

}  // namespace fastctc

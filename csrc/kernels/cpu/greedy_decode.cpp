// Greedy decoding on the CPU, compiled once per instruction set (FASTCTC_ISA).
#include "../greedy_decode.h"

#include <cmath>

#include "../../math/element.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

// The log-sum-exp of a row less its maximum: minus the log-probability of the best class. Another sum would change the
// bits of the scores (log_space.h).
template <class Element, class Scalar>
Scalar log_normalizer(const Element* x, int64_t classes, int64_t stride, Scalar top) {
  Scalar sum = 0;
  for (int64_t c = 0; c < classes; ++c) sum += std::exp(to_scalar(x[c * stride]) - top);
  return std::log(sum);
}

template <class Element>
void decode(const GreedyDecodeParams& p, int64_t n) {
  using Scalar = typename ScalarOf<Element>::type;
  int64_t *const tokens = p.tokens + n * p.frames, *const timesteps = p.timesteps + n * p.frames;
  Scalar* const confidences = static_cast<Scalar*>(p.confidences) + n * p.frames;
  const int64_t frames = p.input_lengths[n];
  bool valid = frames >= 0 && frames <= p.frames;
  int64_t length = 0, previous = p.blank;
  double score = 0;
  for (int64_t t = 0; valid && t < frames; ++t) {
    const Element* const x = static_cast<const Element*>(p.input) + n * p.stride_n + t * p.stride_t;
    int64_t best = 0;
    Scalar top = to_scalar(x[0]);
    bool nan = top != top;
    for (int64_t c = 1; c < p.classes; ++c) {
      const Scalar value = to_scalar(x[c * p.stride_c]);
      nan |= value != value;
      if (value > top) {
        top = value;
        best = c;
      }
    }
    valid = !nan;
    const Scalar log_prob = p.from_logits ? -log_normalizer(x, p.classes, p.stride_c, top) : top;
    score += double(log_prob);
    if (best != p.blank) {
      const Scalar confidence = std::exp(log_prob);
      if (best != previous) {
        tokens[length] = best;
        timesteps[length] = t;
        confidences[length++] = confidence;
      } else if (confidence > confidences[length - 1]) {
        confidences[length - 1] = confidence;
      }
    }
    previous = best;
  }
  if (!valid) length = 0;
  p.lengths[n] = length;
  static_cast<Scalar*>(p.scores)[n] = valid ? Scalar(score) : Scalar(NAN);
  for (int64_t i = length; i < p.frames; ++i) {
    tokens[i] = timesteps[i] = -1;
    confidences[i] = 0;
  }
}

}  // namespace

void greedy_decode(const GreedyDecodeParams& p, int64_t begin, int64_t end) {
  with_element(p.dtype, [&](auto element) {
    for (int64_t n = begin; n < end; ++n) decode<decltype(element)>(p, n);
  });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

// The check of log-probabilities that the decoders share, for a sample that a CPU kernel refused.
#pragma once

#include "../math/element.h"
#include "../math/prefix.h"
#include "tensors.h"

namespace fastctc {

// Raises if the first frame of sample n that is not valid has a log-probability above 0. A frame with a NaN raises
// nothing, and neither does the number of frames.
template <class Params>
void check_log_probs(const Params& p, int64_t n) {
  if (p.from_logits) return;
  with_element(p.dtype, [&](auto element) {
    const auto* const x = static_cast<const decltype(element)*>(p.input) + n * p.stride_n;
    const auto at = [&](int64_t t, int64_t c) { return to_scalar(x[t * p.stride_t + c * p.stride_c]); };
    for (int64_t t = 0; t < p.input_lengths[n]; ++t) {
      int64_t above = -1;
      for (int64_t c = p.classes - 1; c >= 0; --c) {
        if (at(t, c) != at(t, c)) return;
        if (at(t, c) > kLargestLogProb) above = c;
      }
      if (above < 0) continue;
      value_error("log_probs[", n, ", ", t, ", ", above, "] (sample, frame, class) is ", at(t, above),
                  ", but natural-log probabilities are at most 0 (for logits pass from_logits=True, for "
                  "probabilities their log())");
    }
  });
}

}  // namespace fastctc

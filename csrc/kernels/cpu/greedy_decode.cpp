// Greedy decoding on the CPU, compiled once per instruction set (FASTCTC_ISA).
//
// A frame takes two passes over its row: the maximum, then the first class that has it. The row is in the cache in the
// second pass. Logits take one more pass, for the softmax denominator.
#include "../greedy_decode.h"

#include "../../math/element.h"
#include "../../math/prefix.h"
#include "denominator.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

// The first class whose score is `top`, the maximum; -1 where the row has a NaN.
template <class Scalar>
int64_t first_of(const Scalar* x, int64_t classes, Scalar top) {
  using L = Lanes<Scalar>;
  const auto maximum = L::set(top);
  const auto reaches = [&](typename L::F v) { return L::invert(L::less(v, maximum)); };  // NaN too
  int64_t best = -1;
  bool nan = false;
  const auto look = [&](int64_t c, uint32_t bits) {
    for (; bits; bits &= bits - 1) {
      const int64_t id = c + __builtin_ctz(bits);
      nan |= x[id] != x[id];
      if (best < 0) best = id;
    }
  };
  int64_t c = 0;
  for (; c + 4 * L::N <= classes; c += 4 * L::N) {  // mostly nothing is found
    uint32_t bits[4];
    for (int i = 0; i < 4; ++i) bits[i] = L::bits(reaches(L::load(x + c + i * L::N)));
    if ((bits[0] | bits[1] | bits[2] | bits[3]) == 0) continue;
    for (int i = 0; i < 4; ++i) look(c + i * L::N, bits[i]);
  }
  for (; c < classes; c += L::N) {
    const auto inside = L::first(classes - c);
    look(c, L::bits(L::both(inside, reaches(L::load(x + c, inside)))));
  }
  return nan ? -1 : best;
}

struct BestClass {
  int64_t id;       // -1 where the row has no valid one
  double log_prob;  // of the class
};

template <class Scalar>
BestClass best_class(const Scalar* x, const GreedyDecodeParams& p) {
  const Scalar top = row_max(x, p.classes);
  const int64_t id = first_of(x, p.classes, top);
  const double denominator = p.from_logits ? log_denominator(x, p.classes, top) : 0.0;
  const double log_prob = double(top) - denominator;
  return {log_prob <= kLargestLogProb ? id : -1, log_prob};
}

template <class Element, class Scalar>
void decode(const GreedyDecodeParams& p, int64_t n, Scalar* copy) {
  const GreedyOutput<Scalar> out(p, n);
  const int64_t frames = p.input_lengths[n];
  bool valid = frames >= 0 && frames <= p.frames;
  int64_t length = 0, previous = p.blank, start = 0, peak_frame = 0;
  double score = 0, peak = 0, sum = 0;
  const auto end_run = [&](int64_t t) {
    if (previous != p.blank) out.template put<Lanes<double>>(length++, previous, start, t, peak_frame, peak, sum);
  };
  for (int64_t t = 0; valid && t < frames; ++t) {
    const Element* const x = static_cast<const Element*>(p.input) + n * p.stride_n + t * p.stride_t;
    const BestClass best = best_class(contiguous_row(x, p.stride_c, p.classes, copy), p);
    valid = best.id >= 0;
    score += best.log_prob;
    if (best.id != previous) {
      end_run(t);
      previous = best.id;
      start = peak_frame = t;
      peak = sum = best.log_prob;
    } else {
      if (best.log_prob > peak) {
        peak = best.log_prob;
        peak_frame = t;
      }
      sum += best.log_prob;
    }
  }
  if (valid) end_run(frames);
  if (!valid) length = 0;
  p.lengths[n] = length;
  static_cast<Scalar*>(p.scores)[n] = valid ? Scalar(at_most_zero(score)) : Scalar(NAN);
  for (int64_t i = length; i < p.frames; ++i) out.pad(i);
}

}  // namespace

size_t greedy_decode_workspace(const GreedyDecodeParams& p) {
  return size_t(p.classes) * (p.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float));
}
void greedy_decode(const GreedyDecodeParams& p, int64_t begin, int64_t end, void* workspace) {
  with_element(p.dtype, [&](auto element) {
    using Element = decltype(element);
    auto* const copy = static_cast<typename ScalarOf<Element>::type*>(workspace);
    for (int64_t n = begin; n < end; ++n) decode<Element>(p, n, copy);
  });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

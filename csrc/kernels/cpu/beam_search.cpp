// Prefix beam search on the CPU, compiled once per instruction set (FASTCTC_ISA).
#include "../beam_search.h"

#include <algorithm>
#include <cmath>

#include "beam.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

template <class Element>
void search(const BeamSearchParams& p, int64_t n, const Scratch<typename ScalarOf<Element>::type>& scratch) {
  using Scalar = typename ScalarOf<Element>::type;
  Beam<Scalar> beam(p, n, scratch);
  const int64_t frames = p.input_lengths[n];
  const BeamHeader& header = *BeamState(p.state + n * p.state_stride, p.beam_size).header;
  if (frames < 0 || frames > p.frames || (header.frame + frames) * p.beam_size > p.capacity) beam.fail(kInvalid);
  for (int64_t t = 0; t < frames && beam.alive(); ++t) {
    const Element* const x = static_cast<const Element*>(p.input) + n * p.stride_n + t * p.stride_t;
    const Scalar* const row = contiguous_row(x, p.stride_c, p.classes, scratch.row);
    const double denominator = p.from_logits ? log_denominator(row, p.classes) : 0.0;
    if (denominator != denominator) {
      beam.fail(kNotANumber);
    } else {
      beam.advance(row, denominator);
    }
  }
  beam.finish();
}

// The highest probability of a token, of its logarithm.
template <class Scalar>
Scalar confidence(float peak) {
  using L = Lanes<double>;
  if (peak < -700) return 0;
  return Scalar(exp_of_negative<L>(L::set(std::min(double(peak), 0.0)))[0]);
}

template <class Scalar>
void write_result(const BeamResultParams& p, int64_t n, int64_t rank) {
  const BeamState s(const_cast<char*>(p.state) + n * p.state_stride, p.beam_size);
  const BeamNode* const arena = p.arena + n * p.arena_stride;
  const int64_t hypothesis = n * p.nbest + rank, first = hypothesis * p.max_length;
  const bool empty = !s.header->started;  // the empty prefix, at probability 1
  int64_t length = 0;
  double score = empty && rank == 0 ? 0 : -INFINITY;
  if (!empty && s.header->status != kOk) score = NAN;
  const int32_t slot = !empty && s.header->status == kOk && rank < s.header->size ? s.order[rank] : -1;
  if (slot >= 0 && s.length[slot] > p.max_length) {
    score = NAN;
  } else if (slot >= 0) {
    length = s.length[slot];
    score = s.scores.total[slot];
    float peak = float(s.scores.peak(slot));
    int64_t node = s.scores.path(slot);
    for (int64_t i = length - 1; i >= 0; --i) {
      p.tokens[first + i] = arena[node].token;
      p.timesteps[first + i] = arena[node].frame;
      static_cast<Scalar*>(p.confidences)[first + i] = confidence<Scalar>(peak);
      peak = arena[node].previous_peak;
      node = arena[node].previous;
    }
  }
  p.lengths[hypothesis] = length;
  static_cast<Scalar*>(p.scores)[hypothesis] = Scalar(score);
  std::fill(p.tokens + first + length, p.tokens + first + p.max_length, -1);
  std::fill(p.timesteps + first + length, p.timesteps + first + p.max_length, -1);
  Scalar* const confidences = static_cast<Scalar*>(p.confidences) + first;
  std::fill(confidences + length, confidences + p.max_length, Scalar(0));
}

}  // namespace

size_t beam_search_workspace(const BeamSearchParams& p) {
  if (p.dtype == DType::kFloat64) return Scratch<double>(nullptr, p).memory.size();
  return Scratch<float>(nullptr, p).memory.size();
}
void beam_search(const BeamSearchParams& p, int64_t begin, int64_t end, void* workspace) {
  with_element(p.dtype, [&](auto element) {
    using Element = decltype(element);
    const Scratch<typename ScalarOf<Element>::type> scratch(workspace, p);
    for (int64_t n = begin; n < end; ++n) search<Element>(p, n, scratch);
  });
}
void beam_search_result(const BeamResultParams& p, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t rank = 0; rank < p.nbest; ++rank) {
      p.dtype == DType::kFloat64 ? write_result<double>(p, n, rank) : write_result<float>(p, n, rank);
    }
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

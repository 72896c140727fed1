// Prefix beam search on the CPU, compiled once per instruction set (FASTCTC_ISA).
#include "../beam_search.h"

#include "../beam_result.h"
#include "beam.h"
#include "denominator.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

template <class Element, class Knowledge>
void search(const BeamSearchParams& p, int64_t n,
            const BeamScratch<typename ScalarOf<Element>::type, Knowledge>& scratch) {
  using Scalar = typename ScalarOf<Element>::type;
  Beam<Scalar, Knowledge> beam(p, n, scratch);
  const int64_t frames = p.input_lengths[n];
  const BeamHeader& header = *BeamState(p.state + n * p.state_stride, p.beam_size, p.weighs).header;
  if (frames < 0 || frames > p.frames || (header.frame + frames) * p.beam_size > p.capacity) beam.fail(kInvalid);
  for (int64_t t = 0; t < frames && beam.alive(); ++t) {
    const Element* const x = static_cast<const Element*>(p.input) + n * p.stride_n + t * p.stride_t;
    const Scalar* const row = contiguous_row(x, p.stride_c, p.classes, scratch.row);
    const double denominator = p.from_logits ? log_denominator(row, p.classes, row_max(row, p.classes)) : 0.0;
    if (denominator != denominator) {
      beam.fail(kNotANumber);
    } else {
      beam.advance(row, denominator);
    }
  }
  beam.finish();
}

void find_endings(const BeamResultParams& p, int64_t n) {
  BestEndings best(p, n);
  for (int64_t rank = 0; rank < best.size; ++rank) {
    const int32_t slot = best.s.order[rank];
    const ScorerState& state = best.s.scorer[slot];
    for (int32_t choice = 0; choice < p.scorer.ways_to_end(state); ++choice) {
      best.add(slot, p.scorer.end(state, choice));
    }
  }
  best.finish();
}

}  // namespace

size_t beam_search_workspace(const BeamSearchParams& p) {
  return with_knowledge(p, [&](auto knowledge) {
    using Knowledge = decltype(knowledge);
    if (p.dtype == DType::kFloat64) return BeamScratch<double, Knowledge>(nullptr, p).memory.size();
    return BeamScratch<float, Knowledge>(nullptr, p).memory.size();
  });
}
void beam_search(const BeamSearchParams& p, int64_t begin, int64_t end, void* workspace) {
  with_element(p.dtype, [&](auto element) {
    with_knowledge(p, [&](auto knowledge) {
      using Element = decltype(element);
      using Knowledge = decltype(knowledge);
      const BeamScratch<typename ScalarOf<Element>::type, Knowledge> scratch(workspace, p);
      for (int64_t n = begin; n < end; ++n) search<Element, Knowledge>(p, n, scratch);
    });
  });
}
void beam_search_result(const BeamResultParams& p, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    if (p.weighs) find_endings(p, n);
    for (int64_t rank = 0; rank < p.nbest; ++rank) {
      if (p.dtype == DType::kFloat64) {
        write_hypothesis<Lanes<double>, double>(p, n, rank);
      } else {
        write_hypothesis<Lanes<double>, float>(p, n, rank);
      }
    }
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

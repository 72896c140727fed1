// The target of a sample, checked against the sizes of the tensors.
#pragma once

#include "../../math/lattice.h"
#include "../ctc_loss.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

inline bool sample_is_valid(const CtcLossParams& p, int64_t n) {
  const int64_t offset = p.target_offsets[n], length = p.target_lengths[n];
  const int64_t end = p.target_columns < 0 ? p.target_count : offset + p.target_columns;
  if (!lengths_are_valid(p.input_lengths[n], p.frames, length, offset, end)) return false;
  for (int64_t i = 0; i < length; ++i) {
    if (!label_is_valid(p, p.targets[offset + i])) return false;
  }
  return true;
}

// Is the target short enough to be aligned?
inline bool target_fits(const CtcLossParams& p, int64_t n) {
  return p.target_lengths[n] <= p.input_lengths[n] && p.target_lengths[n] <= p.max_length;
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

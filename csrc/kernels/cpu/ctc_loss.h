// What the kernels of the CTC loss share on the CPU.
//
// Their files are compiled once per instruction set (FASTCTC_ISA). They use no templates of the standard library, whose
// code would be shared with the other instruction sets.
#pragma once

#include <cstring>

#include "../ctc_loss.h"
#include "lanes.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

template <class Scalar>
inline void clear(Scalar* p, int64_t count) {
  if (count > 0) memset(p, 0, size_t(count) * sizeof(Scalar));
}

// Are rows so short that forward looks the labels' scores up in them itself? Longer ones take more registers: they pay
// where there are many labels.
inline bool scores_by_lookup(const CtcLossParams& p) {
  const bool is_float = p.dtype == DType::kFloat32;
  const int64_t table = is_float ? Lanes<float>::kTable : Lanes<double>::kTable;
  const int64_t most = p.max_length >= p.classes ? table : table / 4;
  return (is_float || p.dtype == DType::kFloat64) && p.stride_c == 1 && p.classes <= most && p.star < 0;
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

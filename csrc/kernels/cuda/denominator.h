// The softmax denominator of a row of logits, with the bits of cpu/denominator.h.
#pragma once

#include "../../math/log_space.h"
#include "rows.h"

namespace fastctc {
namespace cuda {

static_assert(kSums == kWarp, "a lane for each sum");

// The sum of exp(x - max) over a row by a warp, in every lane: 0 where the classes are all at -inf, NaN where a NaN or
// +inf is in the row. For the rows of a block there is long_row.h.
template <class Element, class Scalar>
__device__ __forceinline__ Scalar softmax_sum(const Row<const Element>& row, Scalar max) {
  const Scalar shift = max == Scalar(-INFINITY) ? Scalar(0) : max;
  Scalar sum = 0;
#pragma unroll 4
  for (int64_t c = lane_id(); c < row.classes; c += kWarp) {
    sum += softmax_term<Lanes<Scalar>>(to_scalar(row.x[c * row.stride]), shift);
  }
  return warp_sum(sum);
}

}  // namespace cuda
}  // namespace fastctc

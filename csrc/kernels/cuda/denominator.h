// The softmax denominator of a row of logits, with the bits of cpu/denominator.h.
#pragma once

#include "../../math/log_space.h"
#include "rows.h"

namespace fastctc {
namespace cuda {

static_assert(kSums == kWarp, "a lane for each sum");

// The sum of exp(x - max) over a row, in every thread of the team: 0 where the classes are all at -inf, NaN where a NaN
// or +inf is in the row. A team of several warps brings a `tile` with room for kTile terms.
template <int kWarps, int kTile, class Element, class Scalar>
__device__ __forceinline__ Scalar softmax_sum(const Row<const Element>& row, Scalar max, Scalar* tile) {
  using T = RowTeam<kWarps>;
  using W = Lanes<Scalar>;
  const Scalar shift = max == Scalar(-INFINITY) ? Scalar(0) : max;
  Scalar sum = 0;
  if constexpr (kWarps == 1) {
#pragma unroll 4
    for (int64_t c = lane_id(); c < row.classes; c += kWarp) {
      sum += softmax_term<W>(to_scalar(row.x[c * row.stride]), shift);
    }
    return warp_sum(sum);
  } else {
    for (int64_t c0 = 0; c0 < row.classes; c0 += kTile) {  // all warps make terms, the first one adds them up
      const int count = row.classes - c0 < kTile ? int(row.classes - c0) : kTile;
      T::sync();
      for (int i = T::rank(); i < count; i += T::kThreads) {
        tile[i] = softmax_term<W>(to_scalar(row.x[(c0 + i) * row.stride]), shift);
      }
      T::sync();
      for (int i = T::rank(); T::rank() < kSums && i < count; i += kSums) sum += tile[i];
    }
    sum = warp_sum(sum);
    T::sync();
    if (T::rank() == 0) tile[0] = sum;
    T::sync();
    return tile[0];
  }
}

}  // namespace cuda
}  // namespace fastctc

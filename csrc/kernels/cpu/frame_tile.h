// Frames side by side in the lanes of a register: short rows, transposed.
#pragma once

#include "denominator.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// x - y, computed in double and rounded once.
template <class Scalar>
inline typename Lanes<Scalar>::F minus(typename Lanes<Scalar>::F x, const double* y) {
  using L = Lanes<Scalar>;
  typename L::Wide each;
  memcpy(&each, y, sizeof each);
  return __builtin_convertvector(L::widen(x) - each, typename L::F);
}

// tile[c * frames + f] = rows[f][c]. `frames` is a multiple of the lanes of a register.
template <int frames, class Scalar>
inline void transpose_rows(const Scalar* const* rows, int64_t classes, Scalar* tile) {
  using L = Lanes<Scalar>;
  for (int f = 0; f < frames; f += L::N) {
    typename L::F x[L::N];
    int64_t c = 0;
    for (; c + L::N <= classes; c += L::N) {
      FASTCTC_UNROLL for (int k = 0; k < L::N; ++k) x[k] = L::load(rows[f + k] + c);
      L::transpose(x);
      FASTCTC_UNROLL for (int k = 0; k < L::N; ++k) L::store(tile + (c + k) * frames + f, x[k]);
    }
    if (c == classes) continue;
    const auto inside = L::first(classes - c);
    FASTCTC_UNROLL for (int k = 0; k < L::N; ++k) x[k] = L::load(rows[f + k] + c, inside);
    L::transpose(x);
    for (int k = 0; c + k < classes; ++k) L::store(tile + (c + k) * frames + f, x[k]);
  }
}

// rows[f][c] = tile[c * N + f] for the first `count` frames.
template <class Scalar>
inline void transpose_tile(const Scalar* tile, int64_t classes, Scalar* const* rows, int count) {
  using L = Lanes<Scalar>;
  for (int64_t c = 0; c < classes; c += L::N) {
    const int64_t left = classes - c;
    const auto inside = L::first(left);
    typename L::F x[L::N];
    FASTCTC_UNROLL for (int k = 0; k < L::N; ++k) x[k] = k < left ? L::load(tile + (c + k) * L::N) : L::set(0);
    L::transpose(x);
    if (left >= L::N && count == L::N) {
      FASTCTC_UNROLL for (int k = 0; k < L::N; ++k) L::store(rows[k] + c, x[k]);
    } else {
      for (int k = 0; k < count; ++k) L::store(rows[k] + c, x[k], inside);
    }
  }
}

// The upper half of the sums is added to the lower half, until one is left.
template <int half = kSums / 2, class F>
FASTCTC_LANE F add_halves(F* sums) {
  FASTCTC_UNROLL for (int k = 0; k < half; ++k) sums[k] += sums[k + half];
  if constexpr (half > 1) return add_halves<half / 2>(sums);
  return sums[0];
}

// softmax_sum() of one frame per lane, with the same bits; the rows of a tile are `frames` apart.
template <int frames, class Scalar>
inline void softmax_sums(const Scalar* tile, int64_t classes, Scalar* max, Scalar* sum) {
  using L = Lanes<Scalar>;
  using F = typename L::F;
  for (int f = 0; f < frames; f += L::N) {
    const Scalar* const x = tile + f;
    const F lowest = L::set(Scalar(-INFINITY));
    F top = lowest, a = lowest, b = lowest, c = lowest;  // independent chains; NaN is passed over
    int64_t i = 0;
    for (; i + 4 <= classes; i += 4) {
      const Scalar* const at = x + i * frames;
      top = L::max(L::load(at), top);
      a = L::max(L::load(at + frames), a);
      b = L::max(L::load(at + 2 * frames), b);
      c = L::max(L::load(at + 3 * frames), c);
    }
    for (; i < classes; ++i) top = L::max(L::load(x + i * frames), top);
    top = L::max(L::max(top, a), L::max(b, c));
    const F shift = L::select(L::less(lowest, top), top, L::set(0));
    F sums[kSums];
    for (int64_t k = 0; k < kSums; ++k) {
      sums[k] = L::set(0);
      for (int64_t c = k; c < classes; c += kSums) sums[k] += softmax_term<L>(L::load(x + c * frames), shift);
    }
    L::store(max + f, top);
    L::store(sum + f, add_halves(sums));
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

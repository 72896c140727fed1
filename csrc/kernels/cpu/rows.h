// Rows of C classes: the softmax statistics of logits, and the softmax itself.
#pragma once

#include "../../math/element.h"
#include "../../math/emission.h"
#include "lanes.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// One row of C classes as contiguous Scalars: the row itself where it is that already, else a converted copy.
template <class Element, class Scalar>
inline const Scalar* contiguous_row(const Element* x, int64_t stride, int64_t classes, Scalar* copy) {
  if constexpr (sizeof(Element) == sizeof(Scalar)) {
    if (stride == 1) return reinterpret_cast<const Scalar*>(x);
  }
  for (int64_t c = 0; c < classes; ++c) copy[c] = to_scalar(x[c * stride]);
  return copy;
}

// The statistics of `count` <= N rows, one per lane: the maximum, and log2 of the sum of 2^((x - max) log2 e). Each
// depends on its row alone.
template <class Scalar>
inline RowStatistics<typename Lanes<Scalar>::F> row_statistics(const Scalar* const* rows, int count, int64_t classes) {
  using L = Lanes<Scalar>;
  const int64_t whole = classes / L::N * L::N;
  const auto rest = L::first(classes - whole);
  const auto lowest = L::set(Scalar(-INFINITY)), scale = L::set(Constants<Scalar>::log2_e);
  typename L::F part[L::N];
  Scalar top[L::N];
  for (int i = 0; i < L::N; ++i) part[i] = lowest;
  for (int i = 0; i < count; ++i) {
    auto max = lowest;
    for (int64_t c = 0; c < whole; c += L::N) max = L::max(L::load(rows[i] + c), max);
    if (whole < classes) max = L::max(L::select(rest, L::load(rows[i] + whole, rest), lowest), max);
    part[i] = max;
  }
  const auto maxima = L::reduce_each(part, [](auto a, auto b) { return L::max(a, b); });
  L::store(top, maxima);
  for (int i = 0; i < count; ++i) {
    const auto shift = L::set(top[i]);
    auto sum = L::set(0), other = L::set(0);
    int64_t c = 0;
    for (; c + 2 * L::N <= whole; c += 2 * L::N) {
      sum += L::exp2((L::load(rows[i] + c) - shift) * scale);
      other += L::exp2((L::load(rows[i] + c + L::N) - shift) * scale);
    }
    if (c < whole) sum += L::exp2((L::load(rows[i] + c) - shift) * scale);
    if (whole < classes) {
      other += L::select(rest, L::exp2((L::load(rows[i] + whole, rest) - shift) * scale), L::set(0));
    }
    part[i] = sum + other;
  }
  const auto sums = L::reduce_each(part, [](auto a, auto b) { return a + b; });
  return {maxima, L::log2(sums)};
}

// factor * softmax(x), with the statistics of the row.
template <class Scalar>
inline void softmax(const Scalar* x, int64_t classes, RowStatistics<Scalar> row, Scalar factor, Scalar* out) {
  using L = Lanes<Scalar>;
  const auto shift = L::set(row.max), log2_sum = L::set(row.log2_sum), scale = L::set(Constants<Scalar>::log2_e);
  int64_t c = 0;
  for (; c + L::N <= classes; c += L::N) {
    L::store(out + c, factor * L::exp2((L::load(x + c) - shift) * scale - log2_sum));
  }
  if (c < classes) {
    const auto rest = L::first(classes - c);
    L::store(out + c, factor * L::exp2((L::load(x + c, rest) - shift) * scale - log2_sum), rest);
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

// Rows of C classes: the softmax statistics of logits, and the softmax itself.
#pragma once

#include "../../math/emission.h"
#include "pair.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

constexpr int kSecondLevel = 2;  // of the caches, for __builtin_prefetch

// One row of C classes as contiguous Scalars: the row itself where it is that already, else a converted copy.
template <class Element, class Scalar>
inline const Scalar* contiguous_row(const Element* x, int64_t stride, int64_t classes, Scalar* copy) {
  if constexpr (sizeof(Element) == sizeof(Scalar)) {
    if (stride == 1) return reinterpret_cast<const Scalar*>(x);
  }
  if (stride == 1) {  // a loop that compilers vectorize
    for (int64_t c = 0; c < classes; ++c) copy[c] = to_scalar(x[c]);
  } else {
    for (int64_t c = 0; c < classes; ++c) copy[c] = to_scalar(x[c * stride]);
  }
  return copy;
}

// Fetches `count` elements from memory.
template <class Element>
FASTCTC_LANE void fetch(const Element* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(Element))) __builtin_prefetch(p + i);
}

// Elements before the first that is aligned for a register, or `count`.
template <class Element>
inline int64_t until_aligned(const Element* p, int64_t count) {
  const int64_t before = int64_t(-reinterpret_cast<uintptr_t>(p) % kVectorBytes / sizeof(Element));
  return before < count ? before : count;
}

// f of a row of C classes: where it is, or of a copy as Scalars if its classes are not side by side.
template <class Element, class Scalar, class F>
FASTCTC_LANE void with_row(const Element* x, int64_t stride, int64_t classes, Scalar* copy, const F& f) {
  if (stride == 1) return f(x);
  f(contiguous_row(x, stride, classes, copy));
}

// Stores a row of C classes as Elements.
template <class Scalar, class Element>
inline void store_row(const Scalar* row, int64_t classes, Element* out, int64_t stride) {
  if (stride == 1) {
    for (int64_t c = 0; c < classes; ++c) from_scalar(row[c], out[c]);
  } else {
    for (int64_t c = 0; c < classes; ++c) from_scalar(row[c], out[c * stride]);
  }
}

// f of each vector of a row, summed up (or what else `op` does); lanes beyond the row are `neutral`. A row of few
// vectors, of Scalars, needs no loop: `vectors` is their number, or 0. Meanwhile the row at `next` is fetched from
// memory.
template <int vectors, class Element, class Scalar, class Op, class F>
inline typename Lanes<Scalar>::F over_row(const Element* x, int64_t classes, Scalar neutral, const Op& op, const F& f,
                                          const Element* next = nullptr) {
  using L = Lanes<Scalar>;
  if constexpr (vectors > 0) {
    const auto at = [&](int64_t c) {
      const auto inside = L::first(classes - c);
      return L::select(inside, f(L::load(x + c, inside)), L::set(neutral));
    };
    auto all = at((vectors - 1) * L::N);
    for (int i = 0; i < vectors - 1; ++i) all = op(f(L::load(x + i * L::N)), all);
    return all;
  }
  auto a = L::set(neutral), b = a;
  int64_t c = 0;
  for (; c + Pair<Scalar>::kSize <= classes; c += Pair<Scalar>::kSize) {
    const auto pair = Pair<Scalar>::load(x + c);
    a = op(a, f(pair.low));
    b = op(b, f(pair.high));
    if (next) {
      __builtin_prefetch(next + c, 0, kSecondLevel);
      __builtin_prefetch(next + c + L::N, 0, kSecondLevel);
    }
  }
  const auto sums = Pair<Scalar>{a, b}.template arranged<Element, Scalar>();
  a = sums.low;
  b = sums.high;
  if (c < classes) {
    const auto pair = Pair<Scalar>::load(x + c, classes - c).template arranged<Element, Scalar>();
    a = op(a, L::select(L::first(classes - c), f(pair.low), L::set(neutral)));
    if (c + L::N < classes) b = op(b, L::select(L::first(classes - c - L::N), f(pair.high), L::set(neutral)));
  }
  return op(a, b);
}

// The statistics of `count` <= N rows, one per lane: the maximum, and log2 of the sum of 2^((x - max) log2 e). Each
// depends on its row alone. `next` is a row that is read soon, or null.
template <int vectors, class Element, class Scalar = typename ScalarOf<Element>::type>
inline RowStatistics<typename Lanes<Scalar>::F> row_statistics(const Element* const* rows, int count, int64_t classes,
                                                               const Element* next = nullptr) {
  using L = Lanes<Scalar>;
  using F = typename L::F;
  const auto larger = [](F a, F b) { return L::max(a, b); };  // b where a is NaN
  const auto plus = [](F a, F b) { return a + b; };
  const Scalar lowest = Scalar(-INFINITY);
  F part[L::N];
  Scalar top[L::N];
  for (int i = count; i < L::N; ++i) part[i] = L::set(lowest);
  for (int i = 0; i < count; ++i) {
    part[i] = over_row<vectors>(rows[i], classes, lowest, larger, [](F x) { return x; });
  }
  const F maxima = L::reduce_each(part, larger);
  L::store(top, maxima);
  for (int i = 0; i < count; ++i) {
    const F shift = L::set(top[i]);
    part[i] = over_row<vectors>(
        rows[i], classes, Scalar(0), plus, [shift](F x) { return L::exp2((x - shift) * Constants<Scalar>::log2_e); },
        next);
  }
  return {maxima, L::log2(L::reduce_each(part, plus))};
}
template <class Scalar>
inline RowStatistics<typename Lanes<Scalar>::F> row_statistics(const Scalar* const* rows, int count, int64_t classes) {
  switch ((classes + Lanes<Scalar>::N - 1) / Lanes<Scalar>::N) {
    case 1:
      return row_statistics<1>(rows, count, classes);
    case 2:
      return row_statistics<2>(rows, count, classes);
    case 3:
      return row_statistics<3>(rows, count, classes);
    case 4:
      return row_statistics<4>(rows, count, classes);
    default:
      return row_statistics<0>(rows, count, classes);
  }
}

// row_statistics() of N rows of few classes, with the same bits, from the transposed rows: tile[c * N + row]. No lanes
// stay empty, and nothing is left to reduce.
template <int vectors, class Scalar>
class TileStatistics {
  using L = Lanes<Scalar>;
  using F = typename L::F;

 public:
  TileStatistics(const Scalar* tile, int64_t classes) : tile_(tile), classes_(classes) {}
  RowStatistics<F> operator()() const {
    const auto larger = [](F a, F b) { return L::max(a, b); };
    const auto plus = [](F a, F b) { return a + b; };
    const F maxima = reduce(L::set(Scalar(-INFINITY)), larger, [](F x) { return x; });
    const F sums = reduce(L::set(0), plus, [maxima](F x) { return L::exp2((x - maxima) * Constants<Scalar>::log2_e); });
    return {maxima, L::log2(sums)};
  }

 private:
  // What over_row() leaves in lanes [lane, lane + count), reduced as by reduce_each().
  template <int lane = 0, int count = L::N, class Op, class Function>
  F reduce(F neutral, const Op& op, const Function& f) const {
    if constexpr (count > 1) {
      return op(reduce<lane, count / 2>(neutral, op, f), reduce<lane + count / 2, count / 2>(neutral, op, f));
    } else if constexpr (vectors == 0) {  // as many as there are
      F a = neutral, b = neutral;
      for (int c = lane; c < classes_; c += 2 * L::N) {
        a = op(a, f(L::load(tile_ + c * L::N)));
        if (c + L::N < classes_) b = op(b, f(L::load(tile_ + (c + L::N) * L::N)));
      }
      return op(a, b);
    } else {
      constexpr int last = lane + (vectors - 1) * L::N;
      F all = last < classes_ ? f(L::load(tile_ + last * L::N)) : neutral;
      FASTCTC_UNROLL for (int c = lane; c < last; c += L::N) all = op(f(L::load(tile_ + c * L::N)), all);
      return all;
    }
  }

  const Scalar* const tile_;
  const int64_t classes_;
};

// factor * softmax(x), with the statistics of the row; of one class, or of all.
template <class Scalar>
class Softmax {
  using L = Lanes<Scalar>;
  using F = typename L::F;

 public:
  Softmax(RowStatistics<Scalar> row, Scalar factor)
      : shift_(L::set(row.max)), log2_sum_(L::set(row.log2_sum)), factor_(factor) {}
  Scalar of(Scalar x) const { return L::single(of(L::set(x))); }

  template <bool streams, class Element, class Out>
  void of_row(const Element* x, int64_t classes, Out* out) const {
    using P = Pair<Scalar>;
    int64_t c = streams ? until_aligned(out, classes) : 0;
    if (c > 0) of<Element, Out>(P::load(x, c)).store(out, c);
    if constexpr (std::is_same<Out, BFloat16>::value) {
      // The statistics of a row with NaN are not used.
      if (L::rounds_to_bfloat16() && std::fabs(factor_) < Scalar(INFINITY)) {
        for (; c + P::kSize <= classes; c += P::kSize) {
          of<Element, Out>(P::load(x + c)).template store_normal<streams>(out + c);
        }
      }
    }
    for (; c + P::kSize <= classes; c += P::kSize) of<Element, Out>(P::load(x + c)).template store<streams>(out + c);
    if (c < classes) of<Element, Out>(P::load(x + c, classes - c)).store(out + c, classes - c);
  }

 private:
  template <class Element, class Out>
  Pair<Scalar> of(Pair<Scalar> x) const {
    return Pair<Scalar>{of(x.low), of(x.high)}.template arranged<Element, Out>();
  }
  F of(F x) const { return factor_ * L::exp2((x - shift_) * Constants<Scalar>::log2_e - log2_sum_); }

  const F shift_, log2_sum_;
  const Scalar factor_;
};

// Sets `count` elements to zero.
template <bool streams, class Element>
inline void fill_zero(Element* p, int64_t count) {
  using L = Lanes<float>;
  int64_t i = 0;
  if (streams) {
    constexpr int64_t step = kVectorBytes / int64_t(sizeof(Element));
    i = until_aligned(p, count);
    memset(p, 0, size_t(i) * sizeof(Element));
    for (; i + step <= count; i += step) L::template put<true>(p + i, L::set(0));
  }
  if (i < count) memset(p + i, 0, size_t(count - i) * sizeof(Element));
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

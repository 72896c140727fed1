// Elements of any type as two registers of Scalars: as many as one register has of the 16-bit types.
//
// They are in order, but for bfloat16: there `low` has the elements in even places and `high` the others, because
// to put words in order takes as long as to compute with them.
#pragma once

#include <type_traits>

#include "../../math/element.h"
#include "lanes.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

template <class Scalar>
struct Pair {
  using L = Lanes<Scalar>;
  using F = typename L::F;
  static constexpr int kSize = 2 * L::N;
  F low, high;

  // The kSize elements at p.
  template <class Element>
  static FASTCTC_HD Pair load(const Element* p) {
    Scalar scalars[kSize];
    for (int i = 0; i < kSize; ++i) scalars[i] = to_scalar(p[i]);
    return load(scalars);
  }
  static FASTCTC_HD Pair load(const Scalar* p) { return {L::load(p), L::load(p + L::N)}; }
  static FASTCTC_HD Pair load(const BFloat16* p) {
    Bits words;  // bfloat16 is the upper half of a float
    memcpy(&words, p, sizeof words);
    return {(F)(words << 16), (F)(words & kUpper)};
  }
  // The first `count` of them, and zeros.
  template <class Element>
  static FASTCTC_HD Pair load(const Element* p, int64_t count) {
    Element elements[kSize]{};
    memcpy(elements, p, size_t(count) * sizeof(Element));
    return load(elements);
  }
  static FASTCTC_HD Pair load(const Scalar* p, int64_t count) {
    return {L::load(p, L::first(count)), L::load(p + L::N, L::first(count - L::N))};
  }

  // From the places of elements of one type to the places of another.
  template <class From, class To>
  FASTCTC_HD Pair arranged() const {
    constexpr bool from = std::is_same<From, BFloat16>::value, to = std::is_same<To, BFloat16>::value;
    if constexpr (from && !to) {
      return {L::template zip<0>(low, high, Each()), L::template zip<L::N / 2>(low, high, Each())};
    }
    if constexpr (to && !from) {
      return {L::template shuffle<2, 0>(low, high, Each()), L::template shuffle<2, 1>(low, high, Each())};
    }
    return *this;
  }

  // All go to p; streams as in Lanes::put().
  template <bool streams, class Element>
  FASTCTC_HD void store(Element* p) const {
    Scalar scalars[kSize];
    store<false>(scalars);
    for (int i = 0; i < kSize; ++i) from_scalar(scalars[i], p[i]);
  }
  template <bool streams>
  FASTCTC_HD void store(Scalar* p) const {
    L::template put<streams>(p, low);
    L::template put<streams>(p + L::N, high);
  }
  template <bool streams>
  FASTCTC_HD void store(BFloat16* p) const {
    L::template put<streams>(p, (F)(rounded(low) >> 16 | (rounded(high) & kUpper)));
  }
  // store() by the processor's own rounding: for numbers that are neither NaN nor subnormal.
  template <bool streams>
  FASTCTC_HD void store_normal(BFloat16* p) const {
    L::template put<streams>(p, L::rounded_to_bfloat16(low, high));
  }
  // The first `count` of them go to p.
  template <class Element>
  FASTCTC_HD void store(Element* p, int64_t count) const {
    Element elements[kSize];
    store<false>(elements);
    memcpy(p, elements, size_t(count) * sizeof(Element));
  }
  FASTCTC_HD void store(Scalar* p, int64_t count) const {
    L::store(p, low, L::first(count));
    if (count > L::N) L::store(p + L::N, high, L::first(count - L::N));
  }

 private:
  using Each = typename L::Each;
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  static constexpr uint32_t kUpper = 0xffff0000u;

  // As by from_scalar(), in the upper half.
  static FASTCTC_HD Bits rounded(F x) {
    const Bits bits = (Bits)x;
    return (Bits)(x != x ? Bits{} + 0x7fc00000u : bits + 0x7fffu + (bits >> 16 & 1u));
  }
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

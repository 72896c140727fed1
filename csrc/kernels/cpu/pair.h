// Elements of any type as two registers of Scalars: as many as one register has of the 16-bit types.
#pragma once

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
    Words words;
    memcpy(&words, p, sizeof words);
    return {widened<0>(words, Each()), widened<L::N>(words, Each())};
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
    L::template put<streams>(p, (F)upper_words(rounded(low), rounded(high), Each()));
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
  using Each = std::make_integer_sequence<int, kSize>;
  typedef uint16_t Words __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));

  // bfloat16 is the upper half of a float.
  template <int first, int... i>
  static FASTCTC_HD F widened(Words words, std::integer_sequence<int, i...>) {
    return (F)__builtin_shufflevector(Words{}, words, (first + i / 2 + i % 2 * kSize)...);
  }
  // As by from_scalar().
  static FASTCTC_HD Words rounded(F x) {
    const Bits bits = (Bits)x;
    return (Words)(x != x ? Bits{} + 0x7fc00000u : bits + 0x7fffu + (bits >> 16 & 1u));
  }
  template <int... i>
  static FASTCTC_HD Words upper_words(Words a, Words b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, (2 * i + 1)...);
  }
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

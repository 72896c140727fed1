// Scaled floats: a non-negative number stored as m * 2^e with a mantissa m and an integer-valued exponent e of its own,
// both floating-point. Products add exponents and sums align them, so thousands of probabilities can be multiplied
// without underflow and without one logarithm.
//
// Everything here and in recursion.h is written against a warp of lanes `W` (a SIMD vector on the CPU, a hardware warp
// on a GPU; see kernels/cpu/lanes.h and kernels/cuda/lanes.h), which offers
//   Scalar, F (one Scalar per lane), M (one bool per lane), N (lanes)
//   set, max, min, select(mask, a, b), nonzero(m), scale(m, d) = m * 2^d for d <= 127, exponent(m) = floor(log2 m)
//   load<K>(p, c), store<K>(p, c, x), store_first<K>(p, c, x, count), load_mask<K>(p, c)
//     register c of the block of N * K values at p; store_first writes the values below `count` only
//   neighbor<D, K>(e, c, carry), store_edge<D, K>(p, e)
//     the label before (forward) or after (backward) each label of register c; the block's edge label
//   fill(p, count, x), sync()
#pragma once

#ifdef __CUDACC__
#define FASTCTC_HD __host__ __device__ __forceinline__
#elif defined(FASTCTC_EMULATED_CUDA)
#define FASTCTC_HD inline
#else
#define FASTCTC_HD inline __attribute__((always_inline))
#endif

namespace fastctc {

// The exponent of zero: below every exponent that a product of probabilities reaches, and absorbing in float
// arithmetic.
constexpr float kZeroExponent = -1e30f;

template <class W>
struct Scaled {
  typename W::F m, e;
};

template <class W>
FASTCTC_HD Scaled<W> zero() {
  return {W::set(0), W::set(kZeroExponent)};
}

// The mantissa back into [1, 2); zero keeps the exponent of zero.
template <class W>
FASTCTC_HD Scaled<W> normalize(Scaled<W> a) {
  const auto nonzero = W::nonzero(a.m);
  const auto shift = W::select(nonzero, W::exponent(a.m), W::set(0));
  return {W::scale(a.m, W::set(0) - shift), W::select(nonzero, a.e + shift, W::set(kZeroExponent))};
}

}  // namespace fastctc

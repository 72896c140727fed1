// Elements of a tensor: half and bfloat16 as bits, converted on load and store. Host, and device by its own
// instructions.
#pragma once

#include <cstdint>
#include <cstring>

#include "scaled_float.h"

namespace fastctc {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

FASTCTC_HD uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
FASTCTC_HD float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

// a or b, without a branch: then compilers convert several elements at once.
FASTCTC_HD uint32_t selected(bool first, uint32_t a, uint32_t b) {
  const uint32_t mask = 0u - uint32_t(first);
  return (a & mask) | (b & ~mask);
}

FASTCTC_HD float to_scalar(float x) { return x; }
FASTCTC_HD double to_scalar(double x) { return x; }
FASTCTC_HD float to_scalar(BFloat16 x) { return float_of(uint32_t(x.bits) << 16); }
FASTCTC_HD float to_scalar(Half x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#else
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  const uint32_t subnormal = bits_of(float(int32_t(magnitude)) * 5.9604644775390625e-8f);            // 2^-24
  const uint32_t normal = (magnitude << 13) + 0x38000000u, special = 0x7f800000u | magnitude << 13;  // infinity, NaN
  const uint32_t finite = selected(magnitude >= 0x0400u, normal, subnormal);
  return float_of(sign | selected(magnitude >= 0x7c00u, special, finite));
#endif
}

FASTCTC_HD void from_scalar(float x, float& out) { out = x; }
FASTCTC_HD void from_scalar(double x, double& out) { out = x; }
// Both round to nearest, ties to even.
FASTCTC_HD void from_scalar(float x, BFloat16& out) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
  const uint32_t u = bits_of(x);
  out.bits = x != x ? 0x7fc0u : uint16_t((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
#endif
}
FASTCTC_HD void from_scalar(float x, Half& out) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
  const uint32_t u = bits_of(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  // Adding 0.5 leaves the rounded multiple of 2^-24 in the low bits.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t special = selected(magnitude > 0x7f800000u, 0x7e00u, 0x7c00u);
  const uint32_t finite = selected(magnitude >= 0x38800000u, normal, subnormal);
  out.bits = uint16_t(sign | selected(magnitude >= 0x477ff000u, special, finite));  // 65520 rounds to 65536
#endif
}

// The type sums and recursions of an element type are done in.
template <class Element>
struct ScalarOf {
  using type = float;
};
template <>
struct ScalarOf<double> {
  using type = double;
};

}  // namespace fastctc

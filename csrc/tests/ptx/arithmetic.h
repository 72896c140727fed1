// The instructions of PTX that compute values, one function each; translator/opcodes.py lists them. Tests:
// test_ptx_arithmetic.cpp.
#pragma once

#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "approximations.h"
#include "registers.h"

namespace fastctc::ptx {

template <class T>
inline T copy(T a) {
  return a;
}
template <class D, class T>
inline D cast(T a) {
  return D(a);
}

// ---- integers: results wrap around ----------------------------------------------------------------------------------

template <class T>
inline T wrap(Wider<Unsigned<T>> a) {
  return T(Unsigned<T>(a));
}

template <class T>
inline T add(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a + b;
  else
    return T(Unsigned<T>(Unsigned<T>(a) + Unsigned<T>(b)));
}
template <class T>
inline T sub(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a - b;
  else
    return T(Unsigned<T>(Unsigned<T>(a) - Unsigned<T>(b)));
}
inline float mul(float a, float b) { return a * b; }
inline double mul(double a, double b) { return a * b; }
template <class T>
inline Wider<T> mul_wide(T a, T b) {
  return Wider<T>(Wider<T>(a) * Wider<T>(b));
}
template <class T>
inline T mul_lo(T a, T b) {
  return wrap<T>(Wider<Unsigned<T>>(Unsigned<T>(a)) * Unsigned<T>(b));
}
template <class T>
inline T mul_hi(T a, T b) {
  return T(mul_wide(a, b) >> kBits<T>);
}
template <class T>
inline Wider<T> mad_wide(T a, T b, Wider<T> c) {
  return add(mul_wide(a, b), c);
}
template <class T>
inline T mad_lo(T a, T b, T c) {
  return add(mul_lo(a, b), c);
}
template <class T>
inline T mad_hi(T a, T b, T c) {
  return add(mul_hi(a, b), c);
}

// PTX leaves the quotient and the remainder by zero open; hardware gives all ones, and the dividend.
template <class T>
inline T div(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a / b;
  else if (b == 0)
    return T(-1);
  else if (std::is_signed_v<T> && b == T(-1))
    return sub(T(0), a);
  else
    return T(a / b);
}
template <class T>
inline T rem(T a, T b) {
  if (b == 0) return a;
  return std::is_signed_v<T> && b == T(-1) ? T(0) : T(a % b);
}

// ---- integers and floats --------------------------------------------------------------------------------------------

// Of floats: the other one where one is NaN, and -0 is below +0.
template <class T>
inline T min(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a) return b;
    if (a == b) return std::signbit(a) ? a : b;
    return b < a ? b : a;
  } else {
    return b < a ? b : a;
  }
}
template <class T>
inline T max(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a) return b;
    if (a == b) return std::signbit(a) ? b : a;
    return a < b ? b : a;
  } else {
    return a < b ? b : a;
  }
}
template <class T>
inline T neg(T a) {
  if constexpr (std::is_floating_point_v<T>)
    return -a;
  else
    return sub(T(0), a);
}
template <class T>
inline T abs(T a) {
  if constexpr (std::is_floating_point_v<T>)
    return std::fabs(a);
  else
    return a < 0 ? neg(a) : a;
}

// ---- floats: correctly rounded, compiled without contraction --------------------------------------------------------

// The magnitude of b and the sign of a.
template <class T>
inline T copysign(T a, T b) {
  return std::copysign(b, a);
}
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
// Rounded toward minus infinity.
inline float fma_down(float a, float b, float c) {
  const int mode = std::fegetround();
  std::fesetround(FE_DOWNWARD);
  volatile float x = a, y = b, z = c;
  volatile float result = __builtin_fmaf(x, y, z);
  std::fesetround(mode);
  return result;
}
template <class T>
inline T rcp(T a) {
  return 1 / a;
}
template <class T>
inline T sqrt(T a) {
  return std::sqrt(a);
}
template <class T>
inline bool testp_finite(T a) {
  return std::isfinite(a);
}
template <class T>
inline bool testp_infinite(T a) {
  return std::isinf(a);
}
template <class T>
inline bool testp_number(T a) {
  return a == a;
}
template <class T>
inline bool testp_notanumber(T a) {
  return a != a;
}
template <class T>
inline bool testp_normal(T a) {
  return std::isnormal(a);
}
template <class T>
inline bool testp_subnormal(T a) {
  return std::fpclassify(a) == FP_SUBNORMAL;
}

// ---- bits -----------------------------------------------------------------------------------------------------------

template <class T>
inline T bit_and(T a, T b) {
  return a & b;
}
template <class T>
inline T bit_or(T a, T b) {
  return a | b;
}
template <class T>
inline T bit_xor(T a, T b) {
  return a ^ b;
}
template <class T>
inline T bit_not(T a) {
  if constexpr (std::is_same_v<T, bool>)
    return !a;
  else
    return T(~a);
}
// A shift by the width or more gives zero, or copies of the sign.
template <class T>
inline T shl(T a, uint32_t count) {
  return count >= kBits<T> ? T(0) : T(a << count);
}
template <class T>
inline T shr(T a, uint32_t count) {
  if (count >= kBits<T>) return std::is_signed_v<T> && a < 0 ? T(-1) : T(0);
  return T(a >> count);
}
// The high half of (b, a) shifted left, the low half shifted right.
inline uint32_t shf_l_clamp(uint32_t a, uint32_t b, uint32_t count) {
  if (count >= 32) return a;
  return uint32_t((uint64_t(b) << 32 | a) << count >> 32);
}
inline uint32_t shf_r_clamp(uint32_t a, uint32_t b, uint32_t count) {
  return uint32_t((uint64_t(b) << 32 | a) >> (count > 32 ? 32 : count));
}
inline uint32_t shf_l_wrap(uint32_t a, uint32_t b, uint32_t count) { return shf_l_clamp(a, b, count & 31); }
inline uint32_t shf_r_wrap(uint32_t a, uint32_t b, uint32_t count) { return shf_r_clamp(a, b, count & 31); }
template <class T>
inline uint32_t popc(T a) {
  return uint32_t(__builtin_popcountll(a));
}
template <class T>
inline uint32_t clz(T a) {
  return a ? uint32_t(__builtin_clzll(a)) - (64 - kBits<T>) : kBits<T>;
}
template <class T>
inline T brev(T a) {
  T reversed = 0;
  for (uint32_t i = 0; i < kBits<T>; ++i) reversed = T(reversed << 1 | (a >> i & 1));
  return reversed;
}
// `count` bits from `first`; of a signed type with copies of the highest one.
template <class T>
inline T bfe(T a, uint32_t first, uint32_t count) {
  first &= 255, count &= 255;
  if (count == 0) return 0;
  const uint32_t last = first + count - 1 < kBits<T> ? first + count - 1 : kBits<T> - 1;
  const bool sign = std::is_signed_v<T> && (Unsigned<T>(a) >> last & 1);
  Unsigned<T> field = 0;
  for (uint32_t i = 0; i < kBits<T>; ++i) {
    const bool inside = i < count && first + i < kBits<T>;
    if (inside ? Unsigned<T>(a) >> (first + i) & 1 : sign) field |= Unsigned<T>(1) << i;
  }
  return T(field);
}
// b with `count` bits from `first` replaced by the low ones of a.
template <class T>
inline T bfi(T a, T b, uint32_t first, uint32_t count) {
  first &= 255, count &= 255;
  for (uint32_t i = 0; i < count && first + i < kBits<T>; ++i) {
    const T place = T(T(1) << (first + i));
    b = a >> i & 1 ? T(b | place) : T(b & ~place);
  }
  return b;
}
// Four bytes, each chosen from the eight of (b, a) by a digit of c; digits from 8 on give copies of a byte's sign.
inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t c) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t digit = c >> (4 * i) & 15, byte = bytes >> (8 * (digit & 7)) & 255;
    result |= (digit < 8 ? byte : byte & 128 ? 255u : 0u) << (8 * i);
  }
  return result;
}
// Bit by bit the entry of a table of eight bits.
inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t result = 0;
  for (int i = 0; i < 32; ++i) result |= (table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i;
  return result;
}

// ---- choices and comparisons ----------------------------------------------------------------------------------------

template <class T>
inline T select(T a, T b, bool first) {
  return first ? a : b;
}
template <class T>
inline T select_by_sign(T a, T b, int32_t c) {
  return c >= 0 ? a : b;
}

// Ordered comparisons are false where one is NaN; those with u ("or unordered") are true.
template <class T>
inline bool set_eq(T a, T b) {
  return a == b;
}
template <class T>
inline bool set_ne(T a, T b) {
  return a < b || a > b;
}
template <class T>
inline bool set_lt(T a, T b) {
  return a < b;
}
template <class T>
inline bool set_le(T a, T b) {
  return a <= b;
}
template <class T>
inline bool set_gt(T a, T b) {
  return a > b;
}
template <class T>
inline bool set_ge(T a, T b) {
  return a >= b;
}
template <class T>
inline bool set_equ(T a, T b) {
  return !set_ne(a, b);
}
template <class T>
inline bool set_neu(T a, T b) {
  return !(a == b);
}
template <class T>
inline bool set_ltu(T a, T b) {
  return !(a >= b);
}
template <class T>
inline bool set_leu(T a, T b) {
  return !(a > b);
}
template <class T>
inline bool set_gtu(T a, T b) {
  return !(a <= b);
}
template <class T>
inline bool set_geu(T a, T b) {
  return !(a < b);
}
template <class T>
inline bool set_num(T a, T b) {
  return a == a && b == b;
}
template <class T>
inline bool set_nan(T a, T b) {
  return !set_num(a, b);
}
template <class T>
inline bool set_lo(T a, T b) {
  return Unsigned<T>(a) < Unsigned<T>(b);
}
template <class T>
inline bool set_ls(T a, T b) {
  return Unsigned<T>(a) <= Unsigned<T>(b);
}
template <class T>
inline bool set_hi(T a, T b) {
  return Unsigned<T>(a) > Unsigned<T>(b);
}
template <class T>
inline bool set_hs(T a, T b) {
  return Unsigned<T>(a) >= Unsigned<T>(b);
}

// ---- conversions ----------------------------------------------------------------------------------------------------

template <class T>
inline T cvt_rni(T a) {
  return std::nearbyint(a);
}
template <class T>
inline T cvt_rmi(T a) {
  return std::floor(a);
}
template <class T>
inline T cvt_rpi(T a) {
  return std::ceil(a);
}
template <class T>
inline T cvt_rzi(T a) {
  return std::trunc(a);
}
// NaN gives 0, what is out of range the nearest number.
template <class D, class T>
inline D saturate(T a) {
  if (a != a) return 0;
  if (a >= T(std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
  if (a <= T(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
  return D(a);
}
inline float cvt_sat(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }
inline float cvt_f32_f16(uint16_t a) { return float(get<_Float16>(a)); }
inline uint16_t cvt_f16_f32(float a) { return a != a ? 0x7fff : put<uint16_t>(get<uint16_t>(_Float16(a))); }
inline float cvt_f32_bf16(uint16_t a) { return get<float>(uint32_t(a) << 16); }
inline uint16_t cvt_bf16_f32(float a) {
  const uint32_t bits = get<uint32_t>(a);
  return a != a ? 0x7fff : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace fastctc::ptx

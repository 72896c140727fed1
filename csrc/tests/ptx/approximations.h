// The instructions whose result depends on the hardware: ex2.approx, lg2.approx, rcp.approx.
//
// With seed 0 their results are nearly correctly rounded. Any other seed moves each result by a random part of the
// error that NVIDIA's "PTX ISA" permits. The move is a function of the seed, the instruction and the argument, as on
// hardware: equal arguments have equal results. The values that the document fixes stay: those of zeros, infinities and
// NaN.
#pragma once

#include <cmath>
#include <cstdint>

namespace fastctc::ptx {

inline uint32_t approximation_seed = 0;

// A number in [-1, 1), the same for equal arguments.
inline double noise(uint64_t argument, uint32_t instruction) {
  uint64_t x = argument ^ (uint64_t(approximation_seed) << 32 | instruction) * 0x9e3779b97f4a7c15u;
  for (int round = 0; round < 2; ++round) x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
  return double(int64_t(x)) / 9223372036854775808.0;
}
inline uint64_t bits_of(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
// `exact` moved by up to `error`.
inline float moved(double exact, double error, double argument, uint32_t instruction) {
  if (approximation_seed == 0) return float(exact);
  // Rounding to float adds up to half a unit, 2^-24 of the result.
  const double room = error - std::fabs(exact) / 16777216;
  return room > 0 ? float(exact + room * noise(bits_of(argument), instruction)) : float(exact);
}

inline float flushed(float x) { return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x; }

// Relative error 2^-22.
inline float ex2_approx(float x) {
  const double exact = std::exp2(double(x));
  if (x == 0 || !(exact > 0) || std::isinf(float(exact))) return float(exact);
  return moved(exact, exact / 4194304, double(x), 1);
}
inline float ex2_approx_ftz(float x) { return flushed(ex2_approx(flushed(x))); }

// Absolute error 2^-22 for arguments in (0.5, 2), elsewhere relative error 2^-22.
inline float lg2_approx(float x) {
  const double exact = std::log2(double(x));
  if (!(std::fabs(exact) < INFINITY)) return float(exact);
  const bool near_one = x > 0.5f && x < 2;
  return moved(exact, (near_one ? 1.0 : std::fabs(exact)) / 4194304, double(x), 2);
}
inline float lg2_approx_ftz(float x) { return flushed(lg2_approx(flushed(x))); }

// One unit in the last place, 2^-23 at most.
inline float rcp_approx(float x) {
  const double exact = 1 / double(x);
  if (!(std::fabs(exact) < INFINITY) || exact == 0 || std::isinf(float(exact))) return float(exact);
  return moved(exact, std::fabs(exact) / 8388608, double(x), 4);
}
inline float rcp_approx_ftz(float x) { return flushed(rcp_approx(flushed(x))); }

// "A fast, gross approximation": the upper 32 bits of the argument, and 20 bits of the fraction of the result. The
// document gives no error; one unit of the 20 bits is taken.
inline double rcp_approx_ftz(double x) {
  constexpr uint64_t kUpper = 0xffffffff00000000u;
  uint64_t bits = bits_of(x) & kUpper;
  double upper;
  __builtin_memcpy(&upper, &bits, sizeof upper);
  if (std::fabs(upper) < 2.2250738585072014e-308) return std::copysign(INFINITY, x);
  const double exact = 1 / upper;
  if (std::fabs(exact) < 2.2250738585072014e-308) return std::copysign(0.0, x);
  const double error = approximation_seed && std::isfinite(exact) ? noise(bits, 3) / 1048576 : 0;
  bits = bits_of(exact * (1 + error)) & kUpper;
  double result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return x != x ? x : result;
}

}  // namespace fastctc::ptx

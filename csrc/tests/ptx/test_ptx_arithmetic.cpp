// The functions that stand for instructions of PTX, against values from NVIDIA's "PTX ISA".
#include "../check.h"
#include "arithmetic.h"

#include <vector>

namespace {

using namespace fastctc::ptx;

constexpr float kInfinity = INFINITY;
const float kNan = std::nanf("");

TEST(registers_extend_by_the_sign_of_the_type) {
  CHECK(put<uint32_t>(int8_t(-2)) == 0xfffffffeu && put<uint32_t>(uint8_t(254)) == 254);
  CHECK(put<uint64_t>(int32_t(-1)) == ~0ull && put<uint32_t>(1.0f) == 0x3f800000u);
  CHECK(get<int8_t>(0x12ffu) == -1 && get<uint8_t>(0x12ffu) == 255 && get<float>(0x3f800000u) == 1);
}

TEST(integers_wrap_around) {
  CHECK(add<int32_t>(INT32_MAX, 1) == INT32_MIN && sub<uint16_t>(0, 1) == 65535 &&
        neg<int32_t>(INT32_MIN) == INT32_MIN);
  CHECK(mul_lo<int32_t>(0x10000, 0x10001) == 0x10000 && mul_lo<int16_t>(-2, 3) == -6);
  CHECK(mul_hi<int32_t>(-1, 1) == -1 && mul_hi<uint32_t>(0xffffffffu, 2) == 1);
  CHECK(mul_hi<uint64_t>(~0ull, ~0ull) == ~0ull - 1 && mul_hi<int64_t>(INT64_MIN, 2) == -1);
  CHECK(mul_wide<int32_t>(-1, 2) == -2 && mul_wide<uint32_t>(0xffffffffu, 2) == 0x1fffffffeull);
  CHECK(mad_lo<uint32_t>(0xffffffffu, 2, 3) == 1 && mad_wide<int16_t>(-3, 5, 1) == -14);
}

TEST(division_truncates_and_has_no_traps) {
  CHECK(div<int32_t>(-7, 2) == -3 && rem<int32_t>(-7, 2) == -1 && div<uint32_t>(7, 2) == 3);
  CHECK(div<int32_t>(INT32_MIN, -1) == INT32_MIN && rem<int32_t>(INT32_MIN, -1) == 0);
  CHECK(div<uint32_t>(5, 0) == ~0u && rem<uint32_t>(5, 0) == 5);
}

TEST(minimum_and_maximum_skip_nan_and_order_zeros) {
  CHECK(min(kNan, 1.0f) == 1 && max(1.0f, kNan) == 1 && std::isnan(min(kNan, kNan)));
  CHECK(std::signbit(min(0.0f, -0.0f)) && std::signbit(min(-0.0f, 0.0f)));
  CHECK(!std::signbit(max(0.0f, -0.0f)) && !std::signbit(max(-0.0f, 0.0f)));
  CHECK(min(-1, 1) == -1 && min(~0u, 1u) == 1 && max(-kInfinity, 3.0f) == 3);
}

TEST(floats_round_once) {
  const float a = 1 + 0x1p-12f;
  CHECK(fma(a, a, -1.0f) == 0x1p-11f + 0x1p-24f);
  CHECK(fma_down(1.0f, 1.0f, 0x1p-30f) == 1 && fma_down(1.0f, 1.0f, -0x1p-30f) == 1 - 0x1p-24f);
  CHECK(add(1.0f, 0x1p-24f) == 1 && rcp(4.0) == 0.25 && sqrt(2.25f) == 1.5f);
  CHECK(copysign(-0.0f, 3.0f) == -3 && abs(-2.5) == 2.5 && std::signbit(neg(0.0)));
  CHECK(testp_finite(1.0f) && !testp_finite(kInfinity) && testp_infinite(-kInfinity) && testp_notanumber(kNan));
  CHECK(testp_subnormal(1e-40f) && !testp_normal(1e-40f) && testp_number(0.0));
}

TEST(shifts_by_the_width_leave_nothing) {
  CHECK(shl(1u, 31) == 0x80000000u && shl(1u, 32) == 0 && shl(uint64_t(1), 40) == 1ull << 40);
  CHECK(shr(int32_t(-8), 1) == -4 && shr(int32_t(-8), 99) == -1 && shr(8u, 32) == 0);
  CHECK(shf_l_wrap(0x80000001u, 2, 33) == 5 && shf_l_clamp(7, 2, 40) == 7 && shf_l_clamp(7, 2, 0) == 2);
  CHECK(shf_r_wrap(0x10, 3, 4) == 0x30000001u && shf_r_clamp(7, 2, 40) == 2 && shf_r_clamp(7, 2, 0) == 7);
}

TEST(bits_are_counted_and_moved) {
  CHECK(popc(0xf0f0u) == 8 && popc(~uint64_t(0)) == 64 && clz(1u) == 31 && clz(0u) == 32 && clz(uint64_t(0)) == 64);
  CHECK(clz(uint64_t(1)) == 63 && brev(1u) == 0x80000000u && brev(uint64_t(2)) == 1ull << 62);
  CHECK(bfe<uint32_t>(0xabcdu, 4, 8) == 0xbc && bfe<int32_t>(0xf0, 4, 4) == -1 && bfe<int32_t>(0x70, 4, 4) == 7);
  CHECK(bfe<int32_t>(INT32_MIN, 28, 8) == -8 && bfe<uint32_t>(5, 0, 0) == 0 && bfe<int32_t>(-1, 40, 4) == -1);
  CHECK(bfi<uint32_t>(0xff, 0, 8, 4) == 0xf00 && bfi<uint64_t>(0, ~0ull, 60, 9) == 0x0fffffffffffffffull);
  CHECK(prmt(0x33221100u, 0x77665544u, 0x7250) == 0x77225500u && prmt(0x80u, 0, 0x8) == 0x000000ffu + 0x80808000u);
  CHECK(lop3(0xf0f0f0f0u, 0xccccccccu, 0xaaaaaaaau, 0xe8) == 0xe8e8e8e8u && bit_not(true) == false);
}

TEST(values_are_chosen_and_combined) {
  CHECK(copy(-3) == -3 && select(1, 2, true) == 1 && select(1.5f, 2.5f, false) == 2.5f);
  CHECK(select_by_sign(7u, 8u, 0) == 7 && select_by_sign(7u, 8u, -1) == 8 && mul(3.0f, -0.5f) == -1.5f);
  CHECK(bit_and(12u, 10u) == 8 && bit_or(12u, 10u) == 14 && bit_xor(12u, 10u) == 6 && bit_and(true, true));
  CHECK(bit_or<uint16_t>(1, 0x8000) == 0x8001 && !bit_xor(true, true) && mad_hi<uint32_t>(1u << 31, 4, 3) == 5);
}

TEST(comparisons_of_nan_are_ordered_or_not) {
  CHECK(!set_eq(kNan, 1.0f) && !set_ne(kNan, 1.0f) && !set_lt(kNan, 1.0f) && !set_ge(kNan, 1.0f));
  CHECK(!set_gt(kNan, 1.0f) && !set_le(1.0f, kNan) && set_gt(2, 1) && set_le(2u, 2u));
  CHECK(set_equ(kNan, 1.0f) && set_neu(kNan, 1.0f) && set_ltu(kNan, 1.0f) && set_geu(1.0f, kNan));
  CHECK(!set_equ(2.0f, 1.0f) && set_equ(1.0f, 1.0f) && !set_neu(1.0f, 1.0f) && set_leu(1.0f, 1.0f));
  CHECK(!set_gtu(1.0f, 1.0f) && set_gtu(2.0f, 1.0f) && set_num(1.0f, 2.0f) && set_nan(1.0f, kNan));
  CHECK(set_lt(-1, 0) && !set_lo(-1, 0) && set_hi(-1, 0) && set_hs(3u, 3u) && set_ls(3u, 3u) && set_ne(3, 4));
}

TEST(conversions_round_and_saturate) {
  CHECK(cvt_rni(2.5f) == 2 && cvt_rmi(-1.5) == -2 && cvt_rpi(1.2f) == 2 && cvt_rzi(-1.7) == -1);
  CHECK(saturate<int32_t>(1e20) == INT32_MAX && saturate<int32_t>(-1e20f) == INT32_MIN &&
        saturate<uint32_t>(-3.0) == 0);
  CHECK(saturate<int32_t>(double(kNan)) == 0 && saturate<int64_t>(0x1p63) == INT64_MAX &&
        saturate<uint16_t>(7.0f) == 7);
  CHECK(cvt_sat(2.0f) == 1 && cvt_sat(kNan) == 0 && cvt_sat(0.25f) == 0.25f && cast<int64_t>(int8_t(-1)) == -1);
  CHECK(cvt_f16_f32(1.0f) == 0x3c00 && cvt_f32_f16(0xc000) == -2 && cvt_f16_f32(kNan) == 0x7fff);
  CHECK(cvt_f16_f32(65520.0f) == 0x7c00 && cvt_bf16_f32(1.0f) == 0x3f80 && cvt_bf16_f32(kNan) == 0x7fff);
  CHECK(cvt_bf16_f32(1 + 0x1p-8f) == 0x3f80 && cvt_bf16_f32(1 + 0x3p-8f) == 0x3f82 && cvt_f32_bf16(0xbf80) == -1);
}

TEST(approximations_keep_what_the_document_fixes) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    approximation_seed = seed;
    CHECK(ex2_approx(0) == 1 && ex2_approx(-kInfinity) == 0 && ex2_approx(kInfinity) == kInfinity &&
          std::isnan(ex2_approx(kNan)));
    CHECK(lg2_approx(0) == -kInfinity && lg2_approx(kInfinity) == kInfinity && std::isnan(lg2_approx(-1)) &&
          ex2_approx(200) == kInfinity);
    CHECK(ex2_approx_ftz(-130) == 0 && ex2_approx_ftz(1e-40f) == 1 && lg2_approx_ftz(1e-40f) == -kInfinity);
    CHECK(rcp_approx(kInfinity) == 0 && rcp_approx(-0.0f) == -kInfinity && rcp_approx_ftz(1e-40f) == kInfinity);
    CHECK(std::isinf(rcp_approx_ftz(0.0)) && rcp_approx_ftz(-double(kInfinity)) == 0 &&
          std::isnan(rcp_approx_ftz(kNan)));
  }
  approximation_seed = 0;
  CHECK(ex2_approx(-3) == 0.125f && lg2_approx(1024) == 10 && rcp_approx_ftz(4.0) == 0.25);
}

TEST(a_seed_moves_approximations_within_their_error) {
  int moved_ones = 0, changed = 0;
  for (uint32_t i = 0; i < 20000; ++i) {
    const float x = float(i) / 100 - 120, y = 0x1p-20f * float(i * i + 1);
    approximation_seed = 0;
    const float plain = ex2_approx(x);
    const float first = (approximation_seed = 1, ex2_approx(x)), again = ex2_approx(x);
    const float second = (approximation_seed = 2, ex2_approx(x));
    CHECK(first == again);
    moved_ones += first != plain, changed += first != second;
    if (x > -120) CHECK_NEAR(double(second), std::exp2(double(x)), std::exp2(double(x)) / 4194304);
    const double log = std::log2(double(y)), error = y > 0.5f && y < 2 ? 1 : std::fabs(log);
    CHECK_NEAR(double(lg2_approx(y)), log, error / 4194304);
    CHECK_NEAR(double(rcp_approx(y)) * y, 1, 1.0 / 8388608);
    CHECK_NEAR(rcp_approx_ftz(double(y)) * y, 1, 3.0 / 1048576);
  }
  CHECK(moved_ones > 10000 && changed > 10000);
  approximation_seed = 0;
}

}  // namespace

TEST_MAIN()

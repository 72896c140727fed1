// A warp of lanes as a SIMD vector, in the vector extension of GCC and Clang: it compiles for every processor, and for
// the instruction set that the file is compiled for. The only place with intrinsics. (Long file: one operation after
// the other, each for several instruction sets.)
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../../math/emission.h"
#include "../../math/recursion.h"

#ifndef FASTCTC_ISA
#error "FASTCTC_ISA names the instruction set, and with it the namespace, that this file is compiled for"
#endif
#define FASTCTC_LANE static inline __attribute__((always_inline))

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class S>
struct Integer;
template <>
struct Integer<float> {
  using type = int32_t;
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
};
template <>
struct Integer<double> {
  using type = int64_t;
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double round = 6755399441055744.0;
};

template <class S>
struct Vector {
  typedef S F __attribute__((vector_size(kVectorBytes)));
  typedef typename Integer<S>::type I __attribute__((vector_size(kVectorBytes)));
};
template <class S>
struct Mask {
  using type = typename Vector<S>::I;
};
#if defined(__AVX512F__)
template <>
struct Mask<float> {
  using type = __mmask16;
};
template <>
struct Mask<double> {
  using type = __mmask8;
};
#endif

// Constant vectors of lane numbers.
template <class Int, int N>
struct Index {
  alignas(kVectorBytes) Int lane[N];
  static constexpr Index make(int factor, int offset, int flip) {
    Index index{};
    for (int i = 0; i < N; ++i) index.lane[i] = Int((factor * i + offset) ^ flip);
    return index;
  }
  // The first half of the lanes in even places, the second in odd ones.
  static constexpr Index interleave() {
    Index index{};
    for (int i = 0; i < N; ++i) index.lane[i] = Int(i / 2 + i % 2 * (N / 2));
    return index;
  }
};

// Slots run through the lanes of one register and then on in the next: slot = c * N + lane.
template <class S>
struct Lanes {
  using Scalar = S;
  using Int = typename Integer<S>::type;
  static constexpr int N = kVectorBytes / int(sizeof(S));
  static constexpr bool kSingle = sizeof(S) == 4;
  static constexpr bool kSelectsToAdd = kVectorBytes > 16;  // scale() takes longer than two selections
  using F = typename Vector<S>::F;
  using I = typename Vector<S>::I;
  using M = typename Mask<S>::type;

  typedef double Wide __attribute__((vector_size(N * sizeof(double))));

  FASTCTC_LANE F set(S x) { return F{} + x; }
  FASTCTC_LANE S single(F x) { return x[0]; }
  FASTCTC_LANE Wide widen(F x) { return __builtin_convertvector(x, Wide); }
  FASTCTC_LANE F load(const S* p) {
    F x;
    memcpy(&x, p, sizeof x);
    return x;
  }
  FASTCTC_LANE void store(S* p, F x) { memcpy(p, &x, sizeof x); }
  // N values of another type.
  template <class Other>
  FASTCTC_LANE F load_converted(const Other* p) {
    typedef Other Others __attribute__((vector_size(N * sizeof(Other))));
    Others x;
    memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, F);
  }
  template <class Other>
  FASTCTC_LANE void store_converted(Other* p, F x) {
    typedef Other Others __attribute__((vector_size(N * sizeof(Other))));
    const Others y = __builtin_convertvector(x, Others);
    memcpy(p, &y, sizeof y);
  }
  // To memory, by the caches or, to an aligned place, past them.
  template <bool streams>
  FASTCTC_LANE void put(void* p, F x) {
#if defined(__AVX512F__)
    if constexpr (streams) return _mm512_stream_si512(static_cast<__m512i*>(p), (__m512i)x);
#elif defined(__AVX2__)
    if constexpr (streams) return _mm256_stream_si256(static_cast<__m256i*>(p), (__m256i)x);
#elif defined(__SSE2__)
    if constexpr (streams) return _mm_stream_si128(static_cast<__m128i*>(p), (__m128i)x);
#endif
    memcpy(p, &x, sizeof x);
  }
  // What this thread has streamed is there for all threads that wait for it.
  FASTCTC_LANE void finish_streams() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
  }
  // (factor * i + offset) ^ flip in lane i; a constant, so that shuffles become single instructions.
  template <int factor, int offset, int flip = 0>
  FASTCTC_LANE I index() {
    static constexpr auto constant = Index<Int, N>::make(factor, offset, flip);
    I i;
    memcpy(&i, constant.lane, sizeof i);
    return i;
  }

#if defined(__AVX512F__)
  FASTCTC_LANE M less(F a, F b) {
    if constexpr (kSingle) return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
    if constexpr (!kSingle) return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ);
  }
  FASTCTC_LANE M less(F a, F b, F) { return less(a, b); }
  FASTCTC_LANE M nonzero(F x) {
    if constexpr (kSingle) return _mm512_cmp_ps_mask(x, set(0), _CMP_NEQ_UQ);
    if constexpr (!kSingle) return _mm512_cmp_pd_mask(x, set(0), _CMP_NEQ_UQ);
  }
  FASTCTC_LANE bool any(M m) { return m != 0; }
  FASTCTC_LANE M both(M a, M b) { return M(a & b); }
  FASTCTC_LANE M invert(M m) { return M(~m); }
  // The lanes below `count`.
  FASTCTC_LANE M first(int64_t count) { return count >= N ? M(-1) : count <= 0 ? M(0) : M((1u << count) - 1); }
  FASTCTC_LANE F select(M m, F a, F b) {
    if constexpr (kSingle) return _mm512_mask_blend_ps(m, b, a);
    if constexpr (!kSingle) return _mm512_mask_blend_pd(m, b, a);
  }
  // Lanes outside of the mask are not touched, or are zero.
  FASTCTC_LANE void store(S* p, F x, M m) {
    if constexpr (kSingle) _mm512_mask_storeu_ps(p, m, x);
    if constexpr (!kSingle) _mm512_mask_storeu_pd(p, m, x);
  }
  FASTCTC_LANE F load(const S* p, M m) {
    if constexpr (kSingle) return _mm512_maskz_loadu_ps(m, p);
    if constexpr (!kSingle) return _mm512_maskz_loadu_pd(m, p);
  }
  FASTCTC_LANE F gather(const S* p, const int32_t* index, M m) {
    if constexpr (kSingle) return _mm512_mask_i32gather_ps(set(0), m, _mm512_loadu_si512(index), p, 4);
    if constexpr (!kSingle) {
      return _mm512_mask_i32gather_pd(set(0), m, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index)), p, 8);
    }
  }
  // gather from the registers of a short row: 2, 4, 8 or 16
  static constexpr int kTable = 8 * N;
  template <int registers>
  FASTCTC_LANE F lookup(const F* row, const int32_t* index) {
    if constexpr (registers > 2) {
      constexpr int half = registers / 2;
      return select(has_bit(index, half * N), lookup<half>(row + half, index), lookup<half>(row, index));
    }
    if constexpr (kSingle) return _mm512_permutex2var_ps(row[0], _mm512_loadu_si512(index), row[1]);
    if constexpr (!kSingle) return _mm512_permutex2var_pd(row[0], load_wide(index), row[1]);
  }
  FASTCTC_LANE M has_bit(const int32_t* index, int bit) {
    if constexpr (kSingle) return _mm512_test_epi32_mask(_mm512_loadu_si512(index), _mm512_set1_epi32(bit));
    if constexpr (!kSingle) return _mm512_test_epi64_mask(load_wide(index), _mm512_set1_epi64(bit));
  }
  FASTCTC_LANE __m512i load_wide(const int32_t* index) {
    return _mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(index)));
  }
  // max(a, b) is b where either is NaN.
  FASTCTC_LANE F max(F a, F b) {
    if constexpr (kSingle) return _mm512_max_ps(a, b);
    if constexpr (!kSingle) return _mm512_max_pd(a, b);
  }
  FASTCTC_LANE F min(F a, F b) {
    if constexpr (kSingle) return _mm512_min_ps(a, b);
    if constexpr (!kSingle) return _mm512_min_pd(a, b);
  }
  FASTCTC_LANE F round(F x) {
    if constexpr (kSingle) return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    if constexpr (!kSingle) return _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // Rounded once.
  FASTCTC_LANE F fma(F a, F b, F c) {
    if constexpr (kSingle) return _mm512_fmadd_ps(a, b, c);
    if constexpr (!kSingle) return _mm512_fmadd_pd(a, b, c);
  }
  // Does the processor round floats to bfloat16 (AVX512_BF16)? It does it as by from_scalar(), but for NaN and
  // subnormal numbers.
  static bool rounds_to_bfloat16() { return __builtin_cpu_supports("avx512bf16"); }
  // Word 2 i is a[i], word 2 i + 1 is b[i].
  FASTCTC_LANE F rounded_to_bfloat16(F a, F b) {
    static constexpr auto places = Index<int16_t, 2 * N>::interleave();
    __m512i words;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(words) : "v"(a), "v"(b));  // the file is compiled for processors without it
    return (F)_mm512_permutexvar_epi16(_mm512_load_si512(places.lane), words);
  }
  // Bit i is lane i.
  FASTCTC_LANE uint32_t bits(M m) { return m; }
  FASTCTC_LANE F scale(F m, F d) {
    if constexpr (kSingle) return _mm512_scalef_ps(m, d);
    if constexpr (!kSingle) return _mm512_scalef_pd(m, d);
  }
  FASTCTC_LANE F exponent(F x) {
    if constexpr (kSingle) return _mm512_getexp_ps(x);
    if constexpr (!kSingle) return _mm512_getexp_pd(x);
  }
  template <int K>
  FASTCTC_LANE M load_mask(const uint8_t* p, int c) {
    if constexpr (kSingle) {
      return _mm_test_epi8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + c * N)), _mm_set1_epi8(-1));
    }
    if constexpr (!kSingle) {
      return M(_mm_test_epi8_mask(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + c * N)), _mm_set1_epi8(-1)));
    }
  }
#else
  FASTCTC_LANE M less(F a, F b) { return a < b; }
  FASTCTC_LANE M less(F, F, F difference) { return (M)difference; }  // selections read only the signs
  FASTCTC_LANE M nonzero(F x) { return x != set(0); }
  static bool rounds_to_bfloat16() { return false; }
  FASTCTC_LANE F rounded_to_bfloat16(F a, F) { return a; }
  FASTCTC_LANE bool any(M m) {
    Int bits = 0;
    for (int i = 0; i < N; ++i) bits |= m[i];
    return bits != 0;
  }
  FASTCTC_LANE M both(M a, M b) { return a & b; }
  FASTCTC_LANE M invert(M m) { return ~m; }
  // The lanes below `count`.
  FASTCTC_LANE M first(int64_t count) { return index<1, 0>() < I{} + Int(count >= N ? N : count <= 0 ? 0 : count); }
  FASTCTC_LANE F select(M m, F a, F b) {
#if defined(__AVX2__)  // without comparing a mask from memory with zero
    if constexpr (kSingle) return _mm256_blendv_ps(b, a, (__m256)m);
    if constexpr (!kSingle) return _mm256_blendv_pd(b, a, (__m256d)m);
#endif
    return m ? a : b;
  }
  // Lanes outside of the mask are not touched, or are zero.
  FASTCTC_LANE void store(S* p, F x, M m) {
#if defined(__AVX2__)  // Zen 4 stores ten registers while it stores one by a mask
    return store_pieces(p, x, bits(m), Each());
#endif
    for (int i = 0; i < N; ++i) {
      if (m[i]) p[i] = x[i];
    }
  }
  // Those of sizeof...(i) lanes from `begin` on whose bits are set: in one store if all are, else by halves.
  template <int begin = 0, int... i>
  FASTCTC_LANE void store_pieces(S* p, F x, uint32_t lanes, std::integer_sequence<int, i...>) {
    constexpr int count = sizeof...(i);
    constexpr uint32_t all = ((1u << count) - 1) << begin;
    if ((lanes & all) == all) {
      typedef S Piece __attribute__((vector_size(count * sizeof(S))));
      const Piece piece = __builtin_shufflevector(x, x, (begin + i)...);
      memcpy(p + begin, &piece, sizeof piece);
    } else if (lanes & all) {
      if constexpr (count > 1) {
        using Half = std::make_integer_sequence<int, count / 2>;
        store_pieces<begin>(p, x, lanes, Half());
        store_pieces<begin + count / 2>(p, x, lanes, Half());
      }
    }
  }
  FASTCTC_LANE F load(const S* p, M m) {
#if defined(__AVX2__)
    if constexpr (kSingle) return _mm256_maskload_ps(p, (__m256i)m);
    if constexpr (!kSingle) return _mm256_maskload_pd(p, (__m256i)m);
#endif
    F x{};
    for (int i = 0; i < N; ++i) {
      if (m[i]) x[i] = p[i];
    }
    return x;
  }
  FASTCTC_LANE F gather(const S* p, const int32_t* index, M m) {
    F x{};
    for (int i = 0; i < N; ++i) {
      if (m[i]) x[i] = p[index[i]];
    }
    return x;
  }
#if defined(__AVX2__)
  static constexpr int kTable = kSingle ? 4 * N : 0;
#else
  static constexpr int kTable = 0;  // no lookup: gather does as well
#endif
  template <int registers>
  FASTCTC_LANE F lookup(const F* row, const int32_t* index) {
#if defined(__AVX2__)
    if constexpr (kSingle) {
      const __m256i places = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
      if constexpr (registers > 1) {
        constexpr int half = registers / 2;
        const __m256i upper = _mm256_cmpgt_epi32(_mm256_and_si256(places, (__m256i)(I{} + half * N)), __m256i{});
        return select((M)upper, lookup<half>(row + half, index), lookup<half>(row, index));
      }
      return _mm256_permutevar8x32_ps(*row, places);
    }
#endif
    F x;
    for (int i = 0; i < N; ++i) x[i] = row[index[i] / N][index[i] % N];
    return x;
  }
  // max(a, b) is b where either is NaN, as in the processor's own instruction.
  FASTCTC_LANE F max(F a, F b) {
#if defined(__AVX2__)  // GCC compares and selects where one is a constant
    if constexpr (kSingle) return _mm256_max_ps(a, b);
    if constexpr (!kSingle) return _mm256_max_pd(a, b);
#endif
    return a > b ? a : b;
  }
  FASTCTC_LANE F min(F a, F b) {
#if defined(__AVX2__)
    if constexpr (kSingle) return _mm256_min_ps(a, b);
    if constexpr (!kSingle) return _mm256_min_pd(a, b);
#endif
    return a < b ? a : b;
  }
  FASTCTC_LANE F round(F x) {
#if defined(__AVX2__)
    if constexpr (kSingle) return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    if constexpr (!kSingle) return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
#if defined(__aarch64__)
    for (int i = 0; i < N; ++i) x[i] = std::rint(x[i]);  // one instruction for all lanes
    return x;
#endif
    const F y = (x + Integer<S>::round) - Integer<S>::round;
    return max(x, -x) < set(Integer<S>::round / 3) ? y : x;
  }
  // Rounded once.
  FASTCTC_LANE F fma(F a, F b, F c) {
#if defined(__AVX2__)
    if constexpr (kSingle) return _mm256_fmadd_ps(a, b, c);
    if constexpr (!kSingle) return _mm256_fmadd_pd(a, b, c);
#endif
    for (int i = 0; i < N; ++i) a[i] = std::fma(a[i], b[i], c[i]);
    return a;
  }
  // Bit i is lane i.
  FASTCTC_LANE uint32_t bits(M m) {
#if defined(__AVX2__)
    if constexpr (kSingle) return uint32_t(_mm256_movemask_ps((__m256)m));
    if constexpr (!kSingle) return uint32_t(_mm256_movemask_pd((__m256d)m));
#endif
    uint32_t bits = 0;
    for (int i = 0; i < N; ++i) bits |= uint32_t(m[i] != 0) << i;
    return bits;
  }
  // m * 2^d for d <= 127 (1023 for double); 0 from d = -127 (-1023) downwards.
  FASTCTC_LANE F scale(F m, F d) { return m * power_of_2(max(d, set(S(-Integer<S>::bias)))); }
  // In the low bits of `round` + d stands d.
  FASTCTC_LANE F power_of_2(F d) {
    return (F)((I)(d + (Integer<S>::round + Integer<S>::bias)) << Integer<S>::mantissa_bits);
  }
  // floor(log2(x)) of a normal x > 0.
  FASTCTC_LANE F exponent(F x) {
    return __builtin_convertvector(((I)x >> Integer<S>::mantissa_bits) - Integer<S>::bias, F);
  }
  template <int K>
  FASTCTC_LANE M load_mask(const uint8_t* p, int c) {
    M m;
    for (int i = 0; i < N; ++i) m[i] = -Int(p[c * N + i] != 0);
    return m;
  }
#endif

  // -|x| and |x|
  FASTCTC_LANE F negative(F x) { return (F)((I)x | std::numeric_limits<Int>::min()); }
  FASTCTC_LANE F magnitude(F x) { return (F)((I)x & std::numeric_limits<Int>::max()); }
  // 2^x for x <= bias; 0 below -bias where subnormal numbers are flushed, NaN stays NaN.
  FASTCTC_LANE F exp2(F x) {
#if !defined(__AVX512F__)  // there scale(m, -inf) is 0 for every m, even for the NaN of -inf - -inf
    x = max(set(S(-Integer<S>::bias)), x);
#endif
    if constexpr (kVectorBytes == 16) {  // without instructions that round: in the low bits of `shifted` stands n
      const F shifted = x + Integer<S>::round, n = shifted - Integer<S>::round;
      return exp2_fraction(x - n, S()) * (F)(((I)shifted + Integer<S>::bias) << Integer<S>::mantissa_bits);
    }
    const F n = round(x), fraction = exp2_fraction(x - n, S());
#if defined(__AVX512F__)
    return scale(fraction, n);
#else
    return fraction * power_of_2(n);
#endif
  }
  // log2(x) of a normal x > 0.
  FASTCTC_LANE F log2(F x) {
    if constexpr (!kSingle) {
      for (int i = 0; i < N; ++i) x[i] = std::log2(x[i]);
      return x;
    }
    const F e = exponent(x * S(4.0 / 3)), q = scale(x, -e) - 1;  // 1 + q in [0.75, 1.5)
    F p = q * S(-0.0909118696) + S(0.201300533);
    p = p * q + S(-0.251934538);
    p = p * q + S(0.290800888);
    p = p * q + S(-0.360261399);
    p = p * q + S(0.480802305);
    p = p * q + S(-0.721352115);
    p = p * q + S(1.44269589);
    return p * q + e;
  }
  // Lane i of the result is lane (factor * i + offset) ^ flip of the pair a, b.
  template <int factor, int offset, int flip = 0, int... i>
  FASTCTC_LANE F shuffle(F a, F b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, ((factor * i + offset) ^ flip)...);
  }
  using Each = std::make_integer_sequence<int, N>;
  // Every lane gets the sum (or what else `op` makes) of all.
  template <class Op, int distance = N / 2>
  FASTCTC_LANE F reduce(F x, Op op) {
    x = op(x, shuffle<1, 0, distance>(x, x, Each()));
    if constexpr (distance > 1) return reduce<Op, distance / 2>(x, op);
    return x;
  }
  FASTCTC_LANE F reduce_max(F x) {
    return reduce(x, [](F a, F b) { return max(a, b); });
  }
  FASTCTC_LANE F reduce_add(F x) {
    return reduce(x, [](F a, F b) { return a + b; });
  }
  // Lane i of the result is the sum (or what else `op` makes) of the lanes of x[i]. `count` registers are left, with
  // N / count lanes for each of the first ones.
  template <int count = N, class Op>
  FASTCTC_LANE F reduce_each(F* x, Op op) {
    if constexpr (count == 1) return x[0];
    F y[count > 1 ? count / 2 : 1];
    FASTCTC_UNROLL for (int i = 0; i < count / 2; ++i) {
      const F a = x[2 * i], b = x[2 * i + 1];
      y[i] = op(shuffle<2, 0>(a, b, Each()), shuffle<2, 1>(a, b, Each()));
    }
    return reduce_each<(count > 1 ? count / 2 : 1)>(y, op);
  }

#if defined(__AVX2__)
  // Lanes of each piece of 128 bits of the pair a, b: 0 to 3 are a's.
  template <int p0, int p1, int p2, int p3, int... i>
  FASTCTC_LANE F shuffle_pieces(F a, F b, std::integer_sequence<int, i...>) {
    constexpr int lanes[] = {p0, p1, p2, p3};
    return __builtin_shufflevector(a, b, (i / 4 * 4 + lanes[i % 4] % 4 + lanes[i % 4] / 4 * N)...);
  }
  // transpose() of floats by pieces of 128 bits: shuffles within or of these are the fastest.
  FASTCTC_LANE void transpose_by_pieces(F* x) {
    F y[N];  // piece l of y[i + k] is column 4 l + k of rows i to i + 3
    FASTCTC_UNROLL for (int i = 0; i < N; i += 4) {
      const F a = shuffle_pieces<0, 4, 1, 5>(x[i], x[i + 1], Each());
      const F b = shuffle_pieces<0, 4, 1, 5>(x[i + 2], x[i + 3], Each());
      const F c = shuffle_pieces<2, 6, 3, 7>(x[i], x[i + 1], Each());
      const F d = shuffle_pieces<2, 6, 3, 7>(x[i + 2], x[i + 3], Each());
      y[i] = shuffle_pieces<0, 1, 4, 5>(a, b, Each());
      y[i + 1] = shuffle_pieces<2, 3, 6, 7>(a, b, Each());
      y[i + 2] = shuffle_pieces<0, 1, 4, 5>(c, d, Each());
      y[i + 3] = shuffle_pieces<2, 3, 6, 7>(c, d, Each());
    }
    FASTCTC_UNROLL for (int k = 0; k < 4; ++k) {
#if defined(__AVX512F__)
      constexpr int even = 0x88, odd = 0xdd;  // pieces of either register
      const F a = _mm512_shuffle_f32x4(y[k], y[k + 4], even), b = _mm512_shuffle_f32x4(y[k + 8], y[k + 12], even);
      const F c = _mm512_shuffle_f32x4(y[k], y[k + 4], odd), d = _mm512_shuffle_f32x4(y[k + 8], y[k + 12], odd);
      x[k] = _mm512_shuffle_f32x4(a, b, even);
      x[k + 4] = _mm512_shuffle_f32x4(c, d, even);
      x[k + 8] = _mm512_shuffle_f32x4(a, b, odd);
      x[k + 12] = _mm512_shuffle_f32x4(c, d, odd);
#else
      x[k] = _mm256_permute2f128_ps(y[k], y[k + 4], 0x20);  // the lower pieces
      x[k + 4] = _mm256_permute2f128_ps(y[k], y[k + 4], 0x31);
#endif
    }
  }
#endif
  // Lane j of x[i] becomes lane i of x[j]: the first and the second half are zipped, log2(N) times.
  template <int count = N>
  FASTCTC_LANE void transpose(F* x) {
#if defined(__AVX2__)
    if constexpr (kSingle) return transpose_by_pieces(x);
#endif
    F y[N];
    FASTCTC_UNROLL for (int i = 0; i < N / 2; ++i) {
      y[2 * i] = zip<0>(x[i], x[i + N / 2], Each());
      y[2 * i + 1] = zip<N / 2>(x[i], x[i + N / 2], Each());
    }
    FASTCTC_UNROLL for (int i = 0; i < N; ++i) x[i] = y[i];
    if constexpr (count > 2) transpose<count / 2>(x);
  }
  template <int first, int... i>
  FASTCTC_LANE F zip(F a, F b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, (first + i / 2 + (i % 2) * N)...);
  }

  // The register whose lanes are the slots before (after) those of x; `edge` is the register before (after) it.
  FASTCTC_LANE F shift(F x, F edge, bool forward) {
    return forward ? shuffle<1, N - 1>(edge, x, Each()) : shuffle<1, 1>(x, edge, Each());
  }

  // the block interface of math/scaled_float.h
  template <int K>
  FASTCTC_LANE F load(const S* p, int c) {
    return load(p + c * N);
  }
  template <int K>
  FASTCTC_LANE void store(S* p, int c, F x) {
    store(p + c * N, x);
  }
  template <int K>
  FASTCTC_LANE void store_masked(S* p, int c, F x, M m) {
    store(p + c * N, x, m);
  }
  template <int K>
  FASTCTC_LANE M range(int c, int64_t begin, int64_t end) {
    return both(first(end - c * N), invert(first(begin - c * N)));
  }
  template <Direction D, int K, class Registers>
  FASTCTC_LANE F neighbor(int c, F carry, const Registers& x) {
    constexpr bool forward = D == Direction::kForward;
    return shift(x(c), c == (forward ? 0 : K - 1) ? carry : x(forward ? c - 1 : c + 1), forward);
  }
  template <Direction D, int K, class Registers>
  FASTCTC_LANE void store_edge(S* p, const Registers& x) {
    constexpr bool forward = D == Direction::kForward;
    *p = x(forward ? K - 1 : 0)[forward ? N - 1 : 0];
  }
  FASTCTC_LANE void copy(const S* from, S* to, int64_t count) { memcpy(to, from, size_t(count) * sizeof(S)); }
  FASTCTC_LANE void fill(S* p, int64_t count, S x) {
    for (int64_t i = 0; i < count; ++i) p[i] = x;
  }
  FASTCTC_LANE void sync() {}
  template <class Function>
  FASTCTC_LANE F make(const Function& f) {
    F x;
    for (int i = 0; i < N; ++i) x[i] = f(i);
    return x;
  }
  template <class Function>
  FASTCTC_LANE void for_each(int64_t count, const Function& f) {
    for (int64_t i = 0; i < count; ++i) f(i);
  }
};

// Flushes denormals to zero as long as it exists. They would cost a hundred cycles each, and the recursion takes them
// for zero anyway.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | uint64_t(1) << 24));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

// CUDA's own names for the emulation: keywords, built-in variables, collectives, atomics, intrinsics and the few
// functions of its runtime that launchers call. Included by cuda_emulation.h, and only by it.
#pragma once

#include "cuda_emulation.h"

// __shared__ is left undefined on purpose: FASTCTC_SHARED_ARRAY and dynamic_shared() of launch.h serve both
// machines.
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (::fastctc::emulation::emulator().thread_index())
#define blockIdx (::fastctc::emulation::emulator().block_index())
#define blockDim (::fastctc::emulation::emulator().block_size())
#define gridDim (::fastctc::emulation::emulator().grid_size())
constexpr int warpSize = 32;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9
};
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };

inline const char* cudaGetErrorString(cudaError_t error) { return error ? "emulated CUDA error" : "no error"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t = nullptr) {
  if (bytes) std::memset(pointer, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t = nullptr) {
  if (bytes) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

#define FASTCTC_VECTOR_TYPES(T, name)                                                             \
  struct __attribute__((aligned(2 * sizeof(T)))) name##2 { T x, y; };                             \
  struct __attribute__((aligned(sizeof(T) == 8 ? 16 : 4 * sizeof(T)))) name##4 { T x, y, z, w; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                      \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
FASTCTC_VECTOR_TYPES(float, float)
FASTCTC_VECTOR_TYPES(double, double)
FASTCTC_VECTOR_TYPES(int, int)
FASTCTC_VECTOR_TYPES(unsigned, uint)
FASTCTC_VECTOR_TYPES(short, short)
FASTCTC_VECTOR_TYPES(unsigned short, ushort)
#undef FASTCTC_VECTOR_TYPES

// Each collective knows its caller's line: these parameters are filled in by the compiler.
#define FASTCTC_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

FASTCTC_UNTRACKED inline void __syncthreads(FASTCTC_CALLER) {
  auto& e = fastctc::emulation::emulator();
  e.wait_at_barrier(0, e.block_threads(), false, {"__syncthreads", file, line});
}
FASTCTC_UNTRACKED inline int __syncthreads_count(int vote, FASTCTC_CALLER) {
  auto& e = fastctc::emulation::emulator();
  return static_cast<int>(e.wait_at_barrier(0, e.block_threads(), vote != 0, {"__syncthreads_count", file, line}));
}
FASTCTC_UNTRACKED inline int __syncthreads_or(int vote, FASTCTC_CALLER) {
  auto& e = fastctc::emulation::emulator();
  return e.wait_at_barrier(0, e.block_threads(), vote != 0, {"__syncthreads_or", file, line}) != 0;
}
FASTCTC_UNTRACKED inline int __syncthreads_and(int vote, FASTCTC_CALLER) {
  auto& e = fastctc::emulation::emulator();
  return e.wait_at_barrier(0, e.block_threads(), vote == 0, {"__syncthreads_and", file, line}) == 0;
}
FASTCTC_UNTRACKED inline void __syncwarp(unsigned mask = ~0u, FASTCTC_CALLER) {
  fastctc::emulation::emulator().meet(mask, 0, {"__syncwarp", file, line}, true);
}

// width: 32 or a smaller power of two; each segment of that many lanes shuffles on its own.
template <class T>
FASTCTC_UNTRACKED T __shfl_sync(unsigned mask, T value, int source, int width = 32, FASTCTC_CALLER) {
  const unsigned lane = fastctc::emulation::emulator().current().lane, segment = lane & ~(width - 1u);
  return fastctc::emulation::shuffle(mask, value, segment + (source & (width - 1u)), {"__shfl_sync", file, line});
}
template <class T>
FASTCTC_UNTRACKED T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, FASTCTC_CALLER) {
  const unsigned lane = fastctc::emulation::emulator().current().lane, in_segment = lane & (width - 1u);
  return fastctc::emulation::shuffle(mask, value, in_segment >= delta ? lane - delta : lane,
                                     {"__shfl_up_sync", file, line});
}
template <class T>
FASTCTC_UNTRACKED T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, FASTCTC_CALLER) {
  const unsigned lane = fastctc::emulation::emulator().current().lane, in_segment = lane & (width - 1u);
  return fastctc::emulation::shuffle(mask, value, in_segment + delta < unsigned(width) ? lane + delta : lane,
                                     {"__shfl_down_sync", file, line});
}
template <class T>
FASTCTC_UNTRACKED T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, FASTCTC_CALLER) {
  const unsigned lane = fastctc::emulation::emulator().current().lane, source = lane ^ unsigned(bits);
  const bool beyond = (source & 31u & ~(width - 1u)) > (lane & ~(width - 1u));  // in a later segment: keep one's own
  return fastctc::emulation::shuffle(mask, value, beyond ? lane : source & 31u, {"__shfl_xor_sync", file, line});
}

FASTCTC_UNTRACKED inline unsigned __ballot_sync(unsigned mask, int vote, FASTCTC_CALLER) {
  return fastctc::emulation::ballot(mask, vote != 0, {"__ballot_sync", file, line});
}
FASTCTC_UNTRACKED inline int __any_sync(unsigned mask, int vote, FASTCTC_CALLER) {
  return fastctc::emulation::ballot(mask, vote != 0, {"__any_sync", file, line}) != 0;
}
FASTCTC_UNTRACKED inline int __all_sync(unsigned mask, int vote, FASTCTC_CALLER) {
  return fastctc::emulation::ballot(mask, vote == 0, {"__all_sync", file, line}) == 0;
}
// Which lanes happen to run together is not defined; the smallest answer that the language permits is given.
FASTCTC_UNTRACKED inline unsigned __activemask() { return 1u << fastctc::emulation::emulator().current().lane; }

#define FASTCTC_REDUCE(name, T, combined)                                                        \
  FASTCTC_UNTRACKED inline T name(unsigned mask, T value, FASTCTC_CALLER) {                      \
    return fastctc::emulation::reduce(mask, value, {#name, file, line},                          \
                                      [](T a, T b) FASTCTC_UNTRACKED -> T { return combined; }); \
  }
FASTCTC_REDUCE(__reduce_add_sync, unsigned, a + b)
FASTCTC_REDUCE(__reduce_add_sync, int, int(unsigned(a) + unsigned(b)))
FASTCTC_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
FASTCTC_REDUCE(__reduce_min_sync, int, a < b ? a : b)
FASTCTC_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
FASTCTC_REDUCE(__reduce_max_sync, int, a > b ? a : b)
FASTCTC_REDUCE(__reduce_and_sync, unsigned, a& b)
FASTCTC_REDUCE(__reduce_or_sync, unsigned, a | b)
FASTCTC_REDUCE(__reduce_xor_sync, unsigned, a ^ b)
#undef FASTCTC_REDUCE

template <class T>
FASTCTC_UNTRACKED unsigned __match_any_sync(unsigned mask, T value, FASTCTC_CALLER) {
  auto& e = fastctc::emulation::emulator();
  const uint64_t mine = fastctc::emulation::pack(value);
  const uint64_t* values = e.meet(mask, mine, {"__match_any_sync", file, line}, false);
  unsigned same = 0;
  for (unsigned lane = 0; lane < 32 && e.current().warp * 32 + lane < e.block_threads(); ++lane)
    same |= unsigned((mask >> lane & 1) && values[lane] == mine) << lane;
  return same;
}
#undef FASTCTC_CALLER

inline void __threadfence() { fastctc::emulation::emulator().fence(); }
inline void __threadfence_block() { fastctc::emulation::emulator().fence(); }
// Lets other threads run: a loop that waits for a flag must call it, or it never ends here.
inline void __nanosleep(unsigned) { fastctc::emulation::emulator().yield(); }
[[noreturn]] inline void __trap() { fastctc::emulation::emulator().fail("__trap()"); }

template <class T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  return fastctc::emulation::read_modify_write<T>(address, [](T old, T x) { return T(old + x); }, value);
}
template <class T>
T atomicMax(T* address, std::common_type_t<T> value) {
  static_assert(std::is_integral_v<T>, "CUDA has atomicMax for integers only");
  return fastctc::emulation::read_modify_write<T>(address, [](T old, T x) { return old < x ? x : old; }, value);
}
template <class T>
T atomicMin(T* address, std::common_type_t<T> value) {
  static_assert(std::is_integral_v<T>, "CUDA has atomicMin for integers only");
  return fastctc::emulation::read_modify_write<T>(address, [](T old, T x) { return x < old ? x : old; }, value);
}
template <class T>
T atomicOr(T* address, std::common_type_t<T> value) {
  return fastctc::emulation::read_modify_write<T>(address, [](T old, T x) { return T(old | x); }, value);
}
template <class T>
T atomicAnd(T* address, std::common_type_t<T> value) {
  return fastctc::emulation::read_modify_write<T>(address, [](T old, T x) { return T(old & x); }, value);
}
template <class T>
T atomicExch(T* address, std::common_type_t<T> value) {
  return fastctc::emulation::read_modify_write<T>(address, [](T, T x) { return x; }, value);
}
template <class T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  static_assert(std::is_integral_v<T>, "CUDA has atomicCAS for integers only");
  T old = expected;
  __atomic_compare_exchange(address, &old, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return old;
}

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcg(T* p, std::common_type_t<T> value) {
  *p = value;
}
template <class T>
void __stcs(T* p, std::common_type_t<T> value) {
  *p = value;
}

namespace fastctc::emulation {
template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace fastctc::emulation
inline float __int_as_float(int x) { return fastctc::emulation::same_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return fastctc::emulation::same_bits<float>(x); }
inline int __float_as_int(float x) { return fastctc::emulation::same_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return fastctc::emulation::same_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return fastctc::emulation::same_bits<double>(x); }
inline long long __double_as_longlong(double x) { return fastctc::emulation::same_bits<long long>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }

inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.f) : 0.f; }
// Macros, because glibc declares functions of these names.
#define __expf(x) ::expf(x)
#define __logf(x) ::logf(x)
#define __log2f(x) ::log2f(x)
#define __log10f(x) ::log10f(x)
#define __powf(x, y) ::powf(x, y)

using std::max;
using std::min;

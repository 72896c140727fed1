// CUDA's own names for the emulation: keywords, built-in variables, collectives, atomics and intrinsics. These are the
// ones that kernels and tests use; a kernel that needs another one adds it. Only cuda_emulation.h includes this file.
#pragma once

#include "cuda_emulation.h"

// __shared__ is left undefined on purpose: FASTCTC_SHARED_ARRAY and dynamic_shared() of launch.h serve both
// machines.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (::fastctc::emulation::emulator().thread_index())
#define blockIdx (::fastctc::emulation::emulator().block_index())
#define blockDim (::fastctc::emulation::emulator().block_size())
#define gridDim (::fastctc::emulation::emulator().grid_size())

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidDevice = 101 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
struct CUstream_st;
using cudaStream_t = CUstream_st*;

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorInvalidValue ? "cudaErrorInvalidValue" : error ? "cudaErrorInvalidDevice" : "cudaSuccess";
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidValue ? "invalid argument" : error ? "invalid device ordinal" : "no error";
}
// Each host thread has a current device.
inline cudaError_t cudaSetDevice(int device) {
  if (device < 0) return cudaErrorInvalidDevice;
  fastctc::emulation::device_of_this_thread() = device;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = fastctc::emulation::device_of_this_thread();
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = static_cast<int>(fastctc::emulation::kMaxSharedBytes);
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || size_t(bytes) > fastctc::emulation::kMaxSharedBytes) return cudaErrorInvalidValue;
  fastctc::emulation::set_dynamic_limit(kernel, size_t(bytes));
  return cudaSuccess;
}

// The compiler fills in these parameters, the line of the caller of a collective.
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

inline int __popc(unsigned x) { return __builtin_popcount(x); }

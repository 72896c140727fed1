// The only way kernels are launched, and what they need that differs between a GPU and its emulation:
//
//   launch(name, kernel, grid, block, shared_bytes, stream, arguments...)
//   FASTCTC_SHARED_ARRAY(float, tile, [2][32]);            __shared__ float tile[2][32];
//   float* shared = dynamic_shared<float>();               extern __shared__ float shared[];
//   async_copy<16>(to_shared, from_global); async_commit(); async_wait<groups that may still be pending>();
//   named_barrier(id, threads)                             a barrier for some warps of a block
//   prefetch(global)                                       into the L2 cache
//   FASTCTC_OUT_OF_LINE void f();                          a device function that is called, not inlined
//
// Shared memory: a kernel may have 48 KB, static and dynamic together. For more, its limit on the device is raised
// first.
//
// With FASTCTC_EMULATED_CUDA a C++ compiler runs the kernels on the CPU: csrc/tests/cuda_emulation.h.
#pragma once

#include <cstddef>

#ifdef FASTCTC_EMULATED_CUDA
#include "../../tests/cuda_emulation.h"
#else
#include <cuda_runtime.h>
#endif

namespace fastctc::cuda {

constexpr size_t kUnraisedSharedBytes = 48 * 1024;
constexpr size_t kMostStaticBytes = 1024;  // of a kernel that has dynamic shared memory, too

// Raises the limit of a kernel to the most that the current device has. It does so once, whatever threads launch.
cudaError_t raise_shared_limit(const void* kernel);
// Records a launch that failed, for describe_error() of launch_error.h. Returns its error.
cudaError_t record_failure(const char* name, dim3 grid, dim3 block, size_t shared_bytes, cudaError_t error);

#ifdef FASTCTC_EMULATED_CUDA

#define FASTCTC_OUT_OF_LINE inline

// Throws std::runtime_error where a GPU would hang, race or read garbage.
template <class... P, class... A>
cudaError_t run_kernel(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
                       const A&... arguments) {
  emulation::launch(kernel, grid, block, shared_bytes, arguments...);
  return cudaSuccess;
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::emulator().dynamic_shared());
}

#define FASTCTC_SHARED_ARRAY(type, name, dimensions) \
  auto& name = ::fastctc::emulation::shared_array<type dimensions>([] {})

template <int kBytes>
void async_copy(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "an asynchronous copy moves 4, 8 or 16 bytes");
  emulation::emulator().async_copy(shared, global, kBytes);
}
inline void async_commit() { emulation::emulator().async_commit(); }
template <int kPendingGroups>
void async_wait() {
  emulation::emulator().async_wait(kPendingGroups);
}

inline void prefetch(const void*) {}

inline void named_barrier(int id, int threads, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::emulator().wait_at_barrier(id, threads, false, {"named_barrier", file, line});
}

#else  // nvcc

template <class... P, class... A>
cudaError_t run_kernel(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                       const A&... arguments) {
  return [&](P... converted) {
    void* pointers[] = {static_cast<void*>(&converted)..., nullptr};
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, shared_bytes, stream);
  }(arguments...);
}

#ifdef __CUDACC__

#define FASTCTC_OUT_OF_LINE static __device__ __noinline__

template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char fastctc_dynamic_shared[];
  return reinterpret_cast<T*>(fastctc_dynamic_shared);
}

#define FASTCTC_SHARED_ARRAY(type, name, dimensions) __shared__ __align__(16) type name dimensions

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800

// GPUs before sm_80 have no asynchronous copies: the data is there at once.
template <int kBytes>
__device__ __forceinline__ void async_copy(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "an asynchronous copy moves 4, 8 or 16 bytes");
  if constexpr (kBytes == 16) *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
  if constexpr (kBytes == 8) *static_cast<uint2*>(shared) = *static_cast<const uint2*>(global);
  if constexpr (kBytes == 4) *static_cast<unsigned*>(shared) = *static_cast<const unsigned*>(global);
}
__device__ __forceinline__ void async_commit() {}
template <int kPendingGroups>
__device__ __forceinline__ void async_wait() {}

#else

// Global to shared memory without passing through registers. Both addresses are aligned to kBytes. The data
// is there for this thread after async_wait, for others after a barrier that follows it.
template <int kBytes>
__device__ __forceinline__ void async_copy(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "an asynchronous copy moves 4, 8 or 16 bytes");
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(global), "n"(kBytes) : "memory");
  }
}
// Closes a group: everything copied since the last commit.
__device__ __forceinline__ void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the kPendingGroups youngest groups are under way.
template <int kPendingGroups>
__device__ __forceinline__ void async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPendingGroups) : "memory");
}

#endif

__device__ __forceinline__ void prefetch(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(global)));
}

// id 1 to 15; threads is a multiple of 32, and counts those that arrive.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif  // __CUDACC__
#endif  // nvcc

// Empty grids are skipped. Returns the error of this launch; errors of earlier asynchronous work may show
// here too. `name` is a literal.
template <class... P, class... A>
cudaError_t launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "a kernel is launched with one argument for each parameter");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  if (shared_bytes > kUnraisedSharedBytes - kMostStaticBytes) {
    error = raise_shared_limit(reinterpret_cast<const void*>(kernel));
  }
  if (error == cudaSuccess) error = run_kernel(kernel, grid, block, shared_bytes, stream, arguments...);
  return error == cudaSuccess ? error : record_failure(name, grid, block, shared_bytes, error);
}

}  // namespace fastctc::cuda

#include "launch.h"

#include <mutex>
#include <set>
#include <utility>

#include "../launch_error.h"

namespace fastctc {
namespace cuda {
namespace {

struct Failure {
  cudaError_t error = cudaSuccess;
  const char* name = nullptr;
  dim3 grid, block;
  size_t shared_bytes = 0;
};
Failure& last_failure() {
  static thread_local Failure failure;
  return failure;
}

uint64_t count(dim3 d) { return uint64_t(d.x) * d.y * d.z; }

}  // namespace

cudaError_t raise_shared_limit(const void* kernel) {
  static std::mutex mutex;
  static std::set<std::pair<const void*, int>> raised;
  int device = 0, most = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  const std::lock_guard<std::mutex> lock(mutex);
  if (raised.count({kernel, device})) return cudaSuccess;
  cudaError_t error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (!error) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most - int(kMostStaticBytes));
  }
  if (!error) raised.insert({kernel, device});
  return error;
}

cudaError_t record_failure(const char* name, dim3 grid, dim3 block, size_t shared_bytes, cudaError_t error) {
  cudaGetLastError();  // the error is returned here, so the next caller must not get it too
  last_failure() = {error, name, grid, block, shared_bytes};
  return error;
}

std::string describe_error(int error) {
  const cudaError_t e = cudaError_t(error);
  std::string text = std::string(cudaGetErrorName(e)) + " (" + cudaGetErrorString(e) + ")";
  const Failure last = std::exchange(last_failure(), {});
  if (last.error != e || e == cudaSuccess) return text;
  return text + " at the launch of " + last.name + ": " + std::to_string(count(last.grid)) + " blocks of " +
         std::to_string(count(last.block)) + " threads, " + std::to_string(last.shared_bytes) +
         " bytes of shared memory";
}

}  // namespace cuda
}  // namespace fastctc

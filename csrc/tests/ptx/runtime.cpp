// The few functions of the CUDA runtime that nvcc's host code calls. A launch runs the translated PTX on the emulator.
//
// What a driver refuses is refused here with cudaErrorInvalidValue: blocks above the launch bounds, and more than 48 KB
// of shared memory, static and dynamic, without opting in. cudaGetErrorString tells why.
#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>

#include "library.h"

namespace {

using namespace fastctc::ptx;

constexpr int kSuccess = 0, kInvalidValue = 1, kInvalidDeviceFunction = 98;
constexpr int kMaxDynamicSharedMemory = 8;  // an attribute of a kernel
constexpr int kMaxSharedMemoryOptIn = 97;   // an attribute of a device
constexpr size_t kDefaultSharedBytes = 48 * 1024;
constexpr size_t kLargestSharedBytes = 99 * 1024;  // of sm_86, sm_89 and sm_120, the least from sm_80 on

struct Dim3 {
  unsigned x, y, z;
};

// One kernel of the host code: the address that launches name it by.
struct Stub {
  std::string mangled;
  size_t allowed = 0;  // dynamic shared memory that was opted in to
};

std::mutex mutex;
std::map<const void*, Stub>& stubs() {
  static auto* const all = new std::map<const void*, Stub>;  // registered before main, used until the end
  return *all;
}
thread_local std::string problem = "no error";

int refuse(int error, const std::string& why) {
  problem = why;
  std::fprintf(stderr, "PTX: %s\n", why.c_str());
  return error;
}

Stub* stub_at(const void* address) {
  const auto found = stubs().find(address);
  return found == stubs().end() ? nullptr : &found->second;
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 0; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, void*, void*, void*, void*, int*) {
  const std::lock_guard<std::mutex> lock(mutex);
  stubs()[stub] = {name, 0};
}
unsigned __cudaPushCallConfiguration(Dim3, Dim3, size_t, void*) { return 0; }
int __cudaPopCallConfiguration(Dim3*, Dim3*, size_t*, void*) { return kSuccess; }

int cudaGetLastError() { return kSuccess; }
int cudaPeekAtLastError() { return kSuccess; }
const char* cudaGetErrorString(int error) { return error ? problem.c_str() : "no error"; }
const char* cudaGetErrorName(int error) {
  return error == kSuccess        ? "cudaSuccess"
         : error == kInvalidValue ? "cudaErrorInvalidValue"
                                  : "cudaErrorInvalidDeviceFunction";
}
int cudaGetDevice(int* device) { return *device = 0; }
int cudaDeviceGetAttribute(int* value, int attribute, int) {
  if (attribute != kMaxSharedMemoryOptIn) return refuse(kInvalidValue, "device attribute " + std::to_string(attribute));
  *value = int(kLargestSharedBytes);
  return kSuccess;
}

int cudaFuncSetAttribute(const void* address, int attribute, int value) {
  std::string mangled;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const Stub* stub = stub_at(address);
    if (!stub) return refuse(kInvalidDeviceFunction, "an attribute of a kernel that is not registered");
    mangled = stub->mangled;
  }
  const LoadedKernel& loaded = kernel_named(mangled);
  if (attribute != kMaxDynamicSharedMemory)
    return refuse(kInvalidValue, "attribute " + std::to_string(attribute) + " of " + loaded.name);
  const size_t total = loaded.kernel->static_shared_bytes + size_t(value);
  if (value < 0 || total > kLargestSharedBytes)
    return refuse(kInvalidValue, std::to_string(total) + " bytes of shared memory for " + loaded.name);
  const std::lock_guard<std::mutex> lock(mutex);
  stub_at(address)->allowed = size_t(value);
  return kSuccess;
}

int __cudaGetKernel(void** kernel, const void* stub) {
  *kernel = const_cast<void*>(stub);
  return kSuccess;
}
int cudaGetKernel(void** kernel, const void* stub) { return __cudaGetKernel(kernel, stub); }

int cudaLaunchKernel(const void* address, Dim3 grid, Dim3 block, void** arguments, size_t shared, void*) {
  Stub stub;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const Stub* found = stub_at(address);
    if (!found) return refuse(kInvalidDeviceFunction, "a launch of a kernel that is not registered");
    stub = *found;
  }
  const LoadedKernel& loaded = kernel_named(stub.mangled);
  const Kernel& kernel = *loaded.kernel;
  const size_t fixed = kernel.static_shared_bytes, limit = std::max(kDefaultSharedBytes, fixed + stub.allowed);
  if (fixed + shared > limit)
    return refuse(kInvalidValue, std::to_string(fixed) + " static and " + std::to_string(shared) +
                                     " dynamic bytes of shared memory, but " + std::to_string(limit) +
                                     " in all are allowed, for " + loaded.name);
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > kernel.max_threads)
    return refuse(kInvalidValue, std::to_string(threads) + " threads a block, but the launch bounds of " + loaded.name +
                                     " are " + std::to_string(kernel.max_threads));
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return refuse(kInvalidValue, "an empty grid for " + loaded.name);
  run({&kernel,
       loaded.name.c_str(),
       {grid.x, grid.y, grid.z},
       {block.x, block.y, block.z},
       reinterpret_cast<unsigned char* const*>(arguments),
       shared});
  return kSuccess;
}
int __cudaLaunchKernel(const void* address, Dim3 grid, Dim3 block, void** arguments, size_t shared, void* stream) {
  return cudaLaunchKernel(address, grid, block, arguments, shared, stream);
}

}  // extern "C"

#include "tensors.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <torch/csrc/stable/accelerator.h>

namespace fastctc {

DType dtype_of(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    default:
      value_error(name, " must be of type float16, bfloat16, float32 or float64");
  }
}

ScalarType scalar_type_of(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

const int64_t* int64_data(const Tensor& t, const char* name) {
  if (t.scalar_type() != ScalarType::Long) value_error(name, " must be of type int64");
  if (!t.is_contiguous()) value_error(name, " must be contiguous");
  return static_cast<const int64_t*>(t.const_data_ptr());
}

Tensor device_workspace(const Tensor& t, size_t bytes) {
  return torch::stable::new_empty(t, {int64_t(bytes)}, ScalarType::Byte);
}

void advise_huge_pages(void* p, size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr size_t kHugePage = size_t(2) << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(p) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(p) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

#ifdef FASTCTC_EMULATED_CUDA

bool on_cuda(const Tensor&) { return true; }
DeviceGuard::DeviceGuard(const Tensor&) {}
void* current_stream(const Tensor&) { return nullptr; }
void check_cuda(int error) {
  if (error != 0) throw std::runtime_error("emulated CUDA error " + std::to_string(error));
}

#else

bool on_cuda(const Tensor& t) { return t.is_cuda(); }
DeviceGuard::DeviceGuard(const Tensor& t)
    : guard_(std::make_shared<torch::stable::accelerator::DeviceGuard>(t.get_device_index())) {}

// Only CUDA builds of PyTorch have this function, and the same binary serves CPU builds: so it is looked up when
// needed, in the library that is loaded already.
void* current_stream(const Tensor& t) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const Function function = [] {
    void* const library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    return reinterpret_cast<Function>(dlsym(library ? library : RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
  }();
  if (!function) throw std::runtime_error("fastctc: this PyTorch has no CUDA support");
  void* stream = nullptr;
  if (function(t.get_device_index(), &stream) != 0) throw std::runtime_error("fastctc: no current CUDA stream");
  return stream;
}

void check_cuda(int error) {
  if (error != 0) throw std::runtime_error("fastctc: CUDA error " + std::to_string(error) + " at a kernel launch");
}

#endif

}  // namespace fastctc

// What the ops share: the stable PyTorch API, element types, devices, workspaces.
//
// Only the stable API is used, so that one binary serves every PyTorch from 2.10 on.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>

#include "../kernels/dtype.h"

// The emulated library of the tests registers the CUDA kernels for CPU tensors, under a namespace of its own.
#ifdef FASTCTC_EMULATED_CUDA
#define FASTCTC_NAMESPACE fastctc_emulated
#else
#define FASTCTC_NAMESPACE fastctc
#endif
#define FASTCTC_LIBRARY(ns, m) STABLE_TORCH_LIBRARY_FRAGMENT(ns, m)
#define FASTCTC_LIBRARY_IMPL(ns, key, m) STABLE_TORCH_LIBRARY_IMPL(ns, key, m)

namespace fastctc {

using torch::stable::Tensor;
using ScalarType = torch::headeronly::ScalarType;

// Raises ValueError in Python.
template <class... Parts>
[[noreturn]] void value_error(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::invalid_argument(text.str());
}

// Does `t` take the CUDA kernels? Always, in the emulated library.
bool on_cuda(const Tensor& t);
DType dtype_of(const Tensor& t, const char* name);
// float for the types that are computed in float, double for double.
ScalarType scalar_type_of(const Tensor& t);

// Raise unless `t` is on the device of `input`, and for check_place contiguous.
void check_device(const Tensor& t, const char* name, const Tensor& input);
void check_place(const Tensor& t, const char* name, const Tensor& input);
const int64_t* int64_data(const Tensor& t, const char* name, const Tensor& input);
// Lengths, one for each of `batch` samples.
const int64_t* lengths_data(const Tensor& t, const char* name, const Tensor& input, int64_t batch);
// On the CPU: lengths[n] must be in [0, frames].
void check_input_length(const int64_t* lengths, int64_t n, int64_t frames);
// The input of a decoder, (N, T, C), with its lengths and blank; on the CPU the lengths are looked at.
template <class Params>
void set_input(Params& p, const Tensor& input, const Tensor& input_lengths, int64_t blank) {
  if (input.dim() != 3) value_error("input must have 3 dimensions (N, T, C), got ", input.dim());
  p.input = input.const_data_ptr();
  p.dtype = dtype_of(input, "input");
  p.batch = input.size(0);
  p.frames = input.size(1);
  p.classes = input.size(2);
  p.stride_n = input.stride(0);
  p.stride_t = input.stride(1);
  p.stride_c = input.stride(2);
  p.input_lengths = lengths_data(input_lengths, "input_lengths", input, p.batch);
  p.blank = blank;
  if (blank < 0 || blank >= p.classes) value_error("blank is ", blank, ", but log_probs has ", p.classes, " classes");
  for (int64_t n = 0; !on_cuda(input) && n < p.batch; ++n) check_input_length(p.input_lengths, n, p.frames);
}
// What was made by the forward op: of the type of losses and sizes of `shape`.
void* saved_data(const Tensor& t, const char* name, const Tensor& input, ScalarType type,
                 std::initializer_list<int64_t> shape);

// PyTorch's current stream on the device of `t`.
void* current_stream(const Tensor& t);
// Turns a cudaError_t into a RuntimeError.
void check_cuda(int error);

// Makes the device of `t` the current one while it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(const Tensor& t);

 private:
  std::shared_ptr<void> guard_;
};

// A workspace in the memory of the device of `t`.
Tensor device_workspace(const Tensor& t, size_t bytes);

// Asks for huge pages under a large block of fresh host memory: faulting it in by small ones costs several times what
// filling it does.
void advise_huge_pages(void* p, size_t bytes);

// A workspace for one CPU thread, aligned for every instruction set.
class HostWorkspace {
 public:
  explicit HostWorkspace(size_t bytes) : memory_(std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64), std::free) {
    if (!memory_) throw std::bad_alloc();
  }
  void* get() const { return memory_.get(); }

 private:
  std::unique_ptr<void, void (*)(void*)> memory_;
};

}  // namespace fastctc

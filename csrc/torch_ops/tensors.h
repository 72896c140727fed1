// What the ops share: the stable PyTorch API, element types, devices, workspaces.
//
// Only the stable API is used, so that one binary serves every PyTorch from 2.10 on.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "../kernels/dtype.h"

// The libraries of the tests register the CUDA kernels for CPU tensors, each under a namespace of its own.
#ifndef FASTCTC_NAMESPACE
#define FASTCTC_NAMESPACE fastctc
#endif
// The schemas of the ops of a file:         FASTCTC_DEFINE(m) { m.def("op(Tensor input) -> Tensor"); }
// Their functions, for all devices at once: FASTCTC_IMPLEMENT(m) { m.impl("op", TORCH_BOX(&op)); }
#define FASTCTC_DEFINE(m) FASTCTC_LIBRARY_FRAGMENT(FASTCTC_NAMESPACE, m)
#define FASTCTC_IMPLEMENT(m)                                                                          \
  static void implement_ops(torch::stable::detail::StableLibrary&);                                   \
  FASTCTC_LIBRARY_IMPL(FASTCTC_NAMESPACE, CPU, library) { implement_ops(library); }                   \
  FASTCTC_IF_CUDA(FASTCTC_LIBRARY_IMPL(FASTCTC_NAMESPACE, CUDA, library) { implement_ops(library); }) \
  static void implement_ops(torch::stable::detail::StableLibrary& m)
// These expand FASTCTC_NAMESPACE before PyTorch's macros make names of it.
#define FASTCTC_LIBRARY_FRAGMENT(ns, m) STABLE_TORCH_LIBRARY_FRAGMENT(ns, m)
#define FASTCTC_LIBRARY_IMPL(ns, key, m) STABLE_TORCH_LIBRARY_IMPL(ns, key, m)
#ifdef FASTCTC_CUDA
#define FASTCTC_IF_CUDA(...) __VA_ARGS__
#else
#define FASTCTC_IF_CUDA(...)
#endif

namespace fastctc {

using torch::stable::Tensor;
using ScalarType = torch::headeronly::ScalarType;
// std::tuple<Tensor, ...> with `count` tensors, the results of an op.
template <size_t count>
using Tensors = decltype(std::tuple_cat(std::declval<std::array<Tensor, count>>()));

// Raises ValueError in Python.
template <class... Parts>
[[noreturn]] void value_error(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::invalid_argument(text.str());
}

// Does `t` take the CUDA kernels? Always, in the libraries of the tests.
bool on_cuda(const Tensor& t);
DType dtype_of(const Tensor& t, const char* name);
// float for the types that are computed in float, double for double.
ScalarType scalar_type_of(const Tensor& t);

// Raise unless `t` is on the device of `input`, and for check_place contiguous.
void check_device(const Tensor& t, const char* name, const Tensor& input);
void check_place(const Tensor& t, const char* name, const Tensor& input);
// Raises unless `t` is of float32 images (N, C, H, W) on the CPU, contiguous in torch.channels_last.
void check_images(const Tensor& t, const char* name);
bool has_shape(const Tensor& t, std::initializer_list<int64_t> shape);
const int64_t* int64_data(const Tensor& t, const char* name, const Tensor& input);
// Lengths, one for each of `batch` samples: a tensor, or for direct calls on the CPU the ints of a list. To allocate a
// tensor for a few ints takes longer than to read them.
using Lengths = std::variant<Tensor, std::vector<int64_t>>;
const int64_t* lengths_data(const Lengths& lengths, const char* name, const Tensor& input, int64_t batch);
// On the CPU: every length must be in [0, frames].
void check_input_lengths(const int64_t* lengths, int64_t batch, int64_t frames);

// Sets the input of an op, its lengths and the blank. On the CPU the lengths are checked, on CUDA the kernels do that.
enum class Layout { kBatchFirst, kFrameFirst };  // (N, T, C), (T, N, C)
template <class Params>
void set_input(Params& p, const Tensor& input, Layout layout, const Lengths& input_lengths, int64_t blank) {
  const bool batch_first = layout == Layout::kBatchFirst;
  const int n = batch_first ? 0 : 1, t = 1 - n;
  if (input.dim() != 3) {
    value_error("input must have 3 dimensions ", batch_first ? "(N, T, C)" : "(T, N, C)", ", got ", input.dim());
  }
  p.input = input.const_data_ptr();
  p.dtype = dtype_of(input, "input");
  p.batch = input.size(n);
  p.frames = input.size(t);
  p.classes = input.size(2);
  p.stride_n = input.stride(n);
  p.stride_t = input.stride(t);
  p.stride_c = input.stride(2);
  p.input_lengths = lengths_data(input_lengths, "input_lengths", input, p.batch);
  p.blank = blank;
  if (blank < 0 || blank >= p.classes) value_error("blank is ", blank, ", but log_probs has ", p.classes, " classes");
  if (!on_cuda(input)) check_input_lengths(p.input_lengths, p.batch, p.frames);
}
// Data that the forward op made, of the given type and shape.
void* saved_data(const Tensor& t, const char* name, const Tensor& input, ScalarType type,
                 std::initializer_list<int64_t> shape);

// PyTorch's current stream on the device of `t`.
void* current_stream(const Tensor& t);
// Turns a cudaError_t into a RuntimeError, which begins with "CUDA out of memory" where memory is lacking.
void check_cuda(int error);

// Makes the device of `t` the current one as long as this object exists.
class DeviceGuard {
 public:
  explicit DeviceGuard(const Tensor& t);

 private:
  std::shared_ptr<void> guard_;
};

// Uninitialized memory, zeros, and memory in the layout of another tensor. Where memory is lacking, the error has the
// words of PyTorch's allocators: programs that retry with a smaller batch look for them.
Tensor empty_tensor(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type);
// Uninitialized images (N, C, H, W) of the type of `like` on the CPU, the channels of a pixel side by side. Large ones
// get the memory of the last large tensor that was freed, see below.
Tensor empty_images(const Tensor& like, int64_t batch, int64_t channels, int64_t rows, int64_t columns);
Tensor zero_tensor(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type);
Tensor tensor_like(const Tensor& t);
// A tensor (A, B, C) on the CPU like `t`. If it is large, it gets the memory of the last large one that was freed: the
// system clears fresh pages, which takes longer than to fill them.
Tensor reused_tensor_like(const Tensor& t);
// `count` values of type float or double on the CPU, where `like` is. Large ones get such memory, too.
Tensor reused_tensor(const Tensor& like, int64_t count, ScalarType type);
[[noreturn]] void host_memory_error(size_t bytes);

// Call f(begin, end) for ranges of [0, count), on several threads. Rethrow the first exception of f with its message,
// which PyTorch would drop.
template <class F>
void parallel_for(int64_t count, int64_t grain, const F& f) {
  std::mutex lock;
  std::exception_ptr first;
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    try {
      f(begin, end);
    } catch (...) {
      const std::lock_guard<std::mutex> guard(lock);
      if (!first) first = std::current_exception();
    }
  });
  if (first) std::rethrow_exception(first);
}

// A workspace in the memory of the device of `t`.
Tensor device_workspace(const Tensor& t, size_t bytes);

// Runs a CUDA kernel on the device and the current stream of `t`.
template <class Params>
void run_on_cuda(const Tensor& t, const Params& p, size_t (*workspace_bytes)(const Params&),
                 int (*run)(const Params&, void* workspace, void* stream)) {
  const DeviceGuard guard(t);
  Tensor workspace = device_workspace(t, workspace_bytes(p));
  check_cuda(run(p, workspace.mutable_data_ptr(), current_stream(t)));
}

// Asks for huge pages under a large block of fresh host memory: faulting it in by small ones costs several times what
// filling it does.
void advise_huge_pages(void* p, size_t bytes);

// A workspace for one CPU thread, aligned for every instruction set. Each thread keeps a small one for the next call:
// to allocate it costs as much as to fill it. A large one gets the memory of the last large tensor.
class HostWorkspace {
 public:
  explicit HostWorkspace(size_t bytes);
  ~HostWorkspace();
  HostWorkspace(const HostWorkspace&) = delete;
  HostWorkspace& operator=(const HostWorkspace&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_;
  bool is_kept_ = false;
  size_t block_bytes_ = 0;  // of a large one
};

}  // namespace fastctc

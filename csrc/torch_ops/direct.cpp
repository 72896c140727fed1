#include "direct.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "ctc_loss.h"
#include "decoders.h"

namespace fastctc {
namespace {

namespace py = pybind11;

// Tensors come and go as handles of the stable API, which torch._C._aoti makes of tensors of Python and takes back.
using Handles = std::vector<void*>;

// Owns the handles that Python has given away.
std::vector<Tensor> tensors_of(const Handles& handles) {
  std::vector<Tensor> tensors;
  tensors.reserve(handles.size());
  for (void* const handle : handles) tensors.emplace_back(static_cast<AtenTensorHandle>(handle));
  return tensors;
}

void* handle_of(const Tensor& tensor) {
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor.get(), &handle));
  return handle;
}

template <class... Each>
Handles handles_of(const std::tuple<Each...>& tensors) {
  return std::apply([](const auto&... each) { return Handles{handle_of(each)...}; }, tensors);
}

std::optional<Tensor> optional_at(const std::vector<Tensor>& tensors, size_t i) {
  return i < tensors.size() ? std::optional<Tensor>(tensors[i]) : std::nullopt;
}

Handles direct_loss(const Handles& handles, int64_t max_length, int64_t blank, int64_t star, double delay_penalty,
                    bool from_logits, bool need_grad, int reduction, bool zero_infinity) {
  const std::vector<Tensor> t = tensors_of(handles);
  Handles found;
  for (const Tensor& each : reduced_loss(t[0], t[1], t[2], t[3], optional_at(t, 4), max_length, blank, star,
                                         delay_penalty, from_logits, need_grad, Reduction(reduction), zero_infinity)) {
    found.push_back(handle_of(each));
  }
  return found;
}

Handles direct_loss_backward(const Handles& handles, int64_t blank, int64_t star, bool from_logits, int reduction) {
  const std::vector<Tensor> t = tensors_of(handles);
  return {handle_of(
      reduced_loss_backward(t[0], t[1], t[2], t[3], t[4], t[5], blank, star, from_logits, Reduction(reduction)))};
}

// An int64 tensor on the CPU for each list.
Handles integer_tensors(const std::vector<std::vector<int64_t>>& lists) {
  Handles handles;
  for (const std::vector<int64_t>& list : lists) {
    const int64_t size = int64_t(list.size()), stride = 1;
    AtenTensorHandle handle = nullptr;
    void* data = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(1, &size, &stride, aoti_torch_dtype_int64(),
                                                           aoti_torch_device_type_cpu(), -1, &handle));
    handles.push_back(handle);
    STABLE_TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(handle, &data));
    std::copy(list.begin(), list.end(), static_cast<int64_t*>(data));
  }
  return handles;
}

Handles direct_greedy_decode(const Handles& handles, int64_t blank, bool from_logits) {
  const std::vector<Tensor> t = tensors_of(handles);
  return handles_of(greedy_decode(t[0], t[1], blank, from_logits));
}

Handles direct_beam_search(const Handles& handles, int64_t beam_size, int64_t nbest, int64_t blank, bool from_logits,
                           double beam_threshold, double token_threshold, double blank_skip) {
  const std::vector<Tensor> t = tensors_of(handles);
  return handles_of(
      beam_search(t[0], t[1], beam_size, nbest, blank, from_logits, beam_threshold, token_threshold, blank_skip));
}

Handles direct_forced_align(const Handles& handles, int64_t max_length, int64_t blank, int64_t star, bool from_logits) {
  const std::vector<Tensor> t = tensors_of(handles);
  return handles_of(forced_align(t[0], t[1], t[2], t[3], max_length, blank, star, from_logits));
}

}  // namespace

void bind_direct(py::module_& m) {
  const auto release = py::call_guard<py::gil_scoped_release>();
  m.def("integer_tensors", &integer_tensors);
  m.def("ctc_loss", &direct_loss, release);
  m.def("ctc_loss_backward", &direct_loss_backward, release);
  m.def("greedy_decode", &direct_greedy_decode, release);
  m.def("beam_search", &direct_beam_search, release);
  m.def("forced_align", &direct_forced_align, release);
}

}  // namespace fastctc

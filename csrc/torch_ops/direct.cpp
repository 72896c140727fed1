#include "direct.h"

#include <pybind11/stl.h>

#include <iterator>
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

// The ints of a list or tuple as a tensor of int64 on the CPU. Other numbers are refused, bool too.
Tensor integer_tensor(py::handle list) {
  if (!PyList_CheckExact(list.ptr()) && !PyTuple_CheckExact(list.ptr())) throw py::type_error("not a list of ints");
  const int64_t size = PySequence_Fast_GET_SIZE(list.ptr()), stride = 1;
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(1, &size, &stride, aoti_torch_dtype_int64(), aoti_torch_device_type_cpu(), -1, &handle));
  Tensor tensor(handle);
  auto* const data = static_cast<int64_t*>(tensor.mutable_data_ptr());
  for (int64_t i = 0; i < size; ++i) {
    PyObject* const number = PySequence_Fast_GET_ITEM(list.ptr(), i);
    int overflow = 0;
    if (PyLong_CheckExact(number)) data[i] = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (!PyLong_CheckExact(number) || overflow != 0) throw py::type_error("not a list of ints");
  }
  return tensor;
}

// Puts input_lengths and target_lengths behind the targets, if they are given as two lists instead of tensors.
std::vector<Tensor> with_lengths(std::vector<Tensor> tensors, size_t targets, const std::optional<py::tuple>& lists) {
  if (lists) {
    const Tensor lengths[] = {integer_tensor((*lists)[0]), integer_tensor((*lists)[1])};
    tensors.insert(tensors.begin() + int64_t(targets) + 1, std::begin(lengths), std::end(lengths));
  }
  return tensors;
}

Handles direct_loss(const Handles& handles, const std::optional<py::tuple>& lengths, int64_t max_length, int64_t blank,
                    int64_t star, double delay_penalty, bool from_logits, bool need_grad, int reduction,
                    bool zero_infinity) {
  const std::vector<Tensor> t = with_lengths(tensors_of(handles), 1, lengths);
  const py::gil_scoped_release release;
  Handles found;
  for (const Tensor& each : reduced_loss(t[0], t[1], t[2], t[3], optional_at(t, 4), max_length, blank, star,
                                         delay_penalty, from_logits, need_grad, Reduction(reduction), zero_infinity)) {
    found.push_back(handle_of(each));
  }
  return found;
}

Handles direct_loss_backward(const Handles& handles, const std::optional<py::tuple>& lengths, int64_t blank,
                             int64_t star, bool from_logits, int reduction) {
  const std::vector<Tensor> t = with_lengths(tensors_of(handles), 2, lengths);
  const py::gil_scoped_release release;
  return {handle_of(
      reduced_loss_backward(t[0], t[1], t[2], t[3], t[4], t[5], blank, star, from_logits, Reduction(reduction)))};
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
  m.def("ctc_loss", &direct_loss);
  m.def("ctc_loss_backward", &direct_loss_backward);
  m.def("greedy_decode", &direct_greedy_decode, release);
  m.def("beam_search", &direct_beam_search, release);
  m.def("forced_align", &direct_forced_align, release);
}

}  // namespace fastctc

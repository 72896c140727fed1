#include "direct.h"

#include <pybind11/stl.h>

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

// The ints of a list or tuple. Other numbers are refused, bool too.
std::vector<int64_t> integers(py::handle list) {
  if (!PyList_CheckExact(list.ptr()) && !PyTuple_CheckExact(list.ptr())) throw py::type_error("not a list of ints");
  std::vector<int64_t> found(size_t(PySequence_Fast_GET_SIZE(list.ptr())));
  for (size_t i = 0; i < found.size(); ++i) {
    PyObject* const number = PySequence_Fast_GET_ITEM(list.ptr(), Py_ssize_t(i));
    int overflow = 0;
    if (PyLong_CheckExact(number)) found[i] = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (!PyLong_CheckExact(number) || overflow != 0) throw py::type_error("not a list of ints");
  }
  return found;
}

// input_lengths (which = 0) or target_lengths (1): of the lists, if they are given, else the next of the tensors.
Lengths lengths_at(int which, const std::optional<py::tuple>& lists, const std::vector<Tensor>& tensors, size_t& next) {
  if (lists) return integers((*lists)[size_t(which)]);
  return tensors[next++];
}

Handles direct_loss(const Handles& handles, const std::optional<py::tuple>& lists, int64_t max_length, int64_t blank,
                    int64_t star, double delay_penalty, bool from_logits, bool need_grad, int reduction,
                    bool zero_infinity) {
  const std::vector<Tensor> t = tensors_of(handles);
  size_t next = 2;
  const Lengths input_lengths = lengths_at(0, lists, t, next), target_lengths = lengths_at(1, lists, t, next);
  const py::gil_scoped_release release;
  Handles found;
  for (const Tensor& each :
       reduced_loss(t[0], t[1], input_lengths, target_lengths, optional_at(t, next), max_length, blank, star,
                    delay_penalty, from_logits, need_grad, Reduction(reduction), zero_infinity)) {
    found.push_back(handle_of(each));
  }
  return found;
}

Handles direct_loss_backward(const Handles& handles, const std::optional<py::tuple>& lists, int64_t blank, int64_t star,
                             bool from_logits, int reduction) {
  const std::vector<Tensor> t = tensors_of(handles);
  size_t next = 3;
  const Lengths input_lengths = lengths_at(0, lists, t, next), target_lengths = lengths_at(1, lists, t, next);
  const py::gil_scoped_release release;
  return {handle_of(reduced_loss_backward(t[0], t[1], t[2], input_lengths, target_lengths, t[next], blank, star,
                                          from_logits, Reduction(reduction)))};
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

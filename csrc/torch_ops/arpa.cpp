// The binding of the ARPA reader. Its arrays become tensors without a copy: they have Python's buffer protocol.
#include "../scoring/arpa.h"

#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "arpa.h"

namespace fastctc {
namespace {

namespace py = pybind11;

template <class T>
void bind_array(py::module_& m, const char* name) {
  py::class_<std::vector<T>, std::unique_ptr<std::vector<T>>>(m, name, py::buffer_protocol(), py::module_local())
      .def("__len__", [](const std::vector<T>& v) { return v.size(); })
      .def_buffer([](std::vector<T>& v) { return py::buffer_info(v.data(), py::ssize_t(v.size())); });
}

template <class T>
std::unique_ptr<std::vector<T>> array(std::vector<T>& v) {
  return std::make_unique<std::vector<T>>(std::move(v));
}

py::dict read_arpa_text(const py::buffer& text, double missing_unknown) {
  const py::buffer_info info = text.request();
  NgramAutomaton a;
  {
    const py::gil_scoped_release release;
    a = read_arpa(static_cast<const char*>(info.ptr), size_t(info.size * info.itemsize), missing_unknown);
  }
  py::dict result;
  result["words"] = py::str(a.words);
  result["first_arc"] = array(a.first_arc);
  result["failure"] = array(a.failure);
  result["backoff"] = array(a.backoff);
  result["end"] = array(a.end);
  result["label"] = array(a.label);
  result["next"] = array(a.next);
  result["weight"] = array(a.weight);
  result["begin"] = a.begin;
  result["unknown"] = a.unknown;
  return result;
}

}  // namespace

void bind_arpa(py::module_& m) {
  bind_array<int32_t>(m, "Int32Array");
  bind_array<float>(m, "Float32Array");
  m.def("read_arpa", &read_arpa_text, py::arg("text"), py::arg("missing_unknown"));
}

}  // namespace fastctc

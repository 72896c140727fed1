// Adds the ops to the extension module as plain functions. They go around PyTorch's dispatcher, which costs more than
// the loss of a small batch.
#pragma once

#include <pybind11/pybind11.h>

namespace fastctc {

void bind_direct(pybind11::module_& m);

}  // namespace fastctc

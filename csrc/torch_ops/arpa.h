// Adds the reader of ARPA files to the extension module.
#pragma once

#include <pybind11/pybind11.h>

namespace fastctc {

void bind_arpa(pybind11::module_& m);

}  // namespace fastctc

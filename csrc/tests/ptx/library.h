// The translated kernels of this program: found by name, compiled and loaded when first needed.
#pragma once

#include <string>

#include "machine.h"

namespace fastctc::ptx {

struct LoadedKernel {
  const Kernel* kernel;
  std::string name;  // readable
};
// Throws where no PTX of that name was translated, or where its C++ does not compile.
const LoadedKernel& kernel_named(const std::string& mangled);

}  // namespace fastctc::ptx

// Element types of tensors, and the choice of a template by one.
#pragma once

#include "../math/element.h"

namespace fastctc {

enum class DType { kFloat16, kBFloat16, kFloat32, kFloat64 };

// Calls f with a value of the C++ type of the elements.
template <class F>
auto with_element(DType dtype, F f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(Half{});
    case DType::kBFloat16:
      return f(BFloat16{});
    case DType::kFloat32:
      return f(float{});
    default:
      return f(double{});
  }
}

}  // namespace fastctc

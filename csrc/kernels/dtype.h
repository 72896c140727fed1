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

// Element `index` of an array.
FASTCTC_HD double element_at(const void* x, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kFloat16:
      return to_scalar(static_cast<const Half*>(x)[index]);
    case DType::kBFloat16:
      return to_scalar(static_cast<const BFloat16*>(x)[index]);
    case DType::kFloat32:
      return static_cast<const float*>(x)[index];
    default:
      return static_cast<const double*>(x)[index];
  }
}

// The unit roundoff of the elements.
FASTCTC_HD double roundoff(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return 0x1p-11;
    case DType::kBFloat16:
      return 0x1p-8;
    case DType::kFloat32:
      return 0x1p-24;
    default:
      return 0x1p-53;
  }
}
// A bound on the error of a log-softmax before it is rounded to the elements: it is computed in float at least.
FASTCTC_HD double log_softmax_error(DType dtype) { return 32 * (dtype == DType::kFloat64 ? 0x1p-53 : 0x1p-24); }

}  // namespace fastctc

// What the tests of this folder share that are CUDA sources: launches, thread orders, faults that a launch reports.
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "../../kernels/cuda/launch.h"
#include "../check.h"
#include "machine.h"

namespace fastctc::testing {

// A plain launch, which asks for no more shared memory than kernels have by default.
template <class... P>
cudaError_t start(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                  std::common_type_t<P>... arguments) {
  void* pointers[] = {static_cast<void*>(&arguments)..., nullptr};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, shared_bytes, nullptr);
}

inline const std::vector<unsigned> kOrders = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

inline void in_every_order(const std::function<void()>& run) {
  for (unsigned order : kOrders) {
    ptx::set_thread_order(order);
    run();
  }
}
// In every order `run` throws an exception whose message has `text`.
inline void check_fault_found(const std::function<void()>& run, const std::string& text) {
  in_every_order([&] { CHECK_THROWS(run(), text); });
}
// In some order `run` returns false, a wrong result.
inline void check_race_found(const std::function<bool()>& run) {
  bool wrong = false;
  in_every_order([&] { wrong |= !run(); });
  CHECK(wrong);
}

}  // namespace fastctc::testing

// Runs kernels in many thread orders, with faults planted into them, and counts what ThreadSanitizer reports. For one
// source file per test program: the hooks of ThreadSanitizer are defined here.
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/cuda/launch.h"

#ifdef __SANITIZE_ADDRESS__
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif

inline int races_reported = 0;
#ifdef __SANITIZE_THREAD__
constexpr bool kThreadSanitizer = true;
extern "C" FASTCTC_UNTRACKED void __tsan_on_report(void*) { ++races_reported; }
// Planted races are expected and checked one by one: they must not fail the program, nor be reported once only.
extern "C" const char* __tsan_default_options() {
  return "exitcode=0 symbolize=0 suppress_equal_stacks=0 suppress_equal_addresses=0";
}
#else
constexpr bool kThreadSanitizer = false;
#endif

namespace fastctc::testing {

// A launch as of launch.h, for kernels of tests, which have no names.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, const A&... arguments) {
  emulation::launch(kernel, grid, block, shared_bytes, arguments...);
}

inline const std::vector<unsigned> kOrders = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

class InOrder {
 public:
  explicit InOrder(unsigned order) : before_(emulation::order()) { emulation::order() = order; }
  ~InOrder() { emulation::order() = before_; }

 private:
  unsigned before_;
};

// Sends stderr away while a sanitizer reports what was planted.
class Quiet {
 public:
  Quiet() : saved_(dup(2)) {
    const int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 2);
    close(nowhere);
  }
  ~Quiet() {
    dup2(saved_, 2);
    close(saved_);
  }

 private:
  int saved_;
};

inline void check_correct(const std::function<bool()>& run_and_compare) {
  for (unsigned order : kOrders) {
    InOrder scope(order);
    const int races = races_reported;
    CHECK(run_and_compare());
    CHECK(races_reported == races);
  }
}

// A planted race: wrong results in some order; under ThreadSanitizer a report in every order.
inline void check_race_found(const std::function<bool()>& run_and_compare) {
  Quiet quiet;
  bool wrong = false;
  for (unsigned order : kOrders) {
    if (kThreadSanitizer && wrong && order > 2) break;  // a report takes milliseconds, and one run gives many
    InOrder scope(order);
    const int races = races_reported;
    wrong |= !run_and_compare();
    if (kThreadSanitizer) CHECK(races_reported > races);
  }
  CHECK(wrong);
}

inline void check_fault_found(const std::function<void()>& run, const std::string& message) {
  for (unsigned order : kOrders) {
    InOrder scope(order);
    CHECK_THROWS(run(), message);
  }
}

inline bool dies(const std::function<void()>& run) {
  const pid_t child = fork();
  if (child == 0) {
    Quiet quiet;
    run();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

}  // namespace fastctc::testing

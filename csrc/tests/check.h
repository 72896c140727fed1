// A test runner in one header.
//
//   TEST(greedy_collapses_repeats) { CHECK(tokens.size() == 2); CHECK_NEAR(score, -1.5, 1e-12); }
//
// Each test program links its own main(): `program [--filter substring]` prints one line per test, then
// `N passed, N failed`, and exits with 1 if a test failed or none ran.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastctc::testing {

// Sanitizers look at each access, at ten times the cost: what takes the same paths on a longer input is left out there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// Is rounding tested in another run? It depends on no order of threads and on no sanitizer. So tests of it are whole
// where threads run forward, on nvcc's PTX, which rounds otherwise, and in programs that are run by hand.
inline bool rounding_is_tested_elsewhere() {
  const char* const order = std::getenv("FASTCTC_EMULATION_ORDER");
  const bool is_forward = !order || std::strcmp(order, "0") == 0, is_ptx = std::getenv("FASTCTC_PTX_SEED");
  return kSanitized || (!is_forward && !is_ptx);
}

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

struct Registration {
  Registration(const char* name, void (*body)()) { all_tests().push_back({name, body}); }
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

// Infinities of one sign are near each other, NaN is near NaN only.
inline void check_near(const char* file, int line, const char* expression, double got, double expected,
                       double tolerance) {
  const bool same = got == expected || (std::isnan(got) && std::isnan(expected));
  if (same || std::fabs(got - expected) <= tolerance) return;
  std::ostringstream text;
  text.precision(17);
  text << expression << " is " << got << ", expected " << expected << " within " << tolerance;
  fail(file, line, text.str());
}

inline int run_all(int argc, char** argv) {
  const char* filter = "";
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--filter") == 0 && i + 1 < argc) {
      filter = argv[++i];
    } else {
      std::fprintf(stderr, "usage: %s [--filter SUBSTRING]\n", argv[0]);
      return 2;
    }
  }
  int passed = 0, failed = 0;
  for (const Test& test : all_tests()) {
    if (!std::strstr(test.name, filter)) continue;
    std::string problem;
    try {
      test.body();
    } catch (const std::exception& error) {
      problem = error.what();
    }
    std::printf("%s %s\n", problem.empty() ? "pass" : "FAIL", test.name);
    if (!problem.empty()) std::printf("     %s\n", problem.c_str());
    std::fflush(stdout);
    ++(problem.empty() ? passed : failed);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}

}  // namespace fastctc::testing

#define TEST(name)                                                                       \
  static void test_##name();                                                             \
  static const ::fastctc::testing::Registration registration_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(condition)                                                                    \
  do {                                                                                      \
    if (!(condition)) ::fastctc::testing::fail(__FILE__, __LINE__, #condition " is false"); \
  } while (false)

#define CHECK_NEAR(got, expected, tolerance) \
  ::fastctc::testing::check_near(__FILE__, __LINE__, #got, got, expected, tolerance)

// The statement must throw a std::exception whose message contains the text.
#define CHECK_THROWS(statement, text)                                                                     \
  do {                                                                                                    \
    std::string message_ = "no exception";                                                                \
    try {                                                                                                 \
      statement;                                                                                          \
    } catch (const std::exception& error) {                                                               \
      message_ = error.what();                                                                            \
    }                                                                                                     \
    if (message_.find(text) == std::string::npos)                                                         \
      ::fastctc::testing::fail(__FILE__, __LINE__,                                                        \
                               #statement " should throw '" + std::string(text) + "', got: " + message_); \
  } while (false)

#define TEST_MAIN() \
  int main(int argc, char** argv) { return ::fastctc::testing::run_all(argc, argv); }

// launch() of kernels/cuda/launch.h: limits of shared memory and the description of errors.
#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "kernels/cuda/launch.h"
#include "kernels/launch_error.h"

namespace {

using namespace fastctc::cuda;
namespace emulation = fastctc::emulation;

template <int kStatic, int kNumber>
__global__ void use_shared_memory() {
  FASTCTC_SHARED_ARRAY(char, fixed, [kStatic]);
  fixed[threadIdx.x] = 1;
}
constexpr int kStatic = int(kMostStaticBytes);

template <int kNumber>
cudaError_t launch_with(size_t dynamic) {
  return launch("use_shared_memory", use_shared_memory<kStatic, kNumber>, 1, 32, dynamic, nullptr);
}

TEST(every_amount_of_shared_memory_up_to_the_most_can_be_launched) {
  const size_t most = emulation::kMaxSharedBytes - kMostStaticBytes;
  for (size_t dynamic = 46 * 1024; dynamic <= 49 * 1024; dynamic += 16) CHECK(launch_with<0>(dynamic) == cudaSuccess);
  CHECK(launch_with<0>(most) == cudaSuccess);
  for (size_t dynamic = 49 * 1024; dynamic >= 46 * 1024; dynamic -= 16) CHECK(launch_with<1>(dynamic) == cudaSuccess);
  CHECK_THROWS(launch_with<0>(most + 1), "more than the limit of the kernel");
}

TEST(launches_do_not_depend_on_earlier_ones) {
  CHECK(launch_with<2>(90000) == cudaSuccess);
  CHECK(launch_with<2>(50000) == cudaSuccess);
  emulation::launch(use_shared_memory<kStatic, 2>, 1, 32, 90000);  // the limit is where the first one raised it to
}

TEST(each_device_has_its_own_limit) {
  for (int device : {0, 3, 0, 3}) {
    cudaSetDevice(device);
    CHECK(launch_with<4>(80000) == cudaSuccess);
  }
  cudaSetDevice(0);
}

TEST(threads_with_different_amounts_do_not_disturb_each_other) {
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&failed, i] {
      for (int round = 0; round < 50; ++round) {
        try {
          if (launch_with<5>(size_t(50000 + 10000 * i)) != cudaSuccess) ++failed;
        } catch (const std::exception&) {
          ++failed;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(failed == 0);
}

TEST(empty_grids_are_skipped) {
  for (const dim3 grid : {dim3(0, 1, 1), dim3(1, 0, 1), dim3(1, 1, 0)}) {
    CHECK(launch("use_shared_memory", use_shared_memory<16, 6>, grid, 1 << 20, 0, nullptr) == cudaSuccess);
  }
}

TEST(an_error_contains_its_launch) {
  CHECK(record_failure("search", dim3(8, 2), 1024, 70000, cudaErrorInvalidValue) == cudaErrorInvalidValue);
  CHECK(describe_error(cudaErrorInvalidValue) ==
        "cudaErrorInvalidValue (invalid argument) at the launch of search: 16 blocks of 1024 threads, 70000 bytes of "
        "shared memory");
}

TEST(an_error_of_no_launch_contains_none) {
  const std::string words = "cudaErrorInvalidValue (invalid argument)";
  CHECK(describe_error(cudaErrorInvalidValue) == words);
  record_failure("search", 8, 1024, 70000, cudaErrorInvalidDevice);
  CHECK(describe_error(cudaErrorInvalidValue) == words);  // another error than the recorded one
  record_failure("search", 8, 1024, 70000, cudaErrorInvalidValue);
  describe_error(cudaErrorInvalidValue);
  CHECK(describe_error(cudaErrorInvalidValue) == words);  // the record is of an error described before
}

TEST(a_device_that_does_not_exist_is_an_error) {
  CHECK(cudaSetDevice(-1) == cudaErrorInvalidDevice);
  CHECK(describe_error(cudaErrorInvalidDevice) == "cudaErrorInvalidDevice (invalid device ordinal)");
}

}  // namespace

TEST_MAIN()

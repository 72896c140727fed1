// Why the CUDA launchers of this folder failed.
#pragma once

#include <string>

namespace fastctc {
namespace cuda {

// The name of a cudaError_t and CUDA's text about it. If a launch of this thread returned it since the last call, the
// kernel, too: "cudaErrorInvalidValue (invalid argument) at the launch of search: 8 blocks of 1024 threads, 70000 bytes
// of shared memory".
std::string describe_error(int error);

}  // namespace cuda
}  // namespace fastctc

// Chooses, once, the best instruction set that both this binary and this processor have. The environment variable
// FASTCTC_CPU names another one.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../beam_search.h"
#include "../convolution.h"
#include "../ctc_loss.h"
#include "../ctc_tangent.h"
#include "../forced_align.h"
#include "../greedy_decode.h"
#include "../normalization.h"

namespace fastctc {
namespace cpu {

// Every CPU kernel: X(result, name, parameters, arguments).
#define FASTCTC_CPU_KERNELS(X)                                                                                        \
  X(size_t, ctc_loss_scores_workspace, (const CtcLossParams& p), (p))                                                 \
  X(size_t, ctc_loss_forward_workspace, (const CtcLossParams& p, bool wide), (p, wide))                               \
  X(size_t, ctc_loss_backward_workspace, (const CtcLossParams& p), (p))                                               \
  X(int64_t, ctc_loss_backward_chunks, (const CtcLossParams& p), (p))                                                 \
  X(size_t, ctc_tangent_workspace, (const CtcTangentParams& p), (p))                                                  \
  X(size_t, forced_align_workspace, (const ForcedAlignParams& p), (p))                                                \
  X(size_t, greedy_decode_workspace, (const GreedyDecodeParams& p), (p))                                              \
  X(size_t, beam_search_workspace, (const BeamSearchParams& p), (p))                                                  \
  X(void, ctc_loss_scores, (const CtcLossParams& p, int64_t begin, int64_t end, void* workspace),                     \
    (p, begin, end, workspace))                                                                                       \
  X(void, ctc_loss_forward,                                                                                           \
    (const CtcLossParams& p, const int64_t* samples, int64_t count, int first, int last, bool wide, void* workspace), \
    (p, samples, count, first, last, wide, workspace))                                                                \
  X(void, ctc_loss_backward, (const CtcLossParams& p, int64_t begin, int64_t end, void* workspace),                   \
    (p, begin, end, workspace))                                                                                       \
  X(void, ctc_tangent, (const CtcTangentParams& p, int64_t begin, int64_t end, void* workspace),                      \
    (p, begin, end, workspace))                                                                                       \
  X(void, forced_align, (const ForcedAlignParams& p, int64_t begin, int64_t end, void* workspace),                    \
    (p, begin, end, workspace))                                                                                       \
  X(void, greedy_decode, (const GreedyDecodeParams& p, int64_t begin, int64_t end, void* workspace),                  \
    (p, begin, end, workspace))                                                                                       \
  X(void, beam_search, (const BeamSearchParams& p, int64_t begin, int64_t end, void* workspace),                      \
    (p, begin, end, workspace))                                                                                       \
  X(void, beam_search_result, (const BeamResultParams& p, int64_t begin, int64_t end), (p, begin, end))               \
  X(int64_t, convolution_places, (Convolution kind), (kind))                                                          \
  X(void, pack_convolution, (const float* weights, Convolution kind, int64_t outputs, int64_t inputs, float* packed), \
    (weights, kind, outputs, inputs, packed))                                                                         \
  X(int64_t, convolution_tiles, (const ConvolutionParams& p), (p))                                                    \
  X(int64_t, convolution_block, (const ConvolutionParams& p), (p))                                                    \
  X(size_t, convolution_workspace, (const ConvolutionParams& p), (p))                                                 \
  X(int64_t, convolution_weights_sums, (const ConvolutionWeightsParams& p), (p))                                      \
  X(int64_t, convolution_weights_chunks, (const ConvolutionWeightsParams& p), (p))                                    \
  X(size_t, convolution_weights_workspace, (const ConvolutionWeightsParams& p), (p))                                  \
  X(void, convolution_weights, (const ConvolutionWeightsParams& p, int64_t chunk, void* workspace),                   \
    (p, chunk, workspace))                                                                                            \
  X(void, convolution_weights_finish, (const ConvolutionWeightsParams& p, float* to), (p, to))                        \
  X(void, normalization_sums, (const NormalizationParams& p, int64_t image, double* sums), (p, image, sums))          \
  X(void, normalization, (const NormalizationParams& p, int64_t image, const float* added, float* output),            \
    (p, image, added, output))                                                                                        \
  X(void, normalization_grad_sums, (const NormalizationParams& p, int64_t image, const float* grad, double* sums),    \
    (p, image, grad, sums))                                                                                           \
  X(void, normalization_grad,                                                                                         \
    (const NormalizationParams& p, int64_t image, const float* grad, const float* slope, const float* offset,         \
     float* output),                                                                                                  \
    (p, image, grad, slope, offset, output))                                                                          \
  X(void, convolution, (const ConvolutionParams& p, int64_t begin, int64_t end, void* workspace),                     \
    (p, begin, end, workspace))

namespace {

// The kernels of one instruction set.
struct Kernels {
  const char* name;
#define FASTCTC_MEMBER(result, kernel, parameters, arguments) result(*kernel) parameters;
  FASTCTC_CPU_KERNELS(FASTCTC_MEMBER)
};

}  // namespace

#define FASTCTC_DECLARE(result, kernel, parameters, arguments) result kernel parameters;
#define FASTCTC_ADDRESS(result, kernel, parameters, arguments) kernel,
#define FASTCTC_INSTRUCTION_SET(isa)                                         \
  namespace isa {                                                            \
  FASTCTC_CPU_KERNELS(FASTCTC_DECLARE)                                       \
  static const Kernels table = {#isa, FASTCTC_CPU_KERNELS(FASTCTC_ADDRESS)}; \
  }

FASTCTC_INSTRUCTION_SET(baseline)
#ifdef FASTCTC_X86_64
FASTCTC_INSTRUCTION_SET(avx2)
FASTCTC_INSTRUCTION_SET(avx512)
#endif

static const Kernels& choose() {
  const Kernels* usable[3];  // the best first
  int count = 0;
#ifdef FASTCTC_X86_64
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    usable[count++] = &avx512::table;
  }
  if (fma && __builtin_cpu_supports("avx2")) usable[count++] = &avx2::table;
#endif
  usable[count++] = &baseline::table;
  const char* const wanted = std::getenv("FASTCTC_CPU");
  if (wanted == nullptr || *wanted == 0) return *usable[0];
  std::string names;
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(usable[i]->name, wanted) == 0) return *usable[i];
    names += std::string(i == 0 ? "" : ", ") + usable[i]->name;
  }
  throw std::invalid_argument(std::string("FASTCTC_CPU is '") + wanted + "', expected one of: " + names);
}

static const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

#define FASTCTC_FORWARD(result, kernel, parameters, arguments) \
  result kernel parameters { return kernels().kernel arguments; }
FASTCTC_CPU_KERNELS(FASTCTC_FORWARD)

const char* instruction_set() { return kernels().name; }

}  // namespace cpu
}  // namespace fastctc

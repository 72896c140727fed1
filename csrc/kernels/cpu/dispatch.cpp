// Chooses, once, the best instruction set that both this binary and this processor have.
#include "../beam_search.h"
#include "../ctc_loss.h"
#include "../ctc_tangent.h"
#include "../greedy_decode.h"

namespace fastctc {
namespace cpu {

#define FASTCTC_DECLARE(isa)                                                                             \
  namespace isa {                                                                                        \
  size_t ctc_loss_scores_workspace(const CtcLossParams& p);                                              \
  size_t ctc_loss_forward_workspace(const CtcLossParams& p, bool wide);                                  \
  size_t ctc_loss_backward_workspace(const CtcLossParams& p);                                            \
  void ctc_loss_scores(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace);             \
  void ctc_loss_forward(const CtcLossParams& p, int64_t begin, int64_t end, bool wide, void* workspace); \
  void ctc_loss_backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace);           \
  size_t ctc_tangent_workspace(const CtcTangentParams& p);                                               \
  void ctc_tangent(const CtcTangentParams& p, int64_t begin, int64_t end, void* workspace);              \
  void greedy_decode(const GreedyDecodeParams& p, int64_t begin, int64_t end);                           \
  size_t beam_search_workspace(const BeamSearchParams& p);                                               \
  void beam_search(const BeamSearchParams& p, int64_t begin, int64_t end, void* workspace);              \
  void beam_search_result(const BeamResultParams& p, int64_t begin, int64_t end);                        \
  }
#define FASTCTC_TABLE(isa)           \
  {#isa,                             \
   isa::ctc_loss_scores_workspace,   \
   isa::ctc_loss_forward_workspace,  \
   isa::ctc_loss_backward_workspace, \
   isa::ctc_loss_scores,             \
   isa::ctc_loss_forward,            \
   isa::ctc_loss_backward,           \
   isa::ctc_tangent_workspace,       \
   isa::ctc_tangent,                 \
   isa::greedy_decode,               \
   isa::beam_search_workspace,       \
   isa::beam_search,                 \
   isa::beam_search_result}

FASTCTC_DECLARE(baseline)
#ifdef FASTCTC_X86_64
FASTCTC_DECLARE(avx2)
FASTCTC_DECLARE(avx512)
#endif

namespace {

struct Kernels {
  const char* name;
  decltype(&baseline::ctc_loss_scores_workspace) scores_workspace;
  decltype(&baseline::ctc_loss_forward_workspace) forward_workspace;
  decltype(&baseline::ctc_loss_backward_workspace) backward_workspace;
  decltype(&baseline::ctc_loss_scores) scores;
  decltype(&baseline::ctc_loss_forward) forward;
  decltype(&baseline::ctc_loss_backward) backward;
  decltype(&baseline::ctc_tangent_workspace) tangent_workspace;
  decltype(&baseline::ctc_tangent) tangent;
  decltype(&baseline::greedy_decode) greedy;
  decltype(&baseline::beam_search_workspace) beam_workspace;
  decltype(&baseline::beam_search) beam;
  decltype(&baseline::beam_search_result) beam_result;
};

Kernels choose() {
#ifdef FASTCTC_X86_64
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
    return FASTCTC_TABLE(avx512);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return FASTCTC_TABLE(avx2);
#endif
  return FASTCTC_TABLE(baseline);
}

const Kernels& kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

}  // namespace

size_t ctc_loss_scores_workspace(const CtcLossParams& p) { return kernels().scores_workspace(p); }
size_t ctc_loss_forward_workspace(const CtcLossParams& p, bool wide) { return kernels().forward_workspace(p, wide); }
size_t ctc_loss_backward_workspace(const CtcLossParams& p) { return kernels().backward_workspace(p); }
void ctc_loss_scores(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  kernels().scores(p, begin, end, workspace);
}
void ctc_loss_forward(const CtcLossParams& p, int64_t begin, int64_t end, bool wide, void* workspace) {
  kernels().forward(p, begin, end, wide, workspace);
}
void ctc_loss_backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  kernels().backward(p, begin, end, workspace);
}
size_t ctc_tangent_workspace(const CtcTangentParams& p) { return kernels().tangent_workspace(p); }
void ctc_tangent(const CtcTangentParams& p, int64_t begin, int64_t end, void* workspace) {
  kernels().tangent(p, begin, end, workspace);
}
void greedy_decode(const GreedyDecodeParams& p, int64_t begin, int64_t end) { kernels().greedy(p, begin, end); }
size_t beam_search_workspace(const BeamSearchParams& p) { return kernels().beam_workspace(p); }
void beam_search(const BeamSearchParams& p, int64_t begin, int64_t end, void* workspace) {
  kernels().beam(p, begin, end, workspace);
}
void beam_search_result(const BeamResultParams& p, int64_t begin, int64_t end) { kernels().beam_result(p, begin, end); }
const char* instruction_set() { return kernels().name; }

}  // namespace cpu
}  // namespace fastctc

// Stands in for the CUDA kernels where they are not built; the ops are then not registered for CUDA either.
#include "../beam_search.h"
#include "../ctc_loss.h"
#include "../ctc_tangent.h"
#include "../forced_align.h"
#include "../greedy_decode.h"
#include "../launch_error.h"

namespace fastctc {
namespace cuda {

constexpr int kNoDevice = 100;  // cudaErrorNoDevice

size_t ctc_loss_forward_workspace(const CtcLossParams&) { return 0; }
size_t ctc_loss_backward_workspace(const CtcLossParams&) { return 0; }
int ctc_loss_forward(const CtcLossParams&, void*, void*) { return kNoDevice; }
int ctc_loss_backward(const CtcLossParams&, void*, void*) { return kNoDevice; }
size_t ctc_tangent_workspace(const CtcTangentParams&) { return 0; }
int ctc_tangent(const CtcTangentParams&, void*, void*) { return kNoDevice; }
size_t forced_align_workspace(const ForcedAlignParams&) { return 0; }
int forced_align(const ForcedAlignParams&, void*, void*) { return kNoDevice; }
size_t greedy_decode_workspace(const GreedyDecodeParams&) { return 0; }
int greedy_decode(const GreedyDecodeParams&, void*, void*) { return kNoDevice; }
size_t beam_search_workspace(const BeamSearchParams&) { return 0; }
int beam_search(const BeamSearchParams&, void*, void*) { return kNoDevice; }
int beam_search_result(const BeamResultParams&, void*) { return kNoDevice; }
std::string describe_error(int) { return "built without CUDA kernels"; }

}  // namespace cuda
}  // namespace fastctc

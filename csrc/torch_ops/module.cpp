// The extension module fastctc._C. The ops register themselves when it is loaded; what is bound here is no tensor op.
#include <pybind11/pybind11.h>

#include "../kernels/beam_search.h"
#include "../kernels/ctc_loss.h"
#include "arpa.h"
#include "direct.h"

#ifndef FASTCTC_CUDA_ARCHS
#define FASTCTC_CUDA_ARCHS ""
#endif

PYBIND11_MODULE(_C, m) {
  m.doc() = "The compiled part of fastctc.";
  fastctc::cpu::instruction_set();  // an import with an unknown one fails
  m.def("build_info", [] {
    pybind11::dict info;
    info["torch_built_against"] = FASTCTC_TORCH_VERSION;
#ifdef FASTCTC_CUDA
    info["cuda"] = true;
    info["cuda_version"] = FASTCTC_CUDA_VERSION;
#else
    info["cuda"] = false;
    info["cuda_version"] = pybind11::none();
#endif
    info["cuda_architectures"] = FASTCTC_CUDA_ARCHS;
    info["cpu_instruction_set"] = fastctc::cpu::instruction_set();
    return info;
  });
  m.attr("LARGEST_ARENA") = fastctc::kLargestArena;
  m.attr("BEAM_NODE_INTS") = sizeof(fastctc::BeamNode) / sizeof(int32_t);
  m.def(
      "beam_state_bytes", [](int64_t beam_size, bool weighs) { return fastctc::BeamState::bytes(beam_size, weighs); },
      pybind11::arg("beam_size"), pybind11::arg("weighs") = false);
  fastctc::bind_arpa(m);
  fastctc::bind_direct(m);
}

// Derivatives of the CTC occupancies on the CPU, compiled once per instruction set (FASTCTC_ISA).
#include "../ctc_tangent.h"

#include "../tangent_sample.h"
#include "rows.h"
#include "targets.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

constexpr int kMaxRegisters = 2;

using TangentLanes = Lanes<double>;

struct CpuWorkspace {
  TangentWorkspace<TangentLanes> sample;
  double* row;  // (C)
  size_t size;

  CpuWorkspace(void* base, const CtcTangentParams& p)
      : sample(base, p.loss.frames, p.loss.max_length),
        row(reinterpret_cast<double*>(static_cast<char*>(base) + sample.size)),
        size(sample.size + size_t(p.loss.classes) * sizeof(double)) {}
};

// Returns false if a frame has a NaN or +inf that matters to the loss.
template <class Element>
bool look_at_frames(const CtcTangentParams& params, int64_t n, const int64_t* labels, const CpuWorkspace& w) {
  const CtcLossParams& p = params.loss;
  const TangentScores scores(params, n);
  bool finite = true;
  for (int64_t t = 0; t < p.input_lengths[n]; ++t) {
    double star = 0;
    if (p.from_logits) {
      const double* const row = contiguous_row(row_of<Element>(p, t, n), p.stride_c, p.classes, w.row);
      const auto statistics = row_statistics(&row, 1, p.classes);
      star = statistics.max[0] + kLn2 * statistics.log2_sum[0];
    }
    finite &= look_at_frame(scores, labels, t, star, w.sample);
  }
  return finite;
}

Status derivatives(const CtcTangentParams& params, int64_t n, const CpuWorkspace& w) {
  const CtcLossParams& p = params.loss;
  if (!sample_is_valid(p, n)) return kInvalid;
  if (!target_fits(p, n)) return kInfeasible;
  const int64_t* const labels = p.targets + p.target_offsets[n];
  const bool finite =
      with_element(p.dtype, [&](auto element) { return look_at_frames<decltype(element)>(params, n, labels, w); });
  if (!finite) return kNotANumber;
  TangentSample<TangentLanes, kMaxRegisters> sample(params, n, labels, w.sample);
  return sample.run() ? kOk : kInfeasible;
}

}  // namespace

size_t ctc_tangent_workspace(const CtcTangentParams& p) { return CpuWorkspace(nullptr, p).size; }

void ctc_tangent(const CtcTangentParams& p, int64_t begin, int64_t end, void* workspace) {
  const FlushDenormals flush;
  const CpuWorkspace w(workspace, p);
  for (int64_t n = begin; n < end; ++n) {
    const Status status = derivatives(p, n, w);
    if (p.loss.dtype == DType::kFloat64) {
      write_occupancy_tangent<TangentLanes, double>(p, n, status, w.sample.occupancy_tangent);
    } else {
      write_occupancy_tangent<TangentLanes, float>(p, n, status, w.sample.occupancy_tangent);
    }
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

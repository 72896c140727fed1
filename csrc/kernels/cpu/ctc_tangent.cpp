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

struct TangentLanes : Lanes<double> {
  template <class Function>
  FASTCTC_LANE F make(const Function& f) {
    F x;
    for (int i = 0; i < N; ++i) x[i] = f(i);
    return x;
  }
  template <class Function>
  FASTCTC_LANE void for_each(int64_t count, const Function& f) {
    for (int64_t i = 0; i < count; ++i) f(i);
  }
};

struct CpuWorkspace {
  TangentWorkspace<TangentLanes> sample;
  double* row;  // (C)
  size_t size;

  CpuWorkspace(void* base, const CtcTangentParams& p)
      : sample(base, p.loss.frames, p.loss.max_length),
        row(reinterpret_cast<double*>(static_cast<char*>(base) + sample.size)),
        size(sample.size + size_t(p.loss.classes) * sizeof(double)) {}
};

// Fills in the frames of sample n. Returns false if one has a NaN or +inf that matters to the loss.
template <class Element>
bool look_at_frames(const CtcTangentParams& params, int64_t n, const int64_t* labels, const CpuWorkspace& w) {
  const CtcLossParams& p = params.loss;
  const TangentScores scores(params, n);
  bool finite = true;
  for (int64_t t = 0; t < p.input_lengths[n]; ++t) {
    const double blank = scores.biased(t, p.blank);
    w.sample.blank_is_zero[t] = blank < double(kZeroLog);
    w.sample.origin[t] = w.sample.blank_is_zero[t] ? 0 : blank;
    w.sample.star[t] = 0;
    if (p.from_logits) {
      const double* const row = contiguous_row(row_of<Element>(p, t, n), p.stride_c, p.classes, w.row);
      const auto statistics = row_statistics(&row, 1, p.classes, static_cast<const double*>(nullptr));
      w.sample.star[t] = statistics.max[0] + kLn2 * statistics.log2_sum[0];
    }
    finite &= std::fabs(w.sample.origin[t]) < INFINITY && std::fabs(w.sample.star[t]) < INFINITY;
    for (int64_t i = 0; i < p.target_lengths[n]; ++i) {
      finite &= labels[i] == p.star || scores.biased(t, labels[i]) < INFINITY;
    }
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

template <class Scalar>
void store(const CtcTangentParams& params, int64_t n, Status status, const double* occupancy_tangent) {
  const CtcLossParams& p = params.loss;
  Scalar* const out = static_cast<Scalar*>(params.occupancy_tangent) + n * p.frames * p.max_length;
  for (int64_t t = 0; t < p.frames; ++t) {
    for (int64_t i = 0; i < p.max_length; ++i) {
      double value = 0;
      if (t < p.input_lengths[n] && i < p.target_lengths[n]) {
        if (status == kOk) value = occupancy_tangent[t * p.target_lengths[n] + i];
        if (status == kNotANumber) value = NAN;
      }
      out[t * p.max_length + i] = Scalar(value);
    }
  }
}

}  // namespace

size_t ctc_tangent_workspace(const CtcTangentParams& p) { return CpuWorkspace(nullptr, p).size; }

void ctc_tangent(const CtcTangentParams& p, int64_t begin, int64_t end, void* workspace) {
  const FlushDenormals flush;
  const CpuWorkspace w(workspace, p);
  for (int64_t n = begin; n < end; ++n) {
    const Status status = derivatives(p, n, w);
    if (p.loss.dtype == DType::kFloat64) {
      store<double>(p, n, status, w.sample.occupancy_tangent);
    } else {
      store<float>(p, n, status, w.sample.occupancy_tangent);
    }
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

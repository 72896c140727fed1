// CTC loss on the CPU, backward, a range of rows at a time. Each row is one pass over the classes, then the labels.
#include "../workspace.h"
#include "ctc_loss.h"
#include "rows.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

template <class Scalar>
struct BackwardWorkspace {
  Scalar *row, *copy;
  size_t size;

  BackwardWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    row = w.take<Scalar>(p.classes);
    copy = w.take<Scalar>(p.classes);
    size = w.size();
  }
};

// One row of the gradient as Scalars: g * (kept * softmax - gamma) for logits, -g * gamma for log-probabilities.
template <class Element, class Scalar>
void gradient_row(const CtcLossParams& p, int64_t t, int64_t n, Scalar* copy, Scalar* out) {
  using L = Lanes<Scalar>;
  // Labels [begin, end) can be on a path here: see run() in recursion.h.
  const int64_t length = p.target_lengths[n], rest = length - (p.input_lengths[n] - t), star = p.star;
  const int64_t begin = rest > 0 ? rest : 0, end = length <= t ? length : t + 1;
  const int64_t* const labels = p.targets + p.target_offsets[n];
  const Scalar* const occupancy = static_cast<const Scalar*>(p.occupancy) + (n * p.frames + t) * p.max_length;
  const Scalar g = static_cast<const Scalar*>(p.grad_loss)[n];
  auto sum = L::set(0);
  for (int64_t i = begin; i < end; i += L::N) sum += L::load(occupancy + i, L::first(end - i));
  const Scalar total = L::reduce_add(sum)[0];
  Scalar stars = 0;
  if (star >= 0) {
    for (int64_t i = begin; i < end; ++i) stars += labels[i] == star ? occupancy[i] : 0;
  }
  if (p.from_logits) {
    const FrameScalars<Scalar> frame(p, n);
    const Scalar* const x = contiguous_row(row_of<Element>(p, t, n), p.stride_c, p.classes, copy);
    softmax(x, p.classes, {frame.max[t], frame.log2_sum[t]}, g * (1 - stars), out);
  } else {
    clear(out, p.classes);
  }
  if (star < 0) {
    _Pragma("GCC unroll 4") for (int64_t i = begin; i < end; ++i) out[labels[i]] -= g * occupancy[i];
  } else {
    for (int64_t i = begin; i < end; ++i) {
      if (labels[i] != star) out[labels[i]] -= g * occupancy[i];
    }
  }
  out[p.blank] -= g * (total < 1 ? 1 - total : Scalar(0));
}

template <class Element>
void backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  using Scalar = typename ScalarOf<Element>::type;
  const BackwardWorkspace<Scalar> w(workspace, p);
  const bool in_place = sizeof(Element) == sizeof(Scalar) && p.grad_stride_c == 1;
  const bool frame_first = p.grad_stride_t >= p.grad_stride_n;  // rows in the order of memory
  const int64_t inner = frame_first ? p.batch : p.frames, rows = p.batch * p.frames;
  const int64_t first = begin * kRowsPerChunk, last = end * kRowsPerChunk < rows ? end * kRowsPerChunk : rows;
  int64_t major = first / inner, minor = first % inner;
  for (int64_t row = first; row < last; ++row) {
    const int64_t t = frame_first ? major : minor, n = frame_first ? minor : major;
    if (++minor == inner) {
      minor = 0;
      ++major;
    }
    Element* const out = static_cast<Element*>(p.grad) + t * p.grad_stride_t + n * p.grad_stride_n;
    Scalar* const scalars = in_place ? reinterpret_cast<Scalar*>(out) : w.row;
    const int32_t status = p.status[n];
    if (status == kOk && t < p.input_lengths[n]) {
      gradient_row<Element>(p, t, n, w.copy, scalars);
    } else {
      const bool nan = status == kNotANumber && t < p.input_lengths[n];
      for (int64_t c = 0; c < p.classes; ++c) scalars[c] = nan ? Scalar(NAN) : Scalar(0);
    }
    if (!in_place) store_row(scalars, p.classes, out, p.grad_stride_c);
  }
}

}  // namespace

size_t ctc_loss_backward_workspace(const CtcLossParams& p) { return BackwardWorkspace<double>(nullptr, p).size; }

void ctc_loss_backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  const FlushDenormals flush;
  with_element(p.dtype, [&](auto element) { backward<decltype(element)>(p, begin, end, workspace); });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

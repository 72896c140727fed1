// CTC loss on the CPU, backward, a range of rows at a time. Each row is one pass over the classes, then the labels.
// Rows of few classes are transposed, several frames at once: then a label is one operation for all of them.
#include "../workspace.h"
#include "ctc_loss.h"
#include "frame_tile.h"
#include "rows.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

constexpr int64_t kRowsPerChunk = 64;
constexpr int64_t kMostTransposed = 128;  // classes

// Are rows transposed? A row that is not takes a load and a store for each label, but none for its classes. Registers
// of 8 floats take fewer shuffles for each class than those of 16.
template <class Scalar>
bool uses_tiles(const CtcLossParams& p) {
  constexpr int N = Lanes<Scalar>::N, few = kVectorBytes == 32 ? 3 * N : N;
  const int64_t most = few + (p.from_logits ? p.max_length * 5 / 4 : p.max_length * 2);
  return N >= 8 && p.classes <= (most < kMostTransposed ? most : kMostTransposed) && p.star < 0;
}

// Do rows pass by the caches? They would not stay there where the gradient is large, and memory that is only written
// is then not read before. But each class of a target is read again from memory.
bool streams_pay(const CtcLossParams& p, int64_t element_bytes) {
  constexpr int64_t kLargeGradient = int64_t(32) << 20, kBytesPerLabel = 1024;
  const int64_t row_bytes = p.classes * element_bytes;
  return p.grad_stride_c == 1 && p.batch * p.frames * row_bytes >= kLargeGradient &&
         row_bytes >= (p.max_length + 1) * kBytesPerLabel;
}

template <class Scalar>
struct BackwardWorkspace {
  Scalar *row, *copy;  // (C), or (N, C) if rows are transposed
  Scalar* tile;        // (C, N)
  Scalar* labels;      // (S, N)
  size_t size;

  BackwardWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    const int64_t frames = uses_tiles<Scalar>(p) ? Lanes<Scalar>::N : 0;
    row = w.take<Scalar>((frames ? frames : 1) * p.classes);
    copy = w.take<Scalar>((frames ? frames : 1) * p.classes);
    tile = w.take<Scalar>(frames * p.classes);
    labels = w.take<Scalar>(frames * p.max_length);
    size = w.size();
  }
};

// Labels that can be on a path in a frame: see run() in recursion.h. The others have the occupancy 0.
struct LabelRange {
  int64_t begin, end;

  LabelRange(const CtcLossParams& p, int64_t t, int64_t n) {
    const int64_t length = p.target_lengths[n], rest = length - (p.input_lengths[n] - t);
    begin = rest > 0 ? rest : 0;
    end = length <= t ? length : t + 1;
  }
};

// The occupancies of a frame, summed up by lanes.
template <class Scalar>
typename Lanes<Scalar>::F sum_by_lanes(const Scalar* occupancy, LabelRange labels) {
  using L = Lanes<Scalar>;
  auto sum = L::set(0);
  for (int64_t i = labels.begin; i < labels.end; i += L::N) sum += L::load(occupancy + i, L::first(labels.end - i));
  return sum;
}

// A row of the gradient: g * (kept * softmax - gamma) for logits, -g * gamma for log-probabilities. Scalars whose
// classes are side by side are computed in place. Of other types only the classes of the target are computed again, as
// Scalars in w.row.
template <bool streams, class Element, class Scalar, class Out>
FASTCTC_LANE void gradient_row(const CtcLossParams& p, int64_t t, int64_t n, const BackwardWorkspace<Scalar>& w,
                               Out* out) {
  using L = Lanes<Scalar>;
  constexpr bool kScalars = sizeof(Out) == sizeof(Scalar);
  const int64_t star = p.star;
  const LabelRange range(p, t, n);
  const int64_t begin = range.begin, end = range.end;
  const int64_t* const labels = p.targets + p.target_offsets[n];
  const Scalar* const occupancy = static_cast<const Scalar*>(p.occupancy) + (n * p.frames + t) * p.max_length;
  const Scalar g = static_cast<const Scalar*>(p.grad_loss)[n];
  const Scalar total = L::reduce_add(sum_by_lanes(occupancy, range))[0];
  Scalar stars = 0;
  if (star >= 0) {
    for (int64_t i = begin; i < end; ++i) stars += labels[i] == star ? occupancy[i] : 0;
  }
  const auto for_each_label = [&](const auto& f) {
    if (star < 0) {
      _Pragma("GCC unroll 4") for (int64_t i = begin; i < end; ++i) f(labels[i], i);
    } else {
      for (int64_t i = begin; i < end; ++i) {
        if (labels[i] != star) f(labels[i], i);
      }
    }
  };
  Scalar* scalars = w.row;
  if constexpr (kScalars) scalars = out;
  if (p.from_logits) {
    const FrameScalars<Scalar> frame(p, n);
    const Softmax<Scalar> softmax({frame.max[t], frame.log2_sum[t]}, g * (1 - stars));
    with_row(row_of<Element>(p, t, n), p.stride_c, p.classes, w.copy, [&](const auto* x) {
      softmax.template of_row<streams>(x, p.classes, out);
      if constexpr (!kScalars) {
        for_each_label([&](int64_t c, int64_t) { scalars[c] = softmax.of(to_scalar(x[c])); });
        scalars[p.blank] = softmax.of(to_scalar(x[p.blank]));
      }
    });
  } else {
    fill_zero<streams>(out, p.classes);
    if constexpr (!kScalars) {
      for_each_label([&](int64_t c, int64_t) { scalars[c] = 0; });
      scalars[p.blank] = 0;
    }
  }
  for_each_label([&](int64_t c, int64_t i) { scalars[c] -= g * occupancy[i]; });
  scalars[p.blank] -= g * (total < 1 ? 1 - total : Scalar(0));
  if constexpr (!kScalars) {
    for_each_label([&](int64_t c, int64_t) { from_scalar(scalars[c], out[c]); });
    from_scalar(scalars[p.blank], out[p.blank]);
  }
}

// A row of the gradient, and where it is computed, as the k-th of several.
template <class Element>
Element* row_of_gradient(const CtcLossParams& p, int64_t t, int64_t n) {
  return static_cast<Element*>(p.grad) + t * p.grad_stride_t + n * p.grad_stride_n;
}
template <class Element, class Scalar>
Scalar* scalars_of(const CtcLossParams& p, Element* out, const BackwardWorkspace<Scalar>& w, int64_t k = 0) {
  const bool in_place = sizeof(Element) == sizeof(Scalar) && p.grad_stride_c == 1;
  return in_place ? reinterpret_cast<Scalar*>(out) : w.row + k * p.classes;
}
// From there to its place.
template <class Element, class Scalar>
void finish_row(const CtcLossParams& p, const Scalar* scalars, Element* out) {
  if (static_cast<const void*>(scalars) != out) store_row(scalars, p.classes, out, p.grad_stride_c);
}

template <bool streams, class Element, class Scalar>
FASTCTC_LANE void any_row(const CtcLossParams& p, int64_t t, int64_t n, const BackwardWorkspace<Scalar>& w) {
  Element* const out = row_of_gradient<Element>(p, t, n);
  const int32_t status = t < p.input_lengths[n] ? p.status[n] : int32_t(kInfeasible);
  const auto fill = [&](auto* row) {
    if (status == kOk) return gradient_row<streams, Element>(p, t, n, w, row);
    if (status != kNotANumber) return fill_zero<streams>(row, p.classes);
    for (int64_t c = 0; c < p.classes; ++c) from_scalar(Scalar(NAN), row[c]);
  };
  if (p.grad_stride_c == 1) return fill(out);
  fill(w.row);
  store_row(w.row, p.classes, out, p.grad_stride_c);
}

// gradient_row() of `count` <= N frames from t0 on, with the same bits for finite g > 0.
template <class Element, class Scalar>
void gradient_tile(const CtcLossParams& p, int64_t t0, int count, int64_t n, const BackwardWorkspace<Scalar>& w) {
  using L = Lanes<Scalar>;
  using F = typename L::F;
  const int64_t classes = p.classes;
  const int64_t* const labels = p.targets + p.target_offsets[n];
  const Scalar g = static_cast<const Scalar*>(p.grad_loss)[n];
  const int64_t first = LabelRange(p, t0, n).begin, last = LabelRange(p, t0 + count - 1, n).end;
  const auto frame_of = [&](int k) { return t0 + (k < count ? k : 0); };
  const Scalar* rows[L::N];
  F sums[L::N];
  for (int k = 0; k < L::N; ++k) {
    const int64_t t = frame_of(k);
    const Scalar* const occupancy = static_cast<const Scalar*>(p.occupancy) + (n * p.frames + t) * p.max_length;
    sums[k] = sum_by_lanes(occupancy, LabelRange(p, t, n));
    rows[k] = occupancy + first;
  }
  L::transpose(sums);
  const F total = add_halves<L::N / 2>(sums), one = L::set(1);  // in the order of reduce_add()
  transpose_rows<L::N>(rows, last - first, w.labels);
  if (p.from_logits) {
    for (int k = 0; k < L::N; ++k) {
      rows[k] = contiguous_row(row_of<Element>(p, frame_of(k), n), p.stride_c, classes, w.copy + k * classes);
    }
    transpose_rows<L::N>(rows, classes, w.tile);
    const FrameScalars<Scalar> frame(p, n);
    const F shift = L::load(frame.max + t0, L::first(count)), log2_sum = L::load(frame.log2_sum + t0, L::first(count));
    for (int64_t c = 0; c < classes; ++c) {
      const F x = L::load(w.tile + c * L::N);
      L::store(w.tile + c * L::N, g * L::exp2((x - shift) * Constants<Scalar>::log2_e - log2_sum));
    }
  } else {
    clear(w.tile, classes * L::N);
  }
  const auto subtract = [&](int64_t c, F occupancy) {
    L::store(w.tile + c * L::N, L::load(w.tile + c * L::N) - g * occupancy);
  };
  for (int64_t i = first; i < last; ++i) subtract(labels[i], L::load(w.labels + (i - first) * L::N));
  subtract(p.blank, L::select(L::less(total, one), one - total, L::set(0)));
  Scalar* scalars[L::N];
  for (int k = 0; k < count; ++k) scalars[k] = scalars_of(p, row_of_gradient<Element>(p, t0 + k, n), w, k);
  transpose_tile(w.tile, classes, scalars, count);
  for (int k = 0; k < count; ++k) finish_row(p, scalars[k], row_of_gradient<Element>(p, t0 + k, n));
}

// Chunks of some frames of a sample each, in the order of memory.
template <class Element, class Scalar>
void backward_by_tiles(const CtcLossParams& p, int64_t begin, int64_t end, const BackwardWorkspace<Scalar>& w) {
  constexpr int N = Lanes<Scalar>::N;
  const int64_t per_sample = (p.frames + kRowsPerChunk - 1) / kRowsPerChunk;
  const bool frame_first = p.grad_stride_t >= p.grad_stride_n;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t n = frame_first ? chunk % p.batch : chunk / per_sample;
    const int64_t t0 = (frame_first ? chunk / p.batch : chunk % per_sample) * kRowsPerChunk;
    const int64_t t1 = t0 + kRowsPerChunk < p.frames ? t0 + kRowsPerChunk : p.frames;
    const Scalar g = static_cast<const Scalar*>(p.grad_loss)[n];
    const int64_t used = p.status[n] == kOk && g > 0 && g < Scalar(INFINITY) ? p.input_lengths[n] : 0;
    const int64_t last = used < t1 ? used : t1;
    int64_t t = t0;
    for (; t + N / 2 < last; t += N) gradient_tile<Element>(p, t, last - t < N ? int(last - t) : N, n, w);
    for (t = t < last || t == t0 ? t : last; t < t1; ++t) any_row<false, Element>(p, t, n, w);
  }
}

template <bool streams, class Element, class Scalar>
void backward_by_rows(const CtcLossParams& p, int64_t begin, int64_t end, const BackwardWorkspace<Scalar>& w) {
  const bool frame_first = p.grad_stride_t >= p.grad_stride_n;  // rows in the order of memory
  const int64_t inner = frame_first ? p.batch : p.frames, rows = p.batch * p.frames;
  const int64_t first = begin * kRowsPerChunk, last = end * kRowsPerChunk < rows ? end * kRowsPerChunk : rows;
  int64_t major = first / inner, minor = first % inner;
  for (int64_t row = first; row < last; ++row) {
    if (frame_first && minor + 1 < inner) {  // the next occupancies are far away
      const int64_t next = (minor + 1) * p.frames + major;
      fetch(static_cast<const Scalar*>(p.occupancy) + next * p.max_length, p.max_length);
    }
    any_row<streams, Element>(p, frame_first ? major : minor, frame_first ? minor : major, w);
    if (++minor == inner) {
      minor = 0;
      ++major;
    }
  }
  if (streams) Lanes<Scalar>::finish_streams();
}

template <class Element>
void backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  using Scalar = typename ScalarOf<Element>::type;
  const BackwardWorkspace<Scalar> w(workspace, p);
  if (uses_tiles<Scalar>(p)) return backward_by_tiles<Element>(p, begin, end, w);
  if (streams_pay(p, sizeof(Element))) return backward_by_rows<true, Element>(p, begin, end, w);
  backward_by_rows<false, Element>(p, begin, end, w);
}

}  // namespace

int64_t ctc_loss_backward_chunks(const CtcLossParams& p) {
  const auto chunks = [](int64_t rows) { return (rows + kRowsPerChunk - 1) / kRowsPerChunk; };
  const bool tiles = p.dtype == DType::kFloat64 ? uses_tiles<double>(p) : uses_tiles<float>(p);
  return tiles ? p.batch * chunks(p.frames) : chunks(p.batch * p.frames);
}

size_t ctc_loss_backward_workspace(const CtcLossParams& p) {
  if (p.dtype == DType::kFloat64) return BackwardWorkspace<double>(nullptr, p).size;
  return BackwardWorkspace<float>(nullptr, p).size;
}

void ctc_loss_backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  const FlushDenormals flush;
  with_element(p.dtype, [&](auto element) { backward<decltype(element)>(p, begin, end, workspace); });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

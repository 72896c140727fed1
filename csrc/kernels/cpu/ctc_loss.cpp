// CTC loss on the CPU, compiled once per instruction set (FASTCTC_ISA). No standard library templates here: their code
// would be shared with the other instruction sets.
#include "../ctc_loss.h"

#include <cstring>

#include "../../math/element.h"
#include "../../math/emission.h"
#include "../../math/recursion.h"
#include "../workspace.h"
#include "lanes.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

constexpr int kMaxRegisters = 4;  // K: a block has at most this many registers of labels

template <class Scalar>
int64_t registers_for(int64_t length) {
  const int64_t need = (length + 1 + Lanes<Scalar>::N - 1) / Lanes<Scalar>::N;
  return need < kMaxRegisters ? need : kMaxRegisters;
}
template <class Scalar>
int64_t slots_for(int64_t length) {
  const int64_t block = registers_for<Scalar>(length) * Lanes<Scalar>::N;
  return (length + 1 + block - 1) / block * block;
}

template <class Element>
const Element* row_of(const CtcLossParams& p, int64_t t, int64_t n) {
  return static_cast<const Element*>(p.input) + t * p.stride_t + n * p.stride_n;
}

template <class Scalar>
void clear(Scalar* p, int64_t count) {
  if (count > 0) memset(p, 0, size_t(count) * sizeof(Scalar));
}

// One row of C classes as contiguous Scalars: the row itself where it is that already, else a converted copy.
template <class Element, class Scalar>
const Scalar* contiguous_row(const CtcLossParams& p, const Element* x, Scalar* copy) {
  if constexpr (sizeof(Element) == sizeof(Scalar)) {
    if (p.stride_c == 1) return reinterpret_cast<const Scalar*>(x);
  }
  for (int64_t c = 0; c < p.classes; ++c) copy[c] = to_scalar(x[c * p.stride_c]);
  return copy;
}

template <class Scalar>
RowStatistics<Scalar> row_statistics(const Scalar* x, int64_t classes) {
  using L = Lanes<Scalar>;
  const int64_t whole = classes / L::N * L::N;
  auto max = L::set(Scalar(-INFINITY));
  for (int64_t c = 0; c < whole; c += L::N) max = L::max(L::load(x + c), max);
  Scalar top = L::reduce_max(max);
  for (int64_t c = whole; c < classes; ++c) top = x[c] > top ? x[c] : top;

  const auto scale = L::set(Log2E<Scalar>::hi), shift = L::set(top);
  auto sum = L::set(0);
  for (int64_t c = 0; c < whole; c += L::N) sum += L::exp2((L::load(x + c) - shift) * scale);
  if (whole < classes) {
    auto rest = L::set(Scalar(-INFINITY));
    for (int64_t c = whole; c < classes; ++c) rest[c - whole] = (x[c] - top) * Log2E<Scalar>::hi;
    sum += L::exp2(rest);
  }
  return {top, Scalar(std::log2(double(L::reduce_add(sum))))};
}

bool sample_is_valid(const CtcLossParams& p, int64_t n) {
  const int64_t offset = p.target_offsets[n], length = p.target_lengths[n];
  const int64_t end = p.target_columns < 0 ? p.target_count : offset + p.target_columns;
  if (!lengths_are_valid(p.input_lengths[n], p.frames, length, offset, end)) return false;
  for (int64_t i = 0; i < length; ++i) {
    if (!label_is_valid(p.targets[offset + i], p.classes, p.blank)) return false;
  }
  return true;
}

template <class Scalar>
struct ForwardWorkspace {
  Sequence<Scalar> sequence;
  uint8_t *skip_into, *skip_from;
  Scalar *row, *occupancy;
  size_t size;

  // `occupancy` is taken only where the result cannot be written in place.
  ForwardWorkspace(void* base, const CtcLossParams& p, int64_t frames, int64_t length, bool own_occupancy) {
    Workspace w(base);
    const int64_t slots = slots_for<Scalar>(length),
                  blocks = slots / (registers_for<Scalar>(length) * Lanes<Scalar>::N);
    Sequence<Scalar>& q = sequence;
    q.frames = frames;
    q.length = length;
    q.slots = slots;
    q.labels = w.take_plane<Scalar>(frames * slots);
    q.blank = w.take_plane<Scalar>(frames);
    q.alpha = w.take_plane<Scalar>(p.need_grad ? frames * slots : 0);
    q.state_b = w.take_plane<Scalar>(slots);
    q.state_e = w.take_plane<Scalar>(slots);
    q.carries = w.take_plane<Scalar>((blocks + 1) * kTile);
    q.skip_into = skip_into = w.take<uint8_t>(slots);
    q.skip_from = skip_from = w.take<uint8_t>(slots);
    row = w.take<Scalar>(p.classes);
    occupancy = w.take<Scalar>(own_occupancy ? frames * length : 0);
    size = w.size();
  }
};

// Fills the emissions of sample n. Returns the sum over frames of the largest exponent, or NaN if a NaN was read.
template <class Element, class Scalar>
double gather_emissions(const CtcLossParams& p, int64_t n, const int64_t* labels, const ForwardWorkspace<Scalar>& w) {
  using Stored = typename ScalarOf<Element>::type;
  const Sequence<Scalar>& q = w.sequence;
  double range = 0;
  bool nan = false;
  for (int64_t t = 0; t < q.frames; ++t) {
    const Element* const x = row_of<Element>(p, t, n);
    RowStatistics<Scalar> statistics, *row = nullptr;
    if (p.from_logits) {
      statistics = row_statistics(contiguous_row<Element, Scalar>(p, x, w.row), p.classes);
      row = &statistics;
      if (p.need_grad) {
        Stored* const out = static_cast<Stored*>(p.row_statistics) + (n * p.frames + t) * 2;
        out[0] = Stored(statistics.max);
        out[1] = Stored(statistics.log2_sum);
      }
    }
    Scalar largest = 0;
    const auto put = [&](Scalar* m, Scalar* e, Scalar value) {
      const Emission<Scalar> y = emission<Scalar>(value, row);
      *m = y.m;
      *e = y.e;
      nan |= y.m != y.m;
      const Scalar size = y.m == 0 ? Scalar(0) : y.e < 0 ? -y.e : y.e;
      largest = size > largest ? size : largest;
    };
    put(q.blank.m + t, q.blank.e + t, to_scalar(x[p.blank * p.stride_c]));
    Scalar *const m = q.labels.m + t * q.slots, *const e = q.labels.e + t * q.slots;
    for (int64_t i = 0; i < q.length; ++i) put(m + i, e + i, to_scalar(x[labels[i] * p.stride_c]));
    for (int64_t i = q.length; i < q.slots; ++i) m[i] = e[i] = 0;
    range += double(largest);
  }
  return nan ? double(NAN) : range;
}

template <class Scalar>
double solve(const Sequence<Scalar>& q, bool occupancies) {
  using L = Lanes<Scalar>;
  switch (registers_for<Scalar>(q.length)) {
    case 1:
      return forward_backward<L, 1>(q, occupancies);
    case 2:
      return forward_backward<L, 2>(q, occupancies);
    case 3:
      return forward_backward<L, 3>(q, occupancies);
    default:
      return forward_backward<L, kMaxRegisters>(q, occupancies);
  }
}

template <class Element, class Scalar>
void forward_sample(const CtcLossParams& p, int64_t n, void* workspace) {
  using Stored = typename ScalarOf<Element>::type;
  constexpr bool in_place = sizeof(Stored) == sizeof(Scalar);
  const int64_t S = p.max_length;
  Stored& loss = static_cast<Stored*>(p.loss)[n];
  Stored* const occupancy = p.need_grad ? static_cast<Stored*>(p.occupancy) + n * p.frames * S : nullptr;
  Stored* const statistics =
      p.need_grad && p.from_logits ? static_cast<Stored*>(p.row_statistics) + n * p.frames * 2 : nullptr;
  const auto finish = [&](Stored value, Status status, int64_t frames_done) {
    loss = value;
    p.status[n] = status;
    if (!p.need_grad) return;
    clear(occupancy + frames_done * S, (p.frames - frames_done) * S);
    if (statistics) clear(statistics + frames_done * 2, (p.frames - frames_done) * 2);
  };
  if (!sample_is_valid(p, n)) return finish(Stored(NAN), kInvalid, 0);
  const int64_t frames = p.input_lengths[n], length = p.target_lengths[n];
  if (length > frames) return finish(Stored(INFINITY), kInfeasible, 0);

  const int64_t* const labels = p.targets + p.target_offsets[n];
  ForwardWorkspace<Scalar> w(workspace, p, frames, length, p.need_grad && !in_place);
  const double range = gather_emissions<Element, Scalar>(p, n, labels, w);
  if (range != range) return finish(Stored(NAN), kNotANumber, 0);
  if (sizeof(Scalar) == 4 && range > double(1 << 23)) return finish(Stored(NAN), kTooWide, 0);
  for (int64_t i = 0; i < w.sequence.slots; ++i) {
    w.skip_into[i] = may_skip(labels, i, length);
    w.skip_from[i] = may_skip(labels, i + 1, length);
  }
  if constexpr (in_place) {
    w.sequence.occupancy = occupancy;
    w.sequence.occupancy_stride = S;
  } else {
    w.sequence.occupancy = w.occupancy;
    w.sequence.occupancy_stride = length;
  }
  const double log2_p = solve(w.sequence, p.need_grad);
  if (occupancy) {
    for (int64_t t = 0; t < frames; ++t) {
      if (!in_place) {
        for (int64_t i = 0; i < length; ++i) occupancy[t * S + i] = Stored(w.occupancy[t * length + i]);
      }
      clear(occupancy + t * S + length, S - length);
    }
  }
  finish(Stored(-0.6931471805599453 * log2_p), log2_p > -INFINITY ? kOk : kInfeasible, frames);
}

// The labels of a sample grouped by class, as linked lists in order of position.
struct LabelChains {
  int32_t *next, *head;  // (S) the next position with the same label or -1; (S) the first positions
  int64_t heads = 0;

  // `last` holds -1 for every class, before and after.
  void build(const int64_t* labels, int64_t length, int32_t* last) {
    heads = 0;
    for (int64_t i = length - 1; i >= 0; --i) {
      next[i] = last[labels[i]];
      last[labels[i]] = int32_t(i);
    }
    for (int64_t i = 0; i < length; ++i) {
      if (last[labels[i]] == int32_t(i)) head[heads++] = int32_t(i);
    }
    for (int64_t i = 0; i < length; ++i) last[labels[i]] = -1;
  }
};

template <class Scalar>
struct BackwardWorkspace {
  LabelChains chains;
  int32_t* last;
  Scalar *row, *copy;
  size_t size;

  BackwardWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    chains.next = w.take<int32_t>(p.max_length);
    chains.head = w.take<int32_t>(p.max_length);
    last = w.take<int32_t>(p.classes);
    row = w.take<Scalar>(p.classes);
    copy = w.take<Scalar>(p.classes);
    size = w.size();
  }
};

// One row of the gradient as Scalars: g * (softmax - gamma) for logits, -g * gamma for log-probabilities.
template <class Element, class Scalar>
void gradient_row(const CtcLossParams& p, int64_t t, int64_t n, Scalar g, const BackwardWorkspace<Scalar>& w,
                  Scalar* out) {
  using L = Lanes<Scalar>;
  if (p.from_logits) {
    const Scalar* const x = contiguous_row<Element, Scalar>(p, row_of<Element>(p, t, n), w.copy);
    const Scalar* const statistics = static_cast<const Scalar*>(p.row_statistics) + (n * p.frames + t) * 2;
    const Scalar top = statistics[0], log2_sum = statistics[1], scale = Log2E<Scalar>::hi;
    int64_t c = 0;
    for (; c + L::N <= p.classes; c += L::N) L::store(out + c, g * L::exp2((L::load(x + c) - top) * scale - log2_sum));
    if (c < p.classes) {
      auto rest = L::set(0);
      for (int64_t k = c; k < p.classes; ++k) rest[k - c] = (x[k] - top) * scale - log2_sum;
      rest = g * L::exp2(rest);
      for (int64_t k = c; k < p.classes; ++k) out[k] = rest[k - c];
    }
  } else {
    clear(out, p.classes);
  }
  const int64_t* const labels = p.targets + p.target_offsets[n];
  const Scalar* const occupancy = static_cast<const Scalar*>(p.occupancy) + (n * p.frames + t) * p.max_length;
  Scalar total = 0;
  for (int64_t k = 0; k < w.chains.heads; ++k) {
    Scalar gamma = 0;
    for (int32_t i = w.chains.head[k]; i >= 0; i = w.chains.next[i]) gamma += occupancy[i];
    out[labels[w.chains.head[k]]] -= g * gamma;
    total += gamma;
  }
  const Scalar blank = Scalar(1) - total;
  out[p.blank] -= g * (blank > 0 ? blank : Scalar(0));
}

template <class Element>
void backward_chunk(const CtcLossParams& p, int64_t chunk,
                    const BackwardWorkspace<typename ScalarOf<Element>::type>& w) {
  using Scalar = typename ScalarOf<Element>::type;
  const int64_t chunks = (p.frames + kRowsPerChunk - 1) / kRowsPerChunk;
  const int64_t n = chunk / chunks, begin = chunk % chunks * kRowsPerChunk;
  const int64_t end = begin + kRowsPerChunk < p.frames ? begin + kRowsPerChunk : p.frames;
  const int32_t status = p.status[n];
  const bool exact = status == kOk, nan = status == kNotANumber;
  const int64_t used = exact || nan ? p.input_lengths[n] : 0;
  const Scalar g = static_cast<const Scalar*>(p.grad_loss)[n];
  BackwardWorkspace<Scalar> local = w;
  if (exact) local.chains.build(p.targets + p.target_offsets[n], p.target_lengths[n], w.last);
  for (int64_t t = begin; t < end; ++t) {
    Element* const out = static_cast<Element*>(p.grad) + t * p.grad_stride_t + n * p.grad_stride_n;
    if constexpr (sizeof(Element) == sizeof(Scalar)) {
      if (exact && t < used && p.grad_stride_c == 1) {
        gradient_row<Element, Scalar>(p, t, n, g, local, out);
        continue;
      }
    }
    if (exact && t < used) {
      gradient_row<Element, Scalar>(p, t, n, g, local, w.row);
      for (int64_t c = 0; c < p.classes; ++c) from_scalar(w.row[c], out[c * p.grad_stride_c]);
    } else {
      Element value;
      from_scalar(t < used ? Scalar(NAN) : Scalar(0), value);
      for (int64_t c = 0; c < p.classes; ++c) out[c * p.grad_stride_c] = value;
    }
  }
}

template <class Element>
void backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  const BackwardWorkspace<typename ScalarOf<Element>::type> w(workspace, p);
  for (int64_t c = 0; c < p.classes; ++c) w.last[c] = -1;
  for (int64_t chunk = begin; chunk < end; ++chunk) backward_chunk<Element>(p, chunk, w);
}

}  // namespace

size_t ctc_loss_forward_workspace(const CtcLossParams& p, bool wide) {
  const int64_t length = p.max_length < p.frames ? p.max_length : p.frames;
  if (wide || p.dtype == DType::kFloat64)
    return ForwardWorkspace<double>(nullptr, p, p.frames, length, p.need_grad).size;
  return ForwardWorkspace<float>(nullptr, p, p.frames, length, false).size;
}

void ctc_loss_forward(const CtcLossParams& p, int64_t begin, int64_t end, bool wide, void* workspace) {
  const FlushDenormals flush;
  with_element(p.dtype, [&](auto element) {
    using Element = decltype(element);
    for (int64_t n = begin; n < end; ++n) {
      if (wide) {
        forward_sample<Element, double>(p, n, workspace);
      } else {
        forward_sample<Element, typename ScalarOf<Element>::type>(p, n, workspace);
      }
    }
  });
}

size_t ctc_loss_backward_workspace(const CtcLossParams& p) { return BackwardWorkspace<double>(nullptr, p).size; }

void ctc_loss_backward(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  const FlushDenormals flush;
  with_element(p.dtype, [&](auto element) { backward<decltype(element)>(p, begin, end, workspace); });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

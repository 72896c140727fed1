// The first phase of the CTC loss on the CPU, a range of frames at a time: the softmax statistics of each row and,
// while the row is in the cache, the scores of the labels.
#include "../workspace.h"
#include "ctc_loss.h"
#include "frame_tile.h"
#include "rows.h"
#include "targets.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

constexpr int64_t kShortRow = 512;  // classes; shorter rows are reduced several at once
template <class Scalar>
constexpr int64_t kTransposedRow = Lanes<Scalar>::N * (kVectorBytes == 32 ? 6 : 4);  // and these are transposed

// Frames of sample n that are read.
int64_t frames_to_read(const CtcLossParams& p, int64_t n) {
  return sample_is_valid(p, n) && target_fits(p, n) ? p.input_lengths[n] : 0;
}

template <class Scalar>
struct ScoresWorkspace {
  int64_t group;  // rows that are reduced at once
  Scalar* rows;   // (group, C)
  Scalar* tile;   // (C, group) of rows that are transposed
  int32_t* labels;
  size_t size;

  ScoresWorkspace(void* base, const CtcLossParams& p) {
    Workspace w(base);
    group = p.classes <= kShortRow ? Lanes<Scalar>::N : 1;
    rows = w.take<Scalar>(group * p.classes);
    tile = w.take<Scalar>(p.classes <= kTransposedRow<Scalar> ? group * p.classes : 0);
    labels = w.take<int32_t>(p.max_length + Lanes<Scalar>::N);
    size = w.size();
  }
};

// out[i] = x[index[i]], one by one: gather instructions take longer on some processors, and on none much less.
template <class Scalar>
void copy_each(const Scalar* x, const int32_t* index, int64_t count, Scalar* out) {
  _Pragma("GCC unroll 4") for (int64_t i = 0; i < count; ++i) out[i] = x[index[i]];
}

// row_statistics() by way of a tile.
template <class Scalar>
RowStatistics<typename Lanes<Scalar>::F> statistics_of_tile(const Scalar** rows, int count, int64_t classes,
                                                            Scalar* tile) {
  using L = Lanes<Scalar>;
  for (int k = count; k < L::N; ++k) rows[k] = rows[0];
  transpose_rows<L::N>(rows, classes, tile);
  if (classes <= L::N) return TileStatistics<1, Scalar>(tile, classes)();
  if (classes <= 2 * L::N) return TileStatistics<2, Scalar>(tile, classes)();
  if (classes <= 3 * L::N) return TileStatistics<3, Scalar>(tile, classes)();
  if (classes <= 4 * L::N) return TileStatistics<4, Scalar>(tile, classes)();
  return TileStatistics<0, Scalar>(tile, classes)();
}

// Frames [t0, t1) of sample n, which are all used.
template <class Element, class Scalar>
void score_frames(const CtcLossParams& p, int64_t n, int64_t t0, int64_t t1, const ScoresWorkspace<Scalar>& w) {
  using L = Lanes<Scalar>;
  const FrameScalars<Scalar> frame(p, n);
  const int64_t length = p.target_lengths[n];
  const int64_t* const labels = p.targets + p.target_offsets[n];
  bool stars = false;
  for (int64_t i = 0; i < length; ++i) {
    stars |= labels[i] == p.star;
    w.labels[i] = labels[i] == p.star ? 0 : int32_t(labels[i]);
  }
  const bool in_place = sizeof(Element) == sizeof(Scalar) && p.stride_c == 1, lookup = scores_by_lookup(p);
  const bool long_rows = w.group == 1 && p.stride_c == 1;           // are read where they are, whatever their type
  const bool has_rows = in_place || (p.from_logits && !long_rows);  // as Scalars
  for (int64_t t = t0; t < t1; t += w.group) {
    const int count = int(t1 - t < w.group ? t1 - t : w.group);
    const Scalar* rows[L::N];
    if (has_rows) {
      for (int k = 0; k < count; ++k) {
        rows[k] = contiguous_row(row_of<Element>(p, t + k, n), p.stride_c, p.classes, w.rows + k * p.classes);
      }
    }
    if (p.from_logits) {
      const Element* const x = row_of<Element>(p, t, n);
      const bool transposed = count > L::N / 2 && p.classes <= kTransposedRow<Scalar>;
      const auto statistics = long_rows    ? row_statistics<0>(&x, 1, p.classes, t + 1 < t1 ? x + p.stride_t : nullptr)
                              : transposed ? statistics_of_tile(rows, count, p.classes, w.tile)
                                           : row_statistics(rows, count, p.classes);
      L::store(frame.max + t, statistics.max, L::first(count));
      L::store(frame.log2_sum + t, statistics.log2_sum, L::first(count));
    }
    for (int k = 0; k < count; ++k) {
      Scalar* const out = static_cast<Scalar*>(p.occupancy) + (n * p.frames + t + k) * p.max_length;
      if (has_rows) {
        frame.blank[t + k] = rows[k][p.blank];
        if (!lookup) copy_each(rows[k], w.labels, length, out);
      } else {
        const Element* const x = row_of<Element>(p, t + k, n);
        frame.blank[t + k] = to_scalar(x[p.blank * p.stride_c]);
        for (int64_t i = 0; i < length; ++i) out[i] = to_scalar(x[w.labels[i] * p.stride_c]);
      }
      if (stars) {
        const Scalar any = p.from_logits ? frame.max[t + k] + frame.log2_sum[t + k] * Scalar(kLn2) : 0;
        for (int64_t i = 0; i < length; ++i) out[i] = labels[i] == p.star ? any : out[i];
      }
      if (p.need_grad) clear(out + length, p.max_length - length);
    }
  }
}

template <class Element>
void scores(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  using Scalar = typename ScalarOf<Element>::type;
  const ScoresWorkspace<Scalar> w(workspace, p);
  const int64_t chunks = (p.frames + kFramesPerChunk - 1) / kFramesPerChunk;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t n = chunk / chunks, t0 = chunk % chunks * kFramesPerChunk;
    const int64_t t1 = t0 + kFramesPerChunk < p.frames ? t0 + kFramesPerChunk : p.frames;
    const int64_t frames = frames_to_read(p, n), used = frames < t0 ? t0 : frames < t1 ? frames : t1;
    if (t0 < used) score_frames<Element>(p, n, t0, used, w);
    const FrameScalars<Scalar> frame(p, n);
    clear(frame.blank + used, t1 - used);
    if (p.from_logits) {
      clear(frame.max + used, t1 - used);
      clear(frame.log2_sum + used, t1 - used);
    }
    if (!p.need_grad) continue;
    clear(static_cast<Scalar*>(p.occupancy) + (n * p.frames + used) * p.max_length, (t1 - used) * p.max_length);
  }
}

}  // namespace

size_t ctc_loss_scores_workspace(const CtcLossParams& p) {
  if (p.dtype == DType::kFloat64) return ScoresWorkspace<double>(nullptr, p).size;
  return ScoresWorkspace<float>(nullptr, p).size;
}

void ctc_loss_scores(const CtcLossParams& p, int64_t begin, int64_t end, void* workspace) {
  const FlushDenormals flush;
  with_element(p.dtype, [&](auto element) { scores<decltype(element)>(p, begin, end, workspace); });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

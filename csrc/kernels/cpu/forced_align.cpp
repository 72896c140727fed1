// Forced alignment on the CPU, compiled once per instruction set (FASTCTC_ISA).
//
// Tiles of frames go through blocks of slots, whose states stay in registers. The score of a class that occurs in the
// target is read once per frame: a table of columns, from which the labels of a block take theirs, transposed. Short
// rows are transposed whole, which is faster than one load per class and frame.
//
//            frames 0..15    16..31                 table, of one tile: a row of kTile frames for each column
//   block 0  [  tile  ]     [  tile  ]                  blank | nothing | star | classes of the target
//               | carries: label states at the edge
//   block 1  [  tile  ]     [  tile  ]
#include "../forced_align.h"

#include <cstring>

#include "../../math/viterbi.h"
#include "../workspace.h"
#include "frame_tile.h"
#include "targets.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

using D = Lanes<double>;

constexpr int kRegisters = 4;              // of slots in a block
constexpr int kBlock = kRegisters * D::N;  // slots
constexpr int kFrames = int(kAlignTile);   // of a tile
constexpr int64_t kShortRow = 128;         // classes; longer rows are not transposed
enum Column { kBlankColumn, kNothing, kStar, kFirstLabel };

// The bits of a block in one frame.
template <int bits>
struct WordOf;
template <>
struct WordOf<32> {
  using type = uint32_t;
};
template <>
struct WordOf<16> {
  using type = uint16_t;
};
template <>
struct WordOf<8> {
  using type = uint8_t;
};
struct Bits {
  WordOf<kBlock>::type from_label, moved;
};

// Blocks of `slots` slots; how many a path can cross in `frames` frames.
int64_t blocks_of(int64_t slots) { return (slots + kBlock - 1) / kBlock; }
int64_t blocks_crossed(int64_t frames, int64_t blocks) {
  const int64_t crossed = blocks_of(frames + 1) + 1;
  return crossed < blocks ? crossed : blocks;
}

template <class Scalar>
struct AlignWorkspace {
  static constexpr int64_t N = Lanes<Scalar>::N;
  bool whole;            // are the bits of all frames kept, or of one segment?
  int64_t segment;       // frames
  int64_t blocks;        // of slots
  int32_t* column_of;    // (C) the column of a class; 0: none yet
  int64_t* classes;      // (columns) the class of each column; from kFirstLabel on
  int32_t* columns;      // (slots) of the labels; kNothing from label S on
  uint8_t* skip;         // (slots) may_skip
  bool transposed;       // are the rows of a tile transposed?
  Scalar* rows;          // (kFrames, C), or (1, C) if not transposed
  Scalar* tile;          // (C, kFrames) if transposed
  Scalar* table;         // (columns, kFrames)
  Scalar* emissions;     // (kFrames, kBlock)
  double* denominators;  // (T) of logits
  double* carries;       // (kFrames)
  double* states;        // (snapshots + 1, 2, slots)
  Bits* bits;            // (frames, blocks)
  size_t size;

  AlignWorkspace(void* base, const ForcedAlignParams& p, int64_t frames, int64_t length) {
    const CtcLossParams& q = p.loss;
    Workspace w(base);
    blocks = blocks_of(length + 1);
    const int64_t all_bits = q.frames * blocks_of(q.max_length + 1) * int64_t(sizeof(Bits));
    whole = all_bits <= p.kept_bytes;
    segment = alignment_segment(p);
    column_of = w.take<int32_t>(q.classes);
    const int64_t most = kFirstLabel + (length < q.classes ? length : q.classes);
    classes = w.take<int64_t>(most);
    columns = w.take<int32_t>(slots());
    skip = w.take<uint8_t>(slots());
    transposed = q.classes <= kShortRow && (q.from_logits || q.classes <= length);
    rows = w.take<Scalar>(q.classes <= kShortRow ? kFrames * q.classes : q.classes);
    tile = w.take<Scalar>(q.classes <= kShortRow ? kFrames * q.classes : 0);
    table = w.take<Scalar>(most * kFrames);
    emissions = w.take<Scalar>(kFrames * kBlock);
    denominators = w.take<double>(q.from_logits ? frames + kFrames : 0);
    carries = w.take<double>(kFrames);
    const int64_t snapshots = whole ? 1 : (frames + segment - 1) / segment + 1;
    states = w.take<double>((snapshots + 1) * state_size());
    const int64_t rows = whole || frames < segment ? frames : segment;
    bits = w.take<Bits>(rows * (whole ? blocks : blocks_crossed(rows, blocks)));
    size = w.size();
  }
  int64_t slots() const { return blocks * kBlock; }
  int64_t state_size() const { return 2 * slots(); }
  double* snapshot(int64_t s) const { return states + s * state_size(); }
};

// Where the bits of some frames and blocks are.
struct BitRows {
  Bits* bits = nullptr;  // null: they are not kept
  int64_t first_frame = 0, first_block = 0, stride = 0;
  Bits* at(int64_t t, int64_t block) const { return bits + (t - first_frame) * stride + (block - first_block); }
};

template <class Element>
class Alignment {
  using Scalar = typename ScalarOf<Element>::type;
  using L = Lanes<Scalar>;
  using F = typename D::F;
  using M = typename D::M;

 public:
  Alignment(const ForcedAlignParams& p, int64_t n, void* workspace)
      : p_(p.loss),
        n_(n),
        frames_(p_.input_lengths[n]),
        length_(p_.target_lengths[n]),
        labels_(p_.targets + p_.target_offsets[n]),
        path_(p.paths + n * p_.frames),
        scores_(static_cast<Scalar*>(p.scores) + n * p_.frames),
        w_(workspace, p, frames_, length_) {
    make_columns();
  }

  // Fills in the frames that are used, if there is a path.
  Status run() {
    double* states = w_.snapshot(0);
    for (int64_t i = 0; i < w_.state_size(); ++i) states[i] = -double(INFINITY);
    blanks(states)[0] = 0;
    const BitRows whole = {w_.whole ? w_.bits : nullptr, 0, 0, w_.blocks};
    const int64_t segment = w_.whole ? (frames_ > 0 ? frames_ : 1) : w_.segment;
    const int64_t segments = (frames_ + segment - 1) / segment;
    for (int64_t s = 0; s < segments; ++s) {
      if (!w_.whole) {
        memcpy(w_.snapshot(s + 1), states, size_t(w_.state_size()) * sizeof(double));
        states = w_.snapshot(s + 1);
      }
      walk(states, s * segment, end_of(s, segment), {0, length_}, false, whole);
    }
    if (L::any(L::invert(finite_))) return kNotANumber;
    const double last_blank = blanks(states)[length_];
    const double last_label = length_ > 0 ? labels(states)[length_ - 1] : -double(INFINITY);
    if (!(D::max(D::set(last_blank), D::set(last_label))[0] > -double(INFINITY))) return kInfeasible;
    place_ = best_end(last_blank, last_label, length_);
    if (w_.whole) {
      trace(0, frames_, whole);
      return kOk;
    }
    for (int64_t s = segments - 1; s >= 0; --s) go_back(s);
    return kOk;
  }

 private:
  double* blanks(double* states) const { return states; }
  double* labels(double* states) const { return states + w_.slots(); }
  int64_t end_of(int64_t s, int64_t segment) const { return (s + 1) * segment < frames_ ? (s + 1) * segment : frames_; }

  // Segment s again, for its bits, in the slots from which the path can get to where it is.
  void go_back(int64_t s) {
    const int64_t t0 = s * w_.segment, t1 = end_of(s, w_.segment), reach = place_.slot - (t1 - t0);
    const BitRows rows = {w_.bits, t0, (reach > 0 ? reach : 0) / kBlock, blocks_crossed(t1 - t0, w_.blocks)};
    double* const states = w_.snapshot(s + 1);
    memcpy(states, w_.snapshot(s), size_t(w_.state_size()) * sizeof(double));
    walk(states, t0, t1, {0, place_.slot}, true, rows);
    trace(t0, t1, rows);
  }

  void make_columns() {
    memset(w_.column_of, 0, size_t(p_.classes) * sizeof(int32_t));
    columns_ = kFirstLabel;
    for (int64_t i = 0; i < w_.slots(); ++i) {
      w_.skip[i] = may_skip(labels_, i, length_);
      w_.columns[i] = kNothing;
      if (i >= length_) continue;
      if (labels_[i] == p_.star) {
        w_.columns[i] = kStar;
        continue;
      }
      int32_t& column = w_.column_of[labels_[i]];
      if (column == 0) {
        w_.classes[columns_] = labels_[i];
        column = columns_++;
      }
      w_.columns[i] = column;
    }
    for (int64_t i = 0; i < columns_ * kFrames; ++i) w_.table[i] = 0;
    for (int f = 0; f < kFrames; ++f) w_.table[kNothing * kFrames + f] = Scalar(-INFINITY);
  }

  // Frames [t0, t1) in the slots that matter: those on paths through `range`, and, if only `last` matters in the end,
  // those from which it can be reached.
  void walk(double* states, int64_t t0, int64_t t1, SlotRange range, bool only_last, const BitRows& rows) {
    for (int64_t t = t0; t < t1; t += kFrames) {
      const int64_t end = t + kFrames < t1 ? t + kFrames : t1;
      SlotRange slots = slots_on_paths(t, end, frames_, length_);
      if (only_last && slots.first < range.last - (t1 - t)) slots.first = range.last - (t1 - t);
      if (slots.last > range.last) slots.last = range.last;
      fill_table(t, int(end - t));
      for (int f = 0; f < kFrames; ++f) w_.carries[f] = -double(INFINITY);
      for (int64_t block = slots.first / kBlock; block * kBlock <= slots.last; ++block) {
        emissions(block * kBlock);
        const int64_t left = length_ + 1 - block * kBlock;
        const int registers = left < kBlock ? int((left + D::N - 1) / D::N) : kRegisters;
        if (rows.bits) {
          tile<true, kRegisters>(registers, states, block, int(end - t), rows.at(t, block), rows.stride);
        } else {
          tile<false, kRegisters>(registers, states, block, int(end - t), nullptr, 0);
        }
      }
    }
  }

  // The sums of row_of(), in another order, would make run() a tenth slower.
  const Element* row(int64_t t) const {
    return static_cast<const Element*>(p_.input) + n_ * p_.stride_n + t * p_.stride_t;
  }

  // The table of frames [t0, t0 + count).
  void fill_table(int64_t t0, int count) {
    if (w_.transposed) fill_tile(t0, count);
    if (p_.from_logits && t0 >= denominators_) find_denominators(t0, count);
    if (!w_.transposed) read_columns(t0, count);
    const double* const denominators = p_.from_logits ? w_.denominators + t0 : nullptr;
    const auto infinity = L::set(Scalar(INFINITY)), zero = L::set(Scalar(kZeroLog));
    auto finite = finite_;
    for (int32_t d = 0; d < columns_; d = d == kBlankColumn ? int32_t(kFirstLabel) : d + 1) {
      Scalar* const to = w_.table + d * kFrames;
      const Scalar* const from =
          w_.transposed ? w_.tile + (d == kBlankColumn ? p_.blank : w_.classes[d]) * kFrames : to;
      for (int f = 0; f < kFrames; f += L::N) {
        auto x = L::load(from + f);
        if (denominators) x = minus<Scalar>(x, denominators + f);
        finite = L::both(finite, L::less(L::select(L::first(count - f), x, -infinity), infinity));
        L::store(to + f, L::select(L::less(x, zero), -infinity, x));
      }
    }
    finite_ = finite;
  }

  // The rows of a tile, transposed. The last row stands for those after it.
  void fill_tile(int64_t t0, int count) {
    const Scalar* rows[kFrames];
    for (int f = 0; f < kFrames; ++f) {
      rows[f] =
          f < count ? contiguous_row(row(t0 + f), p_.stride_c, p_.classes, w_.rows + f * p_.classes) : rows[f - 1];
    }
    transpose_rows<kFrames>(rows, p_.classes, w_.tile);
  }

  // The scores of the columns, one by one.
  void read_columns(int64_t t0, int count) const {
    const Element* x = row(t0);
    for (int f = 0; f < count; ++f, x += p_.stride_t) {
      Scalar* const out = w_.table + f;
      out[kBlankColumn * kFrames] = to_scalar(x[p_.blank * p_.stride_c]);
      for (int32_t d = kFirstLabel; d < columns_; ++d) out[d * kFrames] = to_scalar(x[w_.classes[d] * p_.stride_c]);
    }
  }

  void find_denominators(int64_t t0, int count) {
    Scalar max[kFrames], sum[kFrames];
    if (w_.transposed) {
      softmax_sums<kFrames>(w_.tile, p_.classes, max, sum);
    } else {
      for (int f = 0; f < kFrames; ++f) {
        SoftmaxSum<Scalar> found = {0, 1};
        if (f < count) {
          const Scalar* const x = contiguous_row(row(t0 + f), p_.stride_c, p_.classes, w_.rows);
          const bool fetch = x != w_.rows && t0 + f + 1 < frames_;
          found = softmax_sum(x, p_.classes, row_max(x, p_.classes), fetch ? x + p_.stride_t : nullptr);
        }
        max[f] = found.max;
        sum[f] = found.sum;
      }
    }
    for (int f = 0; f < kFrames; f += D::N) {
      const F each = D::load_converted(sum + f);
      const F log = D::select(D::nonzero(each), log_of<D>(each), D::set(NAN));
      D::store(w_.denominators + t0 + f, D::load_converted(max + f) + log);
    }
    denominators_ = t0 + count;
  }

  // The emissions of a block, frame after frame.
  void emissions(int64_t i0) const {
    for (int i = 0; i < kBlock && i0 + i <= length_; i += L::N) {
      for (int f = 0; f < kFrames; f += L::N) {
        typename L::F x[L::N];
        FASTCTC_UNROLL for (int k = 0; k < L::N; ++k) {
          x[k] = L::load(w_.table + w_.columns[i0 + i + k] * kFrames + f);
        }
        L::transpose(x);
        FASTCTC_UNROLL for (int k = 0; k < L::N; ++k) L::store(w_.emissions + (f + k) * kBlock + i, x[k]);
      }
    }
  }

  // A tile of a block of K registers.
  template <bool kKeep, int K>
  void tile(int registers, double* states, int64_t block, int count, Bits* bits, int64_t stride) const {
    if constexpr (K > 1) {
      if (registers < K) return tile<kKeep, K - 1>(registers, states, block, count, bits, stride);
    }
    double *const blanks_at = blanks(states) + block * kBlock, *const labels_at = labels(states) + block * kBlock;
    const Scalar* const blank = w_.table + kBlankColumn * kFrames;
    const Scalar* x = w_.emissions;
    double* const carries = w_.carries;
    F b[K], e[K];
    M skip[K];
    FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
      b[c] = D::load(blanks_at + c * D::N);
      e[c] = D::load(labels_at + c * D::N);
      skip[c] = D::load_mask<K>(w_.skip + block * kBlock, c);
    }
    for (int f = 0; f < count; ++f, x += kBlock) {
      const F carry = D::set(carries[f]), blank_score = D::set(double(blank[f]));
      D::store_edge<Direction::kForward, K>(carries + f, [&](int c) { return e[c]; });
      F s[K];
      FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
        s[c] = D::neighbor<Direction::kForward, K>(c, carry, [&](int k) { return e[k]; });
      }
      uint32_t from_label = 0, moved = 0;
      FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
        const Arrivals<D> arrivals = best_transition<D>(b[c], e[c], s[c], skip[c]);
        b[c] += blank_score;
        e[c] += D::load_converted(x + c * D::N);
        if (kKeep) {
          from_label |= D::bits(arrivals.from_label) << (c * D::N);
          moved |= D::bits(arrivals.moved) << (c * D::N);
        }
      }
      if (kKeep) bits[f * stride] = {decltype(Bits::moved)(from_label), decltype(Bits::moved)(moved)};
    }
    FASTCTC_UNROLL for (int c = 0; c < K; ++c) {
      D::store(blanks_at + c * D::N, b[c]);
      D::store(labels_at + c * D::N, e[c]);
    }
  }

  // The path in frames [t0, t1), from place_ at the last of them to place_ before the first.
  void trace(int64_t t0, int64_t t1, const BitRows& rows) {
    Place place = place_;  // the compiler would write a member to memory in each frame
    for (int64_t t = t1 - 1; t >= t0; --t) {
      const int64_t label = place.is_label ? labels_[place.slot] : p_.blank;
      path_[t] = label;
      scores_[t] = returned_score(score(t, label), p_.dtype);
      const Bits bits = *rows.at(t, place.slot / kBlock);
      const int shift = int(place.slot % kBlock);
      place = previous_place(place, bits.from_label >> shift & 1, bits.moved >> shift & 1, w_.skip[place.slot]);
    }
    place_ = place;
  }
  Scalar score(int64_t t, int64_t label) const {
    if (label == p_.star) return 0;
    const Element* const x = row(t);
    const Scalar value = to_scalar(x[label * p_.stride_c]);
    return p_.from_logits ? Scalar(double(value) - w_.denominators[t]) : value;
  }

  const CtcLossParams& p_;
  const int64_t n_, frames_, length_;
  const int64_t* const labels_;
  int64_t* const path_;
  Scalar* const scores_;
  const AlignWorkspace<Scalar> w_;
  int32_t columns_ = 0;
  int64_t denominators_ = 0;  // frames that have theirs
  typename L::M finite_ = L::less(L::set(0), L::set(1));
  Place place_ = {0, false};
};

template <class Element>
void align(const ForcedAlignParams& p, int64_t n, void* workspace) {
  using Scalar = typename ScalarOf<Element>::type;
  const CtcLossParams& q = p.loss;
  Status status = sample_is_valid(q, n) ? kInfeasible : kInvalid;
  if (status == kInfeasible && target_fits(q, n)) status = Alignment<Element>(p, n, workspace).run();
  q.status[n] = status;
  const Scalar rest = status == kOk ? Scalar(0) : status == kInfeasible ? Scalar(-INFINITY) : Scalar(NAN);
  for (int64_t t = status == kOk ? q.input_lengths[n] : 0; t < q.frames; ++t) {
    p.paths[n * q.frames + t] = q.blank;
    static_cast<Scalar*>(p.scores)[n * q.frames + t] = rest;
  }
}

}  // namespace

size_t forced_align_workspace(const ForcedAlignParams& p) {
  return with_element(p.loss.dtype, [&](auto element) {
    using Scalar = typename ScalarOf<decltype(element)>::type;
    return AlignWorkspace<Scalar>(nullptr, p, p.loss.frames, p.loss.max_length).size;
  });
}

void forced_align(const ForcedAlignParams& p, int64_t begin, int64_t end, void* workspace) {
  with_element(p.loss.dtype, [&](auto element) {
    for (int64_t n = begin; n < end; ++n) align<decltype(element)>(p, n, workspace);
  });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

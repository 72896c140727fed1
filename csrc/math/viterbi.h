// The most probable path through the lattice of lattice.h (Viterbi), for both machines: sums of the forward recursion
// become maxima, products become sums of natural logarithms.
//
// As in recursion.h slot j holds blank j (before label j) and label j:
//
//   blank'[j] = max(blank[j], label[j-1])                                     + log p(blank)
//   label'[j] = max(label[j], [skip_j] label[j-1], blank[j])                  + log p(label j)
//
// There are only sums and comparisons, of doubles: every machine finds the same path. Of equally probable ways into a
// state, staying in it is preferred, then coming from the blank before it, then skipping that blank; and at the end the
// last label is preferred to the last blank. So, from the end backwards, each state is entered as early as it can be.
//
// What is kept to find the path is one bit for each state:
//   from_label[j]   blank j comes from label j - 1, else it stayed
//   moved[j]        label j comes from label j - 1 where it may skip the blank and from_label[j], else from blank j;
//                   not moved: it stayed
#pragma once

#include <cstdint>

#include "emission.h"

namespace fastctc {

template <class W>
struct Arrivals {
  typename W::M from_label, moved;
};

// The states of one more frame, without its scores. `s` is label j - 1.
template <class W>
FASTCTC_HD Arrivals<W> best_transition(typename W::F& blank, typename W::F& label, typename W::F s,
                                       typename W::M skip) {
  Arrivals<W> arrivals;
  arrivals.from_label = W::less(blank, s);
  const auto into_blank = W::select(arrivals.from_label, s, blank);
  const auto into_label = W::select(skip, into_blank, blank);
  arrivals.moved = W::less(label, into_label);
  label = W::select(arrivals.moved, into_label, label);
  blank = into_blank;
  return arrivals;
}

// Where a path is in some frame.
struct Place {
  int64_t slot;
  bool is_label;
};

// Where it ends, from the states after the last frame.
FASTCTC_HD Place best_end(double last_blank, double last_label, int64_t length) {
  if (length == 0 || last_blank > last_label) return {length, false};
  return {length - 1, true};
}

// Where it was one frame earlier; `skip` as of may_skip.
FASTCTC_HD Place previous_place(Place at, bool from_label, bool moved, bool skip) {
  if (!at.is_label) return from_label ? Place{at.slot - 1, true} : at;
  if (!moved) return at;
  return skip && from_label ? Place{at.slot - 1, true} : Place{at.slot, false};
}

// The same for 32 slots as the bits of two words; the first slot is bit 0. The place is the one bit that is set. No bit
// is set if the place is the label of the slot before the first.
struct PlaceBits {
  uint32_t blank, label;
};
FASTCTC_HD PlaceBits previous_place(PlaceBits at, uint32_t from_label, uint32_t moved, uint32_t skip) {
  const uint32_t skips = moved & skip & from_label;
  return {(at.blank & ~from_label) | (at.label & moved & ~skips),
          ((at.blank & from_label) | (at.label & skips)) >> 1 | (at.label & ~moved)};
}

// The score of a class in the recursion: masked classes have probability zero.
template <class Scalar>
FASTCTC_HD double path_score(Scalar log_prob) {
  return log_prob < Scalar(kZeroLog) ? -double(INFINITY) : double(log_prob);
}

// Slots that a path can be in between frames `from - 1` and `to`, of `frames`, and end in the last label.
struct SlotRange {
  int64_t first, last;
};
FASTCTC_HD SlotRange slots_on_paths(int64_t from, int64_t to, int64_t frames, int64_t length) {
  const int64_t first = length - (frames - from) - 1;
  return {first > 0 ? first : 0, to - 1 < length ? to - 1 : length};
}

}  // namespace fastctc

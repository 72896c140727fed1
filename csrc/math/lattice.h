// The CTC lattice of one sequence (Graves et al., 2006, section 4.1).
//
// The extended label of S labels has L = 2S + 1 states: a blank before, between and after the labels.
//
//   frame     0    1    2   ...        b[i]: the blank before label i, i = 0..S
//   b[0]      o -> o -> o              e[i]: label i,                  i = 0..S-1
//                \    \                arcs: stay; blank to label; label to blank; and label i-1 to label i
//   e[0]      o -> o -> o              directly ("skip") where the two labels differ
//                \ \  \ \.
//   b[1]      o -> o -> o
//                \    \                a path starts in b[0] or e[0] and ends in e[S-1] or b[S]
//
// A label can be the blank's class. It is a label all the same: it differs from the blanks around it by its place in
// the lattice alone.
#pragma once

#include <cstdint>

#include "scaled_float.h"

namespace fastctc {

// What became of a sample; larger values win where several frames report.
enum Status : int32_t {
  kOk = 0,
  kInfeasible = 1,  // no path: loss +inf, gradient 0
  kNotANumber = 2,  // a NaN or +inf was read: loss and gradient NaN
  kInvalid = 3,     // a label or a length is out of range: loss NaN, gradient 0
  kTooWide = 4,     // not done: exponents beyond the exact range of a float (cpu::ctc_loss_forward)
};

// May a path go from label i-1 to label i without the blank between them?
FASTCTC_HD bool may_skip(const int64_t* labels, int64_t i, int64_t length) {
  return i > 0 && i < length && labels[i] != labels[i - 1];
}

// The lengths and labels of one sample, checked against the sizes of the tensors.
FASTCTC_HD bool lengths_are_valid(int64_t frames, int64_t max_frames, int64_t length, int64_t offset, int64_t end) {
  return frames >= 0 && frames <= max_frames && length >= 0 && offset >= 0 && length <= end - offset;
}
FASTCTC_HD bool label_is_valid(int64_t label, int64_t classes, int64_t star) {
  return (label >= 0 && label < classes) || (star >= 0 && label == star);
}

}  // namespace fastctc

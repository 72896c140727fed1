// Deterministic weighted automata with failure arcs (fastctc.Automaton): one more label, for both machines.
//
//   a state with an arc of the label     its weight, its next state
//   a state with an arc for all others   the same with that arc (kOtherwise, the first one of its state)
//   else                                 the weight of its failure arc, then the same from the state that it leads to
//   without a failure arc                the label is rejected
//
// Weights are natural logarithms in float. Their sums are in double, in the order of the arcs, so they have the same
// bits on every machine.
#pragma once

#include <cmath>
#include <cstdint>

#include "log_space.h"

namespace fastctc {

constexpr int32_t kRejected = -1;   // the state after a rejected label
constexpr int32_t kOtherwise = -1;  // the label of an arc for all labels without an arc of their own

struct AutomatonView {
  const int32_t* first_arc;           // (states + 1)
  const int32_t *label, *next_state;  // (arcs)
  const float* weight;                // (arcs)
  const int32_t* failure_state;       // (states) -1: none
  const float *failure_weight, *final_weight;
  const float* largest_weight;  // (states) no label has more, through failure arcs or not
  const int32_t* dense;         // (dense_labels) of each label: its arc from dense_state; -1: none
  int32_t start, dense_state, dense_labels;
};

// A state and the sum of the weights on the way to it; kRejected and -inf.
struct Step {
  int32_t state;
  double weight;
};
constexpr Step kNoStep = {kRejected, -double(INFINITY)};

// The arc of a label in a state alone, or -1.
FASTCTC_HD int32_t find_arc(const AutomatonView& a, int32_t state, int32_t label) {
  int32_t low = a.first_arc[state], end = a.first_arc[state + 1];
  if (low == end) return -1;
  const int32_t otherwise = a.label[low] == kOtherwise ? low : -1;
  if (state == a.dense_state) {
    const int32_t arc = label < a.dense_labels ? a.dense[label] : -1;
    return arc >= 0 ? arc : otherwise;
  }
  const int32_t dense = low + (label - a.label[low]);  // its place if there is no gap before it
  if (dense >= low && dense < end && a.label[dense] == label) return dense;
  while (end - low > 1) {
    const int32_t middle = low + (end - low) / 2;
    (a.label[middle] <= label ? low : end) = middle;
  }
  return a.label[low] == label ? low : otherwise;
}

FASTCTC_HD Step step(const AutomatonView& a, int32_t state, int32_t label) {
  for (double sum = 0; state >= 0; state = a.failure_state[state]) {
    const int32_t arc = find_arc(a, state, label);
    if (arc >= 0) {
      sum += double(a.weight[arc]);
      return sum > -double(INFINITY) ? Step{a.next_state[arc], sum} : kNoStep;
    }
    sum += double(a.failure_weight[state]);
  }
  return kNoStep;
}

// The arcs of single labels in a state alone are its first ones to look at: [first, end).
struct ArcRange {
  int32_t first, end;
};
FASTCTC_HD ArcRange own_arcs(const AutomatonView& a, int32_t state) {
  ArcRange arcs = {a.first_arc[state], a.first_arc[state + 1]};
  if (arcs.first < arcs.end && a.label[arcs.first] == kOtherwise) ++arcs.first;
  return arcs;
}

// No other label has more weight.
FASTCTC_HD double rest_bound(const AutomatonView& a, int32_t state) {
  const int32_t first = a.first_arc[state], failure = a.failure_state[state];
  if (own_arcs(a, state).first > first) return double(a.weight[first]);
  return failure < 0 ? -double(INFINITY) : double(a.failure_weight[state]) + double(a.largest_weight[failure]);
}

}  // namespace fastctc

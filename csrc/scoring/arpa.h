// Backoff n-gram models: from the text of an ARPA file to a deterministic weighted automaton with failure arcs.
//
//   state  a context, the last words that matter to the next: it has successors, or a backoff weight that is not 1
//   arc    a word after a context, with ln P(word | context); it leads to the longest context that is a state
//   failure arc: to the longest shorter context that is a state, with the natural logarithm of the backoff weight
//
// State 0 is the empty context. It has an arc for each word, so every walk along failure arcs ends.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastctc {

constexpr int kLargestOrder = 6;

// The message begins with the number of the line: "line 7: expected ..., got ...".
struct ArpaError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

struct NgramAutomaton {
  std::string words;                 // the words by label, each followed by '\n'; the label of a word is its place
  std::vector<int32_t> first_arc;    // (states + 1) the arcs of state s are [first_arc[s], first_arc[s + 1])
  std::vector<int32_t> failure;      // (states) -1: none
  std::vector<float> backoff;        // (states) natural logarithms
  std::vector<float> end;            // (states) ln P(</s> | context), by way of failure arcs; empty without </s>
  std::vector<int32_t> label, next;  // (arcs) by state, then by label; <s> and </s> have none
  std::vector<float> weight;         // (arcs) natural logarithms
  int32_t begin = -1;                // the state after <s>; -1 without <s>
  int32_t unknown = -1;              // the label of <unk>, which is added with the weight `missing_unknown`
};

// `missing_unknown`: log10 P(<unk>) for a model without <unk>. Throws ArpaError.
NgramAutomaton read_arpa(const char* text, size_t size, double missing_unknown);

}  // namespace fastctc

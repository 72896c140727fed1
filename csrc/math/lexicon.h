// Words with spellings in tokens, weighed by an automaton over words (fastctc.scoring.LexiconScorer).
//
// The spellings are a trie. Within a word a token leads from a node to a child, and its weight is the change of the
// look-ahead. The end of a word adds its weight in the model and what the look-ahead left:
//
//   words are separated by         a token leads
//   kSeparator: a token            from a node with words to the root, for each of them; else to a child
//   kWordBegin: tokens that begin  for those: from a node with words to the root for each, and on to a child of it;
//     a word                       for others: to a child
//   kNothing                       to a child with children, and for each word of the child to the root
//
// Where no child has the token, or no word ends, the word is an unknown one if those are allowed: the token leads out
// of the trie, up to the next boundary.
#pragma once

#include "automaton.h"

namespace fastctc {

enum class Boundary : int32_t { kNothing, kSeparator, kWordBegin };

constexpr int32_t kRoot = 0, kOutside = -1;  // nodes
constexpr int32_t kNoWord = -1;

struct LexiconView {
  const int32_t *first_arc, *label;  // (nodes + 1), (nodes - 1); arc a leads to node a + 1
  const int32_t *first_end, *word;   // (nodes + 1), (spellings)
  const double* end_value;           // (spellings) what the end of the word adds to its weight in the model
  const double* look_ahead;          // (nodes)
  const double* inner_bound;         // (nodes) bounds of the weights of tokens: of those that end no word,
  const double* end_bound;           // (nodes) of those that end one, and the same without
  const double* end_value_bound;     // (nodes) its weight in the model
  const double* arc_bound;           // (nodes) a bound of the weight of the token that leads to the node
  const int32_t* model_label;        // (words + 1) labels of the model; the last one stands for unknown words
  const double* word_bound;          // (words + 1) bounds of their weights in the model
  const uint8_t* begins;             // (begin_labels) of each token: does it begin a word?
  int32_t words, separator, begin_labels;
  Boundary boundary;
  double unknown_word;  // added for each unknown word; -inf forbids them
};

// One way to take a token, or to end.
struct WordArc {
  int32_t node, model;  // states
  int32_t word;         // that ends
  double weight;        // -inf: there is no such way
};

// Where a token leads. Each of the choices is a WordArc.
struct WordPlace {
  int32_t ends_at;  // the node whose words end before the token, or kNothingEnds
  int32_t child;    // kRoot: only a word ends; kOutside: the token is in no word of the lexicon
  int32_t choices;  // 0: the token is rejected
};
constexpr int32_t kNothingEnds = -2;

FASTCTC_HD int32_t count_words(const LexiconView& l, int32_t node) { return l.first_end[node + 1] - l.first_end[node]; }

FASTCTC_HD int32_t find_child(const LexiconView& l, int32_t node, int32_t token) {
  int32_t low = l.first_arc[node], end = l.first_arc[node + 1];
  if (low == end) return kOutside;
  const int32_t dense = low + (token - l.label[low]);  // its place if there is no gap before it
  if (dense >= low && dense < end && l.label[dense] == token) return dense + 1;
  while (end - low > 1) {
    const int32_t middle = low + (end - low) / 2;
    (l.label[middle] <= token ? low : end) = middle;
  }
  return l.label[low] == token ? low + 1 : kOutside;
}

// How many words may end at a node. An unknown one does if no other does.
FASTCTC_HD int32_t ways_to_end(const LexiconView& l, int32_t node) {
  if (node == kRoot || node == kOutside) return 1;
  const int32_t words = count_words(l, node);
  return words == 0 && l.unknown_word > -double(INFINITY) ? 1 : words;
}

FASTCTC_HD WordPlace find_place(const LexiconView& l, int32_t node, int32_t token) {
  WordPlace p = {kNothingEnds, kRoot, 1};
  if (l.boundary == Boundary::kSeparator && token == l.separator) {
    p.ends_at = node;
    p.choices = ways_to_end(l, node);
    return p;
  }
  if (l.boundary == Boundary::kWordBegin && token < l.begin_labels && l.begins[token] && node != kRoot) {
    p.ends_at = node;
    p.choices = ways_to_end(l, node);
    node = kRoot;
  }
  p.child = node == kOutside ? kOutside : find_child(l, node, token);
  if (p.child == kOutside && node != kOutside && !(l.unknown_word > -double(INFINITY))) p.choices = 0;
  if (l.boundary == Boundary::kNothing && p.child > kRoot) p.choices = 1 + count_words(l, p.child);
  return p;
}

// The word that ends with this way to take a token.
FASTCTC_HD int32_t word_of(const LexiconView& l, const WordPlace& place, int32_t choice) {
  if (place.ends_at == kRoot) return kNoWord;
  if (place.ends_at == kOutside) return l.words;
  if (place.ends_at != kNothingEnds) {
    return count_words(l, place.ends_at) == 0 ? l.words : l.word[l.first_end[place.ends_at] + choice];
  }
  return choice == 0 ? kNoWord : l.word[l.first_end[place.child] + choice - 1];
}

// Adds a word to an arc. Its weight becomes -inf where no word can end, or where it would be below `least`.
// model(state, label) is a step of the automaton over words, here and below.
template <class Model>
FASTCTC_HD void add_word(const LexiconView& l, const Model& model, int32_t word, double value, double least,
                         WordArc& arc) {
  if (arc.weight + (value + l.word_bound[word]) < least) {
    arc.weight = -double(INFINITY);
    return;
  }
  const Step s = model(arc.model, l.model_label[word]);
  arc.model = s.state;
  arc.weight += s.weight + value;
}

// The choice-th word ends at a node.
template <class Model>
FASTCTC_HD void end_word(const LexiconView& l, const Model& model, int32_t node, int32_t choice, double least,
                         WordArc& arc) {
  arc.node = kRoot;
  if (node == kRoot) return;
  const int32_t end = node == kOutside ? 0 : l.first_end[node] + choice;
  arc.word = node == kOutside || count_words(l, node) == 0 ? l.words : l.word[end];
  if (node == kOutside) return;
  const double value = arc.word == l.words ? l.unknown_word - l.look_ahead[node] : l.end_value[end];
  add_word(l, model, arc.word, value, least, arc);
}

// The way of this number to take a token that leads from `node` to `place`. If its weight would be below `least`, it
// may be -inf.
template <class Model>
FASTCTC_HD WordArc take_token(const LexiconView& l, const Model& model, int32_t node, int32_t model_state,
                              const WordPlace& place, int32_t choice, double least) {
  WordArc arc = {node, model_state, kNoWord, 0.0};
  if (place.ends_at != kNothingEnds) {
    const bool goes_on = place.child != kRoot;  // with weights that may be above 0
    end_word(l, model, place.ends_at, choice, goes_on ? -double(INFINITY) : least, arc);
    if (!goes_on || !(arc.weight > -double(INFINITY))) return arc;
  }
  if (place.child == kOutside) {
    if (arc.node == kOutside) return arc;
    add_word(l, model, l.words, l.unknown_word - l.look_ahead[arc.node], least, arc);
    arc.node = kOutside;
    return arc;
  }
  arc.weight += l.look_ahead[place.child] - l.look_ahead[arc.node];
  arc.node = place.child;
  if (l.boundary != Boundary::kNothing) return arc;
  const bool has_children = l.first_arc[arc.node] < l.first_arc[arc.node + 1];
  if (choice == 0 && !has_children) arc.weight = -double(INFINITY);
  if (choice > 0) end_word(l, model, arc.node, choice - 1, least, arc);
  return arc;
}

// The tokens that lead to children, and the separator, have bounds of their own where any token may begin no word.
FASTCTC_HD bool has_own_bounds(const LexiconView& l, int32_t node) {
  return l.boundary != Boundary::kWordBegin || (node > kRoot && ways_to_end(l, node) == 0);
}
FASTCTC_HD double separator_bound(const LexiconView& l, const AutomatonView& model, int32_t node, int32_t model_state) {
  if (node == kRoot || node == kOutside) return 0;
  const double here = l.end_value_bound[node] + double(model.largest_weight[model_state]);
  return here < l.end_bound[node] ? here : l.end_bound[node];
}
// No other token has more weight.
FASTCTC_HD double rest_bound(const LexiconView& l, int32_t node) {
  if (node == kOutside) return 0;
  return l.unknown_word + l.word_bound[l.words] - l.look_ahead[node];
}

// No token has more weight.
FASTCTC_HD double bound_of(const LexiconView& l, const AutomatonView& model, int32_t node, int32_t model_state) {
  if (node == kOutside) node = kRoot;  // whose bounds are of the tokens after a boundary
  const double here = l.end_value_bound[node] + double(model.largest_weight[model_state]);
  const double end = here < l.end_bound[node] ? here : l.end_bound[node];
  const double inner = l.inner_bound[node];
  return inner > end ? inner : end;
}

}  // namespace fastctc

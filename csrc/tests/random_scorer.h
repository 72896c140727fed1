// Random scorers for tests: automata with failure arcs, and lexicons with homophones in all modes.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "../math/scorer.h"

namespace fastctc::testing {

class RandomScorer {
 public:
  // Weights that are multiples of 1/4 make ties.
  RandomScorer(unsigned seed, int classes, int automata, bool has_lexicon, bool ties) : random_(seed), ties_(ties) {
    scorer.count = automata;
    scorer.has_lexicon = has_lexicon;
    const int words = has_lexicon ? 3 + below(12) : 0;
    for (int i = 0; i < automata; ++i) add_automaton(i, has_lexicon && i == 0 ? words + 1 : classes);
    if (has_lexicon) add_lexicon(classes, words);
  }
  RandomScorer(const RandomScorer&) = delete;

  Scorer scorer{};

 private:
  int below(int n) { return int(random_() % unsigned(n)); }
  double weight(int least, int most) {
    if (ties_) return double(4 * least + below(4 * (most - least) + 1)) / 4;
    return least + (random_() + 0.5) / 4294967296.0 * (most - least);
  }

  struct Automaton {
    std::vector<int32_t> first_arc = {0}, label, next_state, failure_state, dense;
    std::vector<float> weight, failure_weight, final_weight, largest_weight;
  };
  // A failure arc leads to a state before. With many labels, half of the states have few arcs.
  void add_automaton(int i, int labels) {
    Automaton& a = automata_[i];
    const int states = 1 + below(6);
    for (int state = 0; state < states; ++state) {
      const bool fails = state > 0 && below(2);
      const int kept = labels > 64 && below(2) ? 2 : 60;  // of 72 labels
      for (int label = below(3) ? 0 : kOtherwise; label < labels; ++label) {
        if (label != kOtherwise && below(72) >= kept) continue;
        a.label.push_back(label);
        a.next_state.push_back(below(states));
        a.weight.push_back(below(12) ? float(weight(-3, 1)) : -INFINITY);
      }
      a.first_arc.push_back(int32_t(a.label.size()));
      a.failure_state.push_back(fails ? below(state) : -1);
      a.failure_weight.push_back(fails ? float(weight(-1, 1)) : 0);
      a.final_weight.push_back(below(8) ? float(weight(-2, 1)) : -INFINITY);
    }
    const int32_t dense_state = below(states + 1) - 1;
    a.dense.assign(size_t(dense_state < 0 ? 0 : labels), -1);
    for (int32_t arc = dense_state < 0 ? 0 : a.first_arc[dense_state];
         dense_state >= 0 && arc < a.first_arc[dense_state + 1]; ++arc) {
      if (a.label[arc] >= 0) a.dense[a.label[arc]] = arc;
    }
    a.largest_weight.assign(size_t(states), 0);
    AutomatonView& view = scorer.automata[i];
    view = {a.first_arc.data(),     a.label.data(),          a.next_state.data(),   a.weight.data(),
            a.failure_state.data(), a.failure_weight.data(), a.final_weight.data(), a.largest_weight.data(),
            a.dense.data(),         below(states),           dense_state,           int32_t(a.dense.size())};
    for (int state = 0; state < states; ++state) {
      double largest = -INFINITY;
      for (int label = 0; label <= labels; ++label) largest = std::max(largest, step(view, state, label).weight);
      a.largest_weight[state] = std::nextafter(float(largest), INFINITY);
    }
  }

  void add_lexicon(int classes, int words) {
    std::map<std::vector<int>, std::vector<int>> words_of;
    for (int word = 0; word < words; ++word) {
      std::vector<int> spelling;
      for (int length = 1 + below(3); length > 0; --length) spelling.push_back(below(std::min(classes, 5)));
      words_of[spelling].push_back(word);
      // A homophone, and a word in a word.
      if (spelling.size() > 1 && below(3) == 0) words_of[{spelling[0]}].push_back(word);
    }
    add_nodes(words_of);
    const int nodes = int(first_arc_.size()) - 1;
    for (int node = 0; node < nodes; ++node) look_ahead_.push_back(node == 0 ? 0 : weight(-2, 0));
    for (int word = 0; word <= words; ++word) model_label_.push_back(word);
    for (int token = 0; token < classes; ++token) begins_.push_back(uint8_t(below(3) == 0));
    for (auto* bounds : {&inner_bound_, &end_bound_, &arc_bound_}) bounds->assign(size_t(nodes), -INFINITY);
    end_value_bound_.assign(size_t(nodes), INFINITY);
    word_bound_.assign(size_t(words) + 1, INFINITY);
    LexiconView& l = scorer.lexicon;
    l.first_arc = first_arc_.data(), l.label = label_.data();
    l.first_end = first_end_.data(), l.word = word_.data(), l.end_value = end_value_.data();
    l.look_ahead = look_ahead_.data(), l.inner_bound = inner_bound_.data(), l.end_bound = end_bound_.data();
    l.end_value_bound = end_value_bound_.data(), l.arc_bound = arc_bound_.data();
    l.model_label = model_label_.data(), l.word_bound = word_bound_.data();
    l.begins = begins_.data(), l.begin_labels = int32_t(begins_.size());
    l.words = words, l.separator = below(classes), l.boundary = Boundary(below(3));
    l.unknown_word = below(2) ? weight(-4, 0) : -INFINITY;
    bound(classes, nodes, words);
  }
  // A trie, level by level.
  void add_nodes(const std::map<std::vector<int>, std::vector<int>>& words_of) {
    std::vector<std::vector<int>> prefixes = {{}};
    for (size_t node = 0; node < prefixes.size(); ++node) {
      const std::vector<int> prefix = prefixes[node];
      first_arc_.push_back(int32_t(prefixes.size()) - 1);
      first_end_.push_back(int32_t(word_.size()));
      for (const auto& [spelling, words] : words_of) {
        if (spelling == prefix) {
          for (int word : words) {
            word_.push_back(word);
            end_value_.push_back(weight(-1, 1));
          }
        }
        if (spelling.size() <= prefix.size() || !std::equal(prefix.begin(), prefix.end(), spelling.begin())) continue;
        std::vector<int> child(spelling.begin(), spelling.begin() + int(prefix.size()) + 1);
        if (prefixes.back() == child) continue;
        label_.push_back(child.back());
        prefixes.push_back(child);
      }
    }
    first_arc_.push_back(int32_t(label_.size()));
    first_end_.push_back(int32_t(word_.size()));
  }
  // The least bounds of words, of arcs and of the separator, and one for all tokens of a node.
  void bound(int classes, int nodes, int words) {
    const LexiconView& l = scorer.lexicon;
    const auto model = [&](int32_t state, int32_t label) { return step(scorer.automata[0], state, label); };
    const int states = int(automata_[0].failure_state.size());
    for (int word = 0; word <= words; ++word) {
      word_bound_[word] = -INFINITY;
      for (int state = 0; state < states; ++state) {
        word_bound_[word] = std::max(word_bound_[word], model(state, word).weight);
      }
    }
    for (int i = 0; i < (nodes + 1) * states * classes; ++i) {
      const int32_t node = i / states / classes - 1, state = i / classes % states, token = i % classes;
      const WordPlace place = find_place(l, node, token);
      for (int choice = 0; choice < place.choices; ++choice) {
        const double most = take_token(l, model, node, state, place, choice, -INFINITY).weight;
        const auto raise = [&](double& bound) { bound = std::max(bound, most); };
        raise(inner_bound_[size_t(std::max(node, 0))]);
        if (l.boundary == Boundary::kSeparator && token == l.separator && node > kRoot) raise(end_bound_[node]);
        if (place.ends_at == kNothingEnds && place.child > kRoot) raise(arc_bound_[place.child]);
      }
    }
  }

  std::mt19937 random_;
  bool ties_;
  Automaton automata_[kLargestScorer];
  std::vector<int32_t> first_arc_, label_, first_end_, word_, model_label_;
  std::vector<double> end_value_, look_ahead_, inner_bound_, end_bound_, end_value_bound_, arc_bound_, word_bound_;
  std::vector<uint8_t> begins_;
};

}  // namespace fastctc::testing

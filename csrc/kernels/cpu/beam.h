// The prefix search of one sample.
//
// Most frames take three steps: the stays of all prefixes, in vectors; one pass over the row, which finds no class that
// could bring a new prefix into the beam; and a look at the ranks, which have not changed.
#pragma once

#include <algorithm>
#include <cmath>

#include "beam_scratch.h"
#include "rank.h"
#include "top_tokens.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// The beam of one sample.
template <class Scalar, class Knowledge = NoScorer>
class Beam {
 public:
  Beam(const BeamSearchParams& p, int64_t n, const BeamScratch<Scalar, Knowledge>& scratch);

  bool alive() const { return head().size > 0 && head().status == kOk; }
  void fail(Status status) { head().status = status; }
  // One frame, whose log-probabilities are x less `denominator`.
  void advance(const Scalar* x, double denominator);
  // Writes everything to the state.
  void finish() {
    if (now_.total != s_.scores.total)
      memcpy(s_.scores.total, now_.total, sizeof(double) * BeamScores::kArrays * size_t(s_.stride));
  }

 private:
  BeamHeader& head() const { return *s_.header; }
  void start();
  void link();
  void make_lists(const double* total);
  void attach(int32_t slot, int32_t parent);
  void orphan(int32_t slot);
  bool blank_for_certain(double y_blank) const { return y_blank > p_.blank_skip; }
  void take_for_blank(double y_blank);
  void stay(const Scalar* x, double denominator, double y_blank);
  double worst_stay() const;
  FoundTokens find_tokens(const Scalar* x, double denominator, double worst, double best, int64_t most,
                          int64_t first) const;
  double least_of_next_beam(int64_t tokens, double worst) const;
  int64_t find_candidates(const Scalar* x, double denominator, double worst);
  int64_t find_weighed_candidates(const Scalar* x, double denominator, double worst);
  template <class F>
  void extend(int32_t slot, int32_t k, double worst, const F& f) const;
  template <class ForEachPair>
  double reached_by(int64_t count, double worst, const ForEachPair& for_each_pair) const;
  double reach_of(int32_t slot, double bound) const;
  double best_reach() const;
  bool list_tokens(int64_t count, double& worst);
  int64_t choose_listed(int32_t slot, double worst) const;
  int64_t choose_unlisted(int32_t slot, int64_t count, double& worst);
  void sum_with_roots();
  int64_t gather_choices(int32_t slot, double worst) const;
  Scalar least_sum(double base, double worst, double largest) const;
  int32_t place_of(int32_t token);
  int64_t keep_best(int64_t count, double& worst);
  void note_children(int32_t slot) const;
  bool has_child(int32_t slot, int32_t token, int32_t word) const;
  void select(int64_t candidates);
  void restart(int32_t slot);
  Birth born(int32_t candidate);
  int32_t word_of(int32_t slot) const { return Knowledge::kWeighs ? s_.word[slot] : kNoWord; }
  int32_t add_node(int32_t parent, bool after_blank, int32_t token, int32_t word);
  void drop(int32_t slot);
  int32_t settle(const Birth& birth);
  void adopt_orphans(int32_t slot, const Birth& birth);

  const BeamSearchParams& p_;
  const BeamState s_;
  const BeamScratch<Scalar, Knowledge>& w_;
  BeamScores now_, next_;
  BeamNode* const arena_;
  int32_t vacancies_ = 0;
  // With a scorer:
  struct Frame {
    const Scalar* x;
    double denominator, best, least;  // log-probabilities: the largest, and the least that a token must have
  } frame_{};
  int64_t tokens_ = 0;  // that have a place in the frame
  bool has_roots_ = false;
  double largest_root_ = 0;   // of the finite weights in the roots, its absolute value
  double best_in_roots_ = 0;  // of the frame: the largest log-probability with the weight in the roots
};

template <class Scalar, class Knowledge>
Beam<Scalar, Knowledge>::Beam(const BeamSearchParams& p, int64_t n, const BeamScratch<Scalar, Knowledge>& scratch)
    : p_(p),
      s_(p.state + n * p.state_stride, p.beam_size, Knowledge::kWeighs),
      w_(scratch),
      now_(s_.scores),
      next_(scratch.next),
      arena_(p.arena + n * p.arena_stride) {
  if (!head().started) start();
  link();
}

template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::start() {
  head() = {};
  head().started = head().size = head().slots = 1;
  for (double* array : {now_.total, now_.blank, now_.nothing, now_.best, now_.best_blank, now_.best_nothing, now_.label,
                        now_.best_label, now_.peak_blank, now_.peak_label, now_.sum_blank, now_.sum_label}) {
    std::fill_n(array, s_.stride, kNever);
  }
  std::fill_n(now_.end_blank, s_.stride, 0);
  std::fill_n(now_.path_blank, s_.stride, -1);
  std::fill_n(now_.path_label, s_.stride, -1);
  std::fill_n(s_.last, s_.stride, int32_t(p_.blank));
  std::fill_n(s_.parent, s_.stride, -1);
  now_.total[0] = now_.blank[0] = now_.best[0] = now_.best_blank[0] = 0;
  s_.length[0] = 0;
  s_.hash[0] = kEmptyPrefix;
  s_.parent_hash[0] = 0;
  s_.order[0] = 0;
  if constexpr (Knowledge::kWeighs) {
    std::fill_n(s_.last_weight, s_.stride, 0.0);
    s_.scorer[0] = p_.scorer.start();
    s_.model[0] = 0;
    s_.word[0] = kNoWord;
  }
}

// Sets the working memory that follows from the state.
template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::link() {
  const int32_t nothing = int32_t(2 * s_.stride);
  std::fill_n(next_.nothing, s_.stride, kNever);
  std::fill_n(next_.best_nothing, s_.stride, kNever);
  std::fill_n(w_.reach, s_.stride, nothing);
  std::fill_n(w_.y_last, s_.stride, 0.0);
  w_.family.forget_notes();
  if constexpr (Knowledge::kWeighs) {
    std::fill_n(w_.place, p_.classes, -1);
    std::fill_n(w_.seen, p_.classes, 0);
    w_.steps.forget();
  }
  for (int32_t slot = 0; slot < head().slots; ++slot) {
    if (!(now_.total[slot] > kNever)) {
      w_.vacant[vacancies_++] = slot;
    } else if constexpr (Knowledge::kWeighs) {
      w_.bound[slot] = p_.scorer.bound(s_.scorer[slot]);
    }
  }
  make_lists(now_.total);
}

// The lists of children and orphans, for the prefixes that have a probability.
template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::make_lists(const double* total) {
  w_.family.clear();
  for (int32_t slot = 0; slot < head().slots; ++slot) {
    if (!(total[slot] > kNever)) continue;
    const int32_t parent = s_.parent[slot];
    if (parent >= 0 && total[parent] > kNever) {
      attach(slot, parent);
    } else {
      orphan(slot);
    }
  }
}

// Paths lead to the prefix in `slot` from the one in `parent`, which is one token shorter.
template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::attach(int32_t slot, int32_t parent) {
  s_.parent[slot] = parent;
  w_.reach[slot] = parent + (s_.last[parent] == s_.last[slot] ? int32_t(s_.stride) : 0);
  w_.family.add(parent, slot);
}

// No path leads to the prefix in `slot` from another one. The empty prefix is in no list.
template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::orphan(int32_t slot) {
  s_.parent[slot] = -1;
  w_.reach[slot] = int32_t(2 * s_.stride);
  if (s_.length[slot] > 0) w_.family.add(w_.family.orphans_of(s_.parent_hash[slot]), slot);
}

template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::advance(const Scalar* x, double denominator) {
  const double y_blank = log_prob(double(x[p_.blank]), denominator);
  double worst = INFINITY;
  if (blank_for_certain(y_blank)) {
    take_for_blank(y_blank);
  } else {
    stay(x, denominator, y_blank);
    worst = head().size == p_.beam_size ? worst_stay() : kNever;
  }
  int64_t candidates;
  if constexpr (Knowledge::kWeighs) {
    candidates = find_weighed_candidates(x, denominator, worst);
  } else {
    candidates = find_candidates(x, denominator, worst);
  }
  if (head().status != kOk) return;
  rank(w_.candidates.score, candidates, w_.ranked);
  select(candidates);
  std::swap(now_, next_);
  ++head().frame;
}

template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::take_for_blank(double y_blank) {
  for (int64_t j = 0; j < head().slots; ++j) {
    const bool from_label = now_.ends_in_label(j);
    next_.total[j] = next_.blank[j] = now_.total[j] + y_blank;
    next_.best[j] = next_.best_blank[j] = now_.best[j] + y_blank;
    next_.label[j] = next_.best_label[j] = kNever;
    next_.path_blank[j] = from_label ? now_.path_label[j] : now_.path_blank[j];
    next_.peak_blank[j] = from_label ? now_.peak_label[j] : now_.peak_blank[j];
    next_.sum_blank[j] = from_label ? now_.sum_label[j] : now_.sum_blank[j];
    next_.end_blank[j] = from_label ? head().frame : now_.end_blank[j];
    next_.path_label[j] = -1;
    next_.peak_label[j] = next_.sum_label[j] = kNever;
    w_.restarts[j] = 0;
  }
}

template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::stay(const Scalar* x, double denominator, double y_blank) {
  using L = Lanes<double>;
  const int64_t slots = head().slots;
  for (int64_t j = 0; j < slots; ++j) w_.y_last[j] = double(x[s_.last[j]]);
  const auto masked = L::set(kZeroLog), all = L::set(kNever), blank = L::set(y_blank);
  // Integers are moved as doubles, and never computed with.
  const auto load = [](const int64_t* p) { return L::load(reinterpret_cast<const double*>(p)); };
  const auto store = [](int64_t* p, typename L::F x) { L::store(reinterpret_cast<double*>(p), x); };
  using I = typename L::I;
  const I node_bits = I{} + int64_t(UINT32_MAX), peak_is_here = I{} + BeamScores::pack(head().frame, 0);
  const auto ends_here = (typename L::F)(I{} + head().frame);
  for (int64_t j = 0; j < slots; j += L::N) {
    const auto score = L::load(w_.y_last + j);
    const auto y = L::select(L::less(score, masked), all, score - L::set(denominator));
    const Prefixes<L> p = {L::load(now_.total + j), L::load(now_.blank + j), L::load(now_.label + j),
                           L::load(now_.best_blank + j), L::load(now_.best_label + j)};
    const auto everywhere = L::first(L::N);
    auto reach = L::gather(now_.total, w_.reach + j, everywhere);
    auto best_reach = L::gather(now_.best, w_.reach + j, everywhere);
    if constexpr (Knowledge::kWeighs) {
      reach += L::load(s_.last_weight + j);
      best_reach += L::load(s_.last_weight + j);
    }
    const Prefixes<L> q = fastctc::stay<L>(p, reach, best_reach, y, blank);
    L::store(next_.total + j, q.total);
    L::store(next_.blank + j, q.blank);
    L::store(next_.label + j, q.label);
    L::store(next_.best_blank + j, q.best_blank);
    L::store(next_.best_label + j, q.best_label);
    L::store(next_.best + j, L::max(q.best_blank, q.best_label));

    const auto from_label = L::less(p.best_blank, p.best_label), from_parent = L::less(p.best_label, best_reach);
    const auto path_label = load(now_.path_label + j), peak_label = L::load(now_.peak_label + j);
    const auto sum_label = L::load(now_.sum_label + j);
    store(next_.path_blank + j, L::select(from_label, path_label, load(now_.path_blank + j)));
    store(next_.end_blank + j, L::select(from_label, ends_here, load(now_.end_blank + j)));
    L::store(next_.peak_blank + j, L::select(from_label, peak_label, L::load(now_.peak_blank + j)));
    L::store(next_.sum_blank + j, L::select(from_label, sum_label, L::load(now_.sum_blank + j)));
    const auto new_peak = (typename L::F)(((I)path_label & node_bits) | peak_is_here);
    store(next_.path_label + j, L::select(L::less(peak_label, y), new_peak, path_label));
    L::store(next_.peak_label + j, L::select(from_parent, y, L::max(peak_label, y)));
    L::store(next_.sum_label + j, L::select(from_parent, y, sum_label + y));
    const uint32_t bits = L::bits(from_parent);
    for (int i = 0; i < L::N; ++i) w_.restarts[j + i] = uint8_t(bits >> i & 1);
  }
}

template <class Scalar, class Knowledge>
double Beam<Scalar, Knowledge>::worst_stay() const {
  double worst = INFINITY;
  for (int64_t j = 0; j < head().slots; ++j) worst = next_.total[j] < worst ? next_.total[j] : worst;
  return worst;
}

// The next beam: the best candidates.
template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::select(int64_t candidates) {
  const Candidates& found = w_.candidates;
  const double lowest = candidates > 0 ? found.score[w_.ranked[0]] - p_.beam_threshold : kNever;
  const int64_t limit = std::min(candidates, p_.beam_size);
  int64_t size = 0, births = 0;
  for (; size < limit && !(found.score[w_.ranked[size]] < lowest); ++size) {
    const int32_t i = w_.ranked[size], slot = found.slot[i];
    if (found.token[i] == kStays) {
      w_.dropped[slot] = 0;
      if (w_.restarts[slot]) restart(slot);
    } else {
      w_.births[births++] = born(i);
    }
  }
  const int32_t vacancies = vacancies_;
  for (int64_t rank = 0; rank < head().size; ++rank) {
    if (w_.dropped[s_.order[rank]]) drop(s_.order[rank]);
  }
  if (vacancies_ > vacancies) make_lists(next_.total);
  for (int64_t i = 0; i < births; ++i) {
    if (w_.births[i].parent >= 0 && w_.dropped[w_.births[i].parent]) w_.births[i].parent = -1;
  }
  births = 0;
  for (int64_t rank = 0; rank < size; ++rank) {
    const int32_t i = w_.ranked[rank];
    s_.order[rank] = found.token[i] == kStays ? found.slot[i] : settle(w_.births[births++]);
  }
  head().size = int32_t(size);
}

// The best path of a prefix in its last token now comes from the parent.
template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::restart(int32_t slot) {
  const int32_t node = add_node(s_.parent[slot], w_.reach[slot] >= s_.stride, s_.last[slot], word_of(slot));
  next_.path_label[slot] = BeamScores::pack(head().frame, node);
}

template <class Scalar, class Knowledge>
Birth Beam<Scalar, Knowledge>::born(int32_t candidate) {
  const int32_t parent = w_.candidates.slot[candidate], place = w_.candidates.token[candidate];
  const int32_t token = w_.tokens.token[place];
  const double y = w_.tokens.y[place];
  const bool after_blank = token == s_.last[parent];
  Birth birth;
  birth.score = w_.candidates.score[candidate];
  birth.best = (after_blank ? now_.best_blank[parent] : now_.best[parent]) + y;
  birth.y = y;
  int32_t word = kNoWord;
  if constexpr (Knowledge::kWeighs) {
    birth.arc = w_.candidates.arc[candidate];
    birth.model = s_.model[parent] + birth.arc.weight;
    birth.best += birth.arc.weight;
    word = birth.arc.word;
  }
  birth.parent_hash = s_.hash[parent];
  birth.hash = extend_hash(birth.parent_hash, token, word);
  birth.token = token;
  birth.parent = parent;
  birth.length = s_.length[parent] + 1;
  birth.node = add_node(parent, after_blank, token, word);
  return birth;
}

// A token after the best path of a prefix, or the best one that ends in the blank.
template <class Scalar, class Knowledge>
int32_t Beam<Scalar, Knowledge>::add_node(int32_t parent, bool after_blank, int32_t token, int32_t word) {
  const bool from_label = !after_blank && now_.ends_in_label(parent);
  const int64_t previous = from_label ? now_.path_label[parent] : now_.path_blank[parent], frame = head().frame;
  arena_[head().nodes] = {BeamScores::node_of(previous), token, int32_t(frame),
                          now_.last_run(parent, from_label, frame), word};
  return int32_t(head().nodes++);
}

template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::drop(int32_t slot) {
  for (double* array : {next_.total, next_.blank, next_.label, next_.best, next_.best_blank, next_.best_label}) {
    array[slot] = kNever;
  }
  s_.last[slot] = int32_t(p_.blank);
  s_.parent[slot] = -1;
  w_.reach[slot] = int32_t(2 * s_.stride);
  w_.vacant[vacancies_++] = slot;
}

template <class Scalar, class Knowledge>
int32_t Beam<Scalar, Knowledge>::settle(const Birth& birth) {
  const int32_t slot = vacancies_ > 0 ? w_.vacant[--vacancies_] : head().slots++;
  next_.total[slot] = next_.label[slot] = birth.score;
  next_.best[slot] = next_.best_label[slot] = birth.best;
  next_.blank[slot] = next_.best_blank[slot] = next_.peak_blank[slot] = next_.sum_blank[slot] = kNever;
  next_.peak_label[slot] = next_.sum_label[slot] = birth.y;
  next_.path_label[slot] = BeamScores::pack(head().frame, birth.node);
  next_.path_blank[slot] = -1;
  next_.end_blank[slot] = 0;
  s_.last[slot] = birth.token;
  s_.length[slot] = birth.length;
  s_.hash[slot] = birth.hash;
  s_.parent_hash[slot] = birth.parent_hash;
  if constexpr (Knowledge::kWeighs) {
    s_.scorer[slot] = birth.arc.state;
    s_.last_weight[slot] = birth.arc.weight;
    s_.word[slot] = birth.arc.word;
    s_.model[slot] = birth.model;
    w_.bound[slot] = p_.scorer.bound(birth.arc.state);
  }
  adopt_orphans(slot, birth);
  if (birth.parent >= 0) {
    attach(slot, birth.parent);
  } else {
    orphan(slot);
  }
  return slot;
}

// Longer prefixes may have stayed in the beam while this one was not.
template <class Scalar, class Knowledge>
void Beam<Scalar, Knowledge>::adopt_orphans(int32_t slot, const Birth& birth) {
  const int32_t list = w_.family.orphans_of(birth.hash);
  w_.family.for_each(list, [&](int32_t child) {
    if (s_.parent_hash[child] != birth.hash || s_.length[child] != birth.length + 1) return;
    const int32_t before = arena_[next_.node(child)].previous;
    if (arena_[before].token != birth.token || arena_[before].word != arena_[birth.node].word) return;
    if (!spell_the_same(arena_, arena_[before].previous, arena_[birth.node].previous)) return;
    w_.family.remove(list, child);
    attach(child, slot);
  });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

#include "beam_candidates.h"

// Prefix beam search on the CPU, compiled once per instruction set (FASTCTC_ISA).
//
// Most frames are short work: the stays of all prefixes, vectors of them at a time; one pass over the row, which finds
// no class that could bring a new prefix into the beam; and the ranks are as they were.
#include "../beam_search.h"

#include <algorithm>
#include <cmath>

#include "lanes.h"
#include "rows.h"
#include "top_tokens.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

using L = Lanes<double>;
constexpr double kNever = -INFINITY;

// A prefix that may be in the next beam: it stays, or extends the prefix of a slot.
struct Candidate {
  double score;
  int32_t slot;
  int32_t order;  // among equal scores
  int32_t token;  // its place in the frame's tokens
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.order < b.order);
  }
};

// A prefix that was not in the beam.
struct Birth {
  double score, best, y;
  uint64_t hash, parent_hash;
  int32_t token, parent, length, node;
};

int64_t max_extensions(int64_t beam_size) {
  int64_t sum = 0;
  for (int64_t rank = 0; rank < beam_size; ++rank) sum += extensions_of_rank(rank, beam_size);
  return sum;
}

// The working memory of a thread.
template <class Scalar>
struct Scratch {
  Workspace memory;
  BeamScores next;
  Scalar *row, *maxima;
  Token<Scalar>* tokens;
  double *y, *y_last;  // log-probabilities of the tokens; of the last token of each slot
  int32_t* reach;      // of each slot: where from total[0] (and best[0]) on stands what leads there from its parent
  int32_t *child, *sibling;  // of each slot: its first child; the next child of its parent; -1: none
  int32_t* vacant;           // slots
  uint8_t* restarts;         // of each slot: does its best path now come from the parent?
  Candidate *stays, *extensions;
  Birth* births;

  Scratch(void* base, const BeamSearchParams& p)
      : memory(base),
        next(memory, BeamState::stride_for(p.beam_size)),
        row(memory.take<Scalar>(p.classes)),
        maxima(memory.take<Scalar>(p.classes)),
        tokens(memory.take<Token<Scalar>>(p.classes)) {
    const int64_t slots = BeamState::stride_for(p.beam_size);
    y = memory.take<double>(p.classes);
    y_last = memory.take<double>(slots);
    reach = memory.take<int32_t>(slots);
    child = memory.take<int32_t>(slots);
    sibling = memory.take<int32_t>(slots);
    vacant = memory.take<int32_t>(slots);
    restarts = memory.take<uint8_t>(slots);
    stays = memory.take<Candidate>(p.beam_size);
    extensions = memory.take<Candidate>(max_extensions(p.beam_size));
    births = memory.take<Birth>(p.beam_size);
  }
};

// The beam of one sample on its way through the frames.
template <class Scalar>
class Beam {
 public:
  Beam(const BeamSearchParams& p, int64_t n, const Scratch<Scalar>& scratch);

  bool alive() const { return head().size > 0 && head().status == kOk; }
  void fail(Status status) { head().status = status; }
  // One frame, whose log-probabilities are x less `denominator`.
  void advance(const Scalar* x, double denominator);
  // Leaves everything in the state.
  void finish() {
    if (now_.total != s_.scores.total) memcpy(s_.scores.total, now_.total, sizeof(double) * 12 * size_t(s_.stride));
  }

 private:
  BeamHeader& head() const { return *s_.header; }
  void start();
  void link();
  bool blank_for_certain(double y_blank) const { return y_blank > p_.blank_skip; }
  void take_for_blank(double y_blank);
  void stay(const Scalar* x, double denominator, double y_blank);
  int64_t find_tokens(const Scalar* x, double denominator, double threshold);
  double worst_stay() const;
  int64_t extend(int64_t tokens, double worst);
  bool has_child(int32_t slot, int32_t token) const;
  int64_t rank_stays();
  void select(int64_t stays, int64_t extensions);
  void restart(int32_t slot);
  Birth born(const Candidate& extension);
  int32_t add_node(int32_t parent, bool after_blank, int32_t token);
  void drop(int32_t slot);
  int32_t settle(const Birth& birth);
  void adopt_orphans(int32_t slot, const Birth& birth);

  const BeamSearchParams& p_;
  const BeamState s_;
  const Scratch<Scalar>& w_;
  BeamScores now_, next_;
  BeamNode* const arena_;
  int32_t orphans_ = 0, vacancies_ = 0;
};

template <class Scalar>
Beam<Scalar>::Beam(const BeamSearchParams& p, int64_t n, const Scratch<Scalar>& scratch)
    : p_(p),
      s_(p.state + n * p.state_stride, p.beam_size),
      w_(scratch),
      now_(s_.scores),
      next_(scratch.next),
      arena_(p.arena + n * p.arena_stride) {
  if (!head().started) start();
  link();
}

template <class Scalar>
void Beam<Scalar>::start() {
  head() = {};
  head().started = head().size = head().slots = 1;
  for (double* array : {now_.total, now_.blank, now_.nothing, now_.best, now_.best_blank, now_.best_nothing, now_.label,
                        now_.best_label, now_.peak_blank, now_.peak_label}) {
    std::fill_n(array, s_.stride, kNever);
  }
  std::fill_n(now_.path_blank, s_.stride, -1);
  std::fill_n(now_.path_label, s_.stride, -1);
  std::fill_n(s_.last, s_.stride, int32_t(p_.blank));
  std::fill_n(s_.parent, s_.stride, -1);
  now_.total[0] = now_.blank[0] = now_.best[0] = now_.best_blank[0] = 0;
  s_.length[0] = 0;
  s_.hash[0] = kEmptyPrefix;
  s_.parent_hash[0] = 0;
  s_.order[0] = 0;
}

// What follows from the parents.
template <class Scalar>
void Beam<Scalar>::link() {
  const int32_t nothing = int32_t(2 * s_.stride);
  std::fill_n(next_.nothing, s_.stride, kNever);
  std::fill_n(next_.best_nothing, s_.stride, kNever);
  std::fill_n(w_.reach, s_.stride, nothing);
  std::fill_n(w_.y_last, s_.stride, 0.0);
  std::fill_n(w_.child, s_.stride, -1);
  for (int32_t slot = 0; slot < head().slots; ++slot) {
    const int32_t parent = s_.parent[slot];
    if (!(now_.total[slot] > kNever)) {
      w_.vacant[vacancies_++] = slot;
    } else if (parent >= 0) {
      w_.reach[slot] = parent + (s_.last[parent] == s_.last[slot] ? int32_t(s_.stride) : 0);
      w_.sibling[slot] = w_.child[parent];
      w_.child[parent] = slot;
    } else if (s_.length[slot] > 0) {
      ++orphans_;
    }
  }
}

template <class Scalar>
void Beam<Scalar>::advance(const Scalar* x, double denominator) {
  const double y_blank = log_prob(double(x[p_.blank]), denominator);
  double worst = INFINITY;
  if (blank_for_certain(y_blank)) {
    take_for_blank(y_blank);
  } else {
    stay(x, denominator, y_blank);
    worst = head().size == p_.beam_size ? worst_stay() : kNever;
  }
  // A token that brings no prefix above the worst stay with the best of them, does so with none.
  const double best = now_.total[s_.order[0]], rounding = 4e-16 * (std::abs(worst) + std::abs(best));
  const int64_t tokens = find_tokens(x, denominator, std::isfinite(worst) ? worst - best - rounding : worst);
  if (head().status != kOk) return;
  const int64_t extensions = tokens > 0 ? extend(tokens, worst) : 0;
  const int64_t stays = rank_stays();
  select(stays, extensions);
  std::swap(now_, next_);
  ++head().frame;
}

template <class Scalar>
void Beam<Scalar>::take_for_blank(double y_blank) {
  for (int64_t j = 0; j < head().slots; ++j) {
    const bool from_label = now_.ends_in_label(j);
    next_.total[j] = next_.blank[j] = now_.total[j] + y_blank;
    next_.best[j] = next_.best_blank[j] = now_.best[j] + y_blank;
    next_.label[j] = next_.best_label[j] = kNever;
    next_.path_blank[j] = from_label ? now_.path_label[j] : now_.path_blank[j];
    next_.peak_blank[j] = from_label ? now_.peak_label[j] : now_.peak_blank[j];
    next_.path_label[j] = -1;
    next_.peak_label[j] = kNever;
    w_.restarts[j] = 0;
  }
}

template <class Scalar>
void Beam<Scalar>::stay(const Scalar* x, double denominator, double y_blank) {
  const int64_t slots = head().slots;
  for (int64_t j = 0; j < slots; ++j) w_.y_last[j] = double(x[s_.last[j]]);
  const auto masked = L::set(kZeroLog), all = L::set(kNever), blank = L::set(y_blank);
  const auto integers = [](int64_t* p) { return reinterpret_cast<double*>(p); };  // moved, never computed with
  for (int64_t j = 0; j < slots; j += L::N) {
    const auto score = L::load(w_.y_last + j);
    const auto y = L::select(L::less(score, masked), all, score - L::set(denominator));
    const Prefixes<L> p = {L::load(now_.total + j), L::load(now_.blank + j), L::load(now_.label + j),
                           L::load(now_.best_blank + j), L::load(now_.best_label + j)};
    const auto everywhere = L::first(L::N);
    const auto best_reach = L::gather(now_.best, w_.reach + j, everywhere);
    const Prefixes<L> q = fastctc::stay<L>(p, L::gather(now_.total, w_.reach + j, everywhere), best_reach, y, blank);
    L::store(next_.total + j, q.total);
    L::store(next_.blank + j, q.blank);
    L::store(next_.label + j, q.label);
    L::store(next_.best_blank + j, q.best_blank);
    L::store(next_.best_label + j, q.best_label);
    L::store(next_.best + j, L::max(q.best_blank, q.best_label));

    const auto from_label = L::less(p.best_blank, p.best_label), from_parent = L::less(p.best_label, best_reach);
    const auto path_label = L::load(integers(now_.path_label) + j), peak_label = L::load(now_.peak_label + j);
    const auto path_blank = L::load(integers(now_.path_blank) + j), peak_blank = L::load(now_.peak_blank + j);
    L::store(integers(next_.path_blank) + j, L::select(from_label, path_label, path_blank));
    L::store(next_.peak_blank + j, L::select(from_label, peak_label, peak_blank));
    L::store(integers(next_.path_label) + j, path_label);
    L::store(next_.peak_label + j, L::select(from_parent, y, L::max(peak_label, y)));
    const uint32_t bits = L::bits(from_parent);
    for (int i = 0; i < L::N; ++i) w_.restarts[j + i] = uint8_t(bits >> i & 1);
  }
}

template <class Scalar>
double Beam<Scalar>::worst_stay() const {
  double worst = INFINITY;
  for (int64_t j = 0; j < head().slots; ++j) worst = next_.total[j] < worst ? next_.total[j] : worst;
  return worst;
}

// The tokens of more than `threshold`, most probable first. Fails if there is something in the row that is no
// log-probability.
template <class Scalar>
int64_t Beam<Scalar>::find_tokens(const Scalar* x, double denominator, double threshold) {
  if (p_.token_threshold < INFINITY) {
    const double best = log_prob(double(row_max(x, p_.classes)), denominator);
    threshold = std::max(threshold, std::nextafter(best - p_.token_threshold, kNever));
  }
  const int64_t matter = tokens_that_matter(p_.classes, p_.beam_size);
  const Scalar faulty = Scalar(denominator + kLargestLogProb), lowest = Scalar(kZeroLog);
  Scalar bound = std::max(std::nextafter(Scalar(threshold + denominator), Scalar(kNever)), lowest);
  int64_t count = tokens_from(x, p_.classes, std::min(bound, faulty), 4 * matter, w_.tokens);
  if (count < 0) {
    bound = std::max(bound, reached_by(x, p_.classes, matter + 1, w_.maxima));  // one may be the blank
    count = tokens_from(x, p_.classes, std::min(bound, faulty), p_.classes, w_.tokens);
  }
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Token<Scalar> token = w_.tokens[i];
    const double y = log_prob(double(token.x), denominator);
    if (y != y) fail(kNotANumber);
    if (y > kLargestLogProb && head().status == kOk) fail(kInvalid);
    if (y > threshold && token.id != p_.blank) w_.tokens[kept++] = token;
  }
  if (kept > matter) {
    std::nth_element(w_.tokens, w_.tokens + matter, w_.tokens + kept);
    kept = matter;
  }
  std::sort(w_.tokens, w_.tokens + kept);
  for (int64_t i = 0; i < kept; ++i) w_.y[i] = log_prob(double(w_.tokens[i].x), denominator);
  return kept;
}

// The extensions that beat the worst stay, in the order of equals.
template <class Scalar>
int64_t Beam<Scalar>::extend(int64_t tokens, double worst) {
  int64_t count = 0;
  for (int64_t rank = 0; rank < head().size; ++rank) {
    const int32_t slot = s_.order[rank];
    const double total = now_.total[slot];
    if (!(total + w_.y[0] > worst)) break;
    const int64_t end = std::min(tokens, extensions_of_rank(rank, p_.beam_size));
    for (int64_t k = 0; k < end; ++k) {
      const int32_t token = w_.tokens[k].id;
      double score = total + w_.y[k];
      if (!(score > worst)) break;
      if (token == s_.last[slot]) score = now_.blank[slot] + w_.y[k];
      if (!(score > worst) || has_child(slot, token)) continue;
      w_.extensions[count] = {score, slot, int32_t(count), int32_t(k)};
      ++count;
    }
  }
  std::sort(w_.extensions, w_.extensions + count);
  return count;
}

template <class Scalar>
bool Beam<Scalar>::has_child(int32_t slot, int32_t token) const {
  for (int32_t child = w_.child[slot]; child >= 0; child = w_.sibling[child]) {
    if (s_.last[child] == token) return true;
  }
  return false;
}

// The stays that are possible, best first. They mostly are in order already; those that have become impossible go last.
template <class Scalar>
int64_t Beam<Scalar>::rank_stays() {
  int64_t moves = 0;
  for (int64_t rank = 0; rank < head().size; ++rank) {
    const int32_t slot = s_.order[rank];
    const Candidate stay = {next_.total[slot], slot, int32_t(rank), -1};
    int64_t place = rank;
    for (; place > 0 && w_.stays[place - 1].score < stay.score; --place) w_.stays[place] = w_.stays[place - 1];
    w_.stays[place] = stay;
    moves += rank - place;
    if (moves > 16 * p_.beam_size) {
      for (++rank; rank < head().size; ++rank) {
        w_.stays[rank] = {next_.total[s_.order[rank]], s_.order[rank], int32_t(rank), -1};
      }
      std::sort(w_.stays, w_.stays + head().size);
    }
  }
  int64_t possible = head().size;
  while (possible > 0 && !(w_.stays[possible - 1].score > kNever)) --possible;
  return possible;
}

// The next beam: the best of both.
template <class Scalar>
void Beam<Scalar>::select(int64_t stays, int64_t extensions) {
  int64_t stayed = 0, born_count = 0;
  double lowest = kNever;
  int32_t* const order = s_.order;
  const int32_t size = head().size;
  for (int64_t rank = 0; rank < p_.beam_size; ++rank) {
    const bool stay =
        stayed < stays && (born_count == extensions || !(w_.stays[stayed].score < w_.extensions[born_count].score));
    if (!stay && born_count == extensions) break;
    const double score = stay ? w_.stays[stayed].score : w_.extensions[born_count].score;
    if (rank == 0) lowest = score - p_.beam_threshold;
    if (score < lowest) break;
    order[rank] = stay ? w_.stays[stayed++].slot : -1 - int32_t(born_count++);
  }
  for (int64_t i = 0; i < stayed; ++i) {
    if (w_.restarts[w_.stays[i].slot]) restart(w_.stays[i].slot);
  }
  for (int64_t i = 0; i < born_count; ++i) w_.births[i] = born(w_.extensions[i]);
  for (int64_t i = stayed; i < size; ++i) drop(w_.stays[i].slot);
  for (int64_t i = 0; i < born_count; ++i) {
    if (!(next_.total[w_.births[i].parent] > kNever)) w_.births[i].parent = -1;
  }
  head().size = int32_t(stayed + born_count);
  for (int64_t rank = 0; born_count > 0 && rank < head().size; ++rank) {
    if (order[rank] < 0) order[rank] = settle(w_.births[-1 - order[rank]]);
  }
}

// The best path of a prefix in its last token now comes from the parent.
template <class Scalar>
void Beam<Scalar>::restart(int32_t slot) {
  next_.path_label[slot] = add_node(s_.parent[slot], w_.reach[slot] >= s_.stride, s_.last[slot]);
}

template <class Scalar>
Birth Beam<Scalar>::born(const Candidate& extension) {
  const int32_t parent = extension.slot, token = w_.tokens[extension.token].id;
  const double y = w_.y[extension.token];
  const bool after_blank = token == s_.last[parent];
  Birth birth;
  birth.score = extension.score;
  birth.best = (after_blank ? now_.best_blank[parent] : now_.best[parent]) + y;
  birth.y = y;
  birth.parent_hash = s_.hash[parent];
  birth.hash = extend_hash(birth.parent_hash, token);
  birth.token = token;
  birth.parent = parent;
  birth.length = s_.length[parent] + 1;
  birth.node = add_node(parent, after_blank, token);
  return birth;
}

// A token after the best path of a prefix, or the best one that ends in the blank.
template <class Scalar>
int32_t Beam<Scalar>::add_node(int32_t parent, bool after_blank, int32_t token) {
  const bool from_label = !after_blank && now_.ends_in_label(parent);
  const int64_t previous = from_label ? now_.path_label[parent] : now_.path_blank[parent];
  const double peak = from_label ? now_.peak_label[parent] : now_.peak_blank[parent];
  arena_[head().nodes] = {int32_t(previous), token, int32_t(head().frame), float(peak)};
  return int32_t(head().nodes++);
}

template <class Scalar>
void Beam<Scalar>::drop(int32_t slot) {
  for (int32_t child = w_.child[slot]; child >= 0; child = w_.sibling[child]) {
    s_.parent[child] = -1;
    w_.reach[child] = int32_t(2 * s_.stride);
    ++orphans_;
  }
  w_.child[slot] = -1;
  const int32_t parent = s_.parent[slot];
  if (parent >= 0) {
    int32_t* link = &w_.child[parent];
    while (*link != slot) link = &w_.sibling[*link];
    *link = w_.sibling[slot];
  } else if (s_.length[slot] > 0) {
    --orphans_;
  }
  for (double* array : {next_.total, next_.blank, next_.label, next_.best, next_.best_blank, next_.best_label}) {
    array[slot] = kNever;
  }
  s_.last[slot] = int32_t(p_.blank);
  s_.parent[slot] = -1;
  w_.reach[slot] = int32_t(2 * s_.stride);
  w_.vacant[vacancies_++] = slot;
}

template <class Scalar>
int32_t Beam<Scalar>::settle(const Birth& birth) {
  const int32_t slot = vacancies_ > 0 ? w_.vacant[--vacancies_] : head().slots++;
  next_.total[slot] = next_.label[slot] = birth.score;
  next_.best[slot] = next_.best_label[slot] = birth.best;
  next_.blank[slot] = next_.best_blank[slot] = next_.peak_blank[slot] = kNever;
  next_.peak_label[slot] = birth.y;
  next_.path_label[slot] = birth.node;
  next_.path_blank[slot] = -1;
  s_.last[slot] = birth.token;
  s_.length[slot] = birth.length;
  s_.hash[slot] = birth.hash;
  s_.parent_hash[slot] = birth.parent_hash;
  s_.parent[slot] = birth.parent;
  w_.child[slot] = -1;
  if (orphans_ > 0) adopt_orphans(slot, birth);
  if (birth.parent >= 0) {
    w_.reach[slot] = birth.parent + (s_.last[birth.parent] == birth.token ? int32_t(s_.stride) : 0);
    w_.sibling[slot] = w_.child[birth.parent];
    w_.child[birth.parent] = slot;
  } else {
    w_.reach[slot] = int32_t(2 * s_.stride);
    ++orphans_;
  }
  return slot;
}

// Longer prefixes may have outlived this one.
template <class Scalar>
void Beam<Scalar>::adopt_orphans(int32_t slot, const Birth& birth) {
  for (int32_t j = 0; j < head().slots; ++j) {
    if (s_.parent[j] >= 0 || s_.parent_hash[j] != birth.hash || s_.length[j] != birth.length + 1) continue;
    if (!(next_.total[j] > kNever) || j == slot) continue;
    const int32_t before = arena_[next_.path(j)].previous;
    if (arena_[before].token != birth.token) continue;
    if (!spell_the_same(arena_, arena_[before].previous, arena_[birth.node].previous)) continue;
    s_.parent[j] = slot;
    w_.reach[j] = slot + (s_.last[j] == birth.token ? int32_t(s_.stride) : 0);
    w_.sibling[j] = w_.child[slot];
    w_.child[slot] = j;
    --orphans_;
  }
}

template <class Element>
void search(const BeamSearchParams& p, int64_t n, const Scratch<typename ScalarOf<Element>::type>& scratch) {
  using Scalar = typename ScalarOf<Element>::type;
  Beam<Scalar> beam(p, n, scratch);
  const int64_t frames = p.input_lengths[n];
  const BeamHeader& header = *BeamState(p.state + n * p.state_stride, p.beam_size).header;
  if (frames < 0 || frames > p.frames || (header.frame + frames) * p.beam_size > p.capacity) beam.fail(kInvalid);
  for (int64_t t = 0; t < frames && beam.alive(); ++t) {
    const Element* const x = static_cast<const Element*>(p.input) + n * p.stride_n + t * p.stride_t;
    const Scalar* const row = contiguous_row(x, p.stride_c, p.classes, scratch.row);
    const double denominator = p.from_logits ? log_denominator(row, p.classes) : 0.0;
    if (denominator != denominator) {
      beam.fail(kNotANumber);
    } else {
      beam.advance(row, denominator);
    }
  }
  beam.finish();
}

// The highest probability of a token, of its logarithm.
template <class Scalar>
Scalar confidence(float peak) {
  if (peak < -700) return 0;
  return Scalar(exp_of_negative<L>(L::set(std::min(double(peak), 0.0)))[0]);
}

template <class Scalar>
void write_result(const BeamResultParams& p, int64_t n, int64_t rank) {
  const BeamState s(const_cast<char*>(p.state) + n * p.state_stride, p.beam_size);
  const BeamNode* const arena = p.arena + n * p.arena_stride;
  const int64_t hypothesis = n * p.nbest + rank, first = hypothesis * p.max_length;
  const bool empty = !s.header->started;  // the empty prefix, at probability 1
  int64_t length = 0;
  double score = empty && rank == 0 ? 0.0 : kNever;
  if (!empty && s.header->status != kOk) score = NAN;
  if (!empty && s.header->status == kOk && rank < s.header->size) {
    const int32_t slot = s.order[rank];
    length = s.length[slot];
    score = s.scores.total[slot];
    float peak = float(s.scores.peak(slot));
    int64_t node = s.scores.path(slot);
    for (int64_t i = length - 1; i >= 0; --i) {
      p.tokens[first + i] = arena[node].token;
      p.timesteps[first + i] = arena[node].frame;
      static_cast<Scalar*>(p.confidences)[first + i] = confidence<Scalar>(peak);
      peak = arena[node].previous_peak;
      node = arena[node].previous;
    }
  }
  p.lengths[hypothesis] = length;
  static_cast<Scalar*>(p.scores)[hypothesis] = Scalar(score);
  std::fill(p.tokens + first + length, p.tokens + first + p.max_length, -1);
  std::fill(p.timesteps + first + length, p.timesteps + first + p.max_length, -1);
  Scalar* const confidences = static_cast<Scalar*>(p.confidences) + first;
  std::fill(confidences + length, confidences + p.max_length, Scalar(0));
}

}  // namespace

size_t beam_search_workspace(const BeamSearchParams& p) {
  if (p.dtype == DType::kFloat64) return Scratch<double>(nullptr, p).memory.size();
  return Scratch<float>(nullptr, p).memory.size();
}
void beam_search(const BeamSearchParams& p, int64_t begin, int64_t end, void* workspace) {
  with_element(p.dtype, [&](auto element) {
    using Element = decltype(element);
    const Scratch<typename ScalarOf<Element>::type> scratch(workspace, p);
    for (int64_t n = begin; n < end; ++n) search<Element>(p, n, scratch);
  });
}
void beam_search_result(const BeamResultParams& p, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t rank = 0; rank < p.nbest; ++rank) {
      p.dtype == DType::kFloat64 ? write_result<double>(p, n, rank) : write_result<float>(p, n, rank);
    }
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

// The candidates of a frame: which prefixes may be in the next beam. Included by beam.h.
#pragma once

#include "beam.h"

namespace fastctc {
namespace cuda {

// How many tokens bring the prefix of each rank above the worst stay; their sum.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ int Beam<Element, kOneWarp, Knowledge>::count_extensions(double worst) const {
  int count = 0, sum;
  if (me_ < size_) {
    const double total = s_.scores.total[s_.order[me_]], least = now().best - p_.token_threshold;
    const int room = int(extensions_of_rank(me_, beam_size_));
    for (int end = room < tokens_ ? room : tokens_; count < end;) {
      const int k = (count + end) / 2;
      const bool enough = total + y(k) > worst && y(k) >= least;
      count = enough ? k + 1 : count;
      end = enough ? end : k;
    }
  }
  const int before = Team::sum_before(count, sum, *c_.shared);
  if (me_ < size_) c_.first[me_] = before;
  if (me_ == 0) c_.first[size_] = sum;
  Team::sync();
  return sum;
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ int Beam<Element, kOneWarp, Knowledge>::rank_of_extension(int e) const {
  int rank = 0;
  for (int end = size_; end - rank > 1;) {
    const int middle = (rank + end) / 2;
    (c_.first[middle] <= e ? rank : end) = middle;
  }
  return rank;
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::score_extensions(int extensions, double worst,
                                                                                     double* scores) const {
  for (int e = me_; e < extensions; e += Team::size()) {
    const int rank = rank_of_extension(e), k = e - c_.first[rank], slot = s_.order[rank];
    const bool repeats = s_.last[slot] == token(k);
    const double score = (repeats ? s_.scores.blank[slot] : s_.scores.total[slot]) + y(k);
    scores[size_ + e] = score > worst ? score : kNever;
  }
}

// A prefix that is in the beam is not new: where is its last token among those that extend its parent?
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::strike_out(double* scores) const {
  if (!alive() || s_.parent[me_] < 0) return;
  const int rank = c_.rank[s_.parent[me_]], count = c_.first[rank + 1] - c_.first[rank];
  const int32_t last = s_.last[me_];
  int place = 0;
  for (int end = count; place < end;) {
    const int k = (place + end) / 2;
    const bool before = x(k) > score_ || (x(k) == score_ && token(k) < last);
    (before ? place : end) = before ? k + 1 : k;
  }
  if (place < count && token(place) == last) scores[size_ + c_.first[rank] + place] = kNever;
}

// The first candidates, in order, are the winners. Few are counted, many are sorted.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::rank_candidates(int count, double* scores,
                                                                                    int32_t* candidate) const {
  if (count * count <= 512 * Team::size()) {
    for (int i = me_; i < count; i += Team::size()) {
      const double score = scores[i];
      int place = 0;
      for (int j = 0; j < count; ++j) place += scores[j] > score || (scores[j] == score && j < i);
      if (!(score > kNever) || place >= beam_size_) continue;
      c_.winner[place] = i;
      c_.winner_score[place] = score;
    }
  } else {
    const int size = int(power_of_two_from(count));
    for (int i = me_; i < size; i += Team::size()) {
      candidate[i] = i;
      if (i >= count) scores[i] = kNever;
    }
    sort_pairs<Team>(scores, candidate, size);
    if (has_slot() && me_ < count) {
      c_.winner[me_] = candidate[me_];
      c_.winner_score[me_] = scores[me_];
    }
  }
  Team::sync();
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ Origin Beam<Element, kOneWarp, Knowledge>::origin_of(int candidate) const {
  if constexpr (Knowledge::kWeighs) {
    return c_.origins[candidate];
  } else {
    if (candidate < size_) return {s_.order[candidate], kStays, 0};
    const int e = candidate - size_, rank = rank_of_extension(e);
    return {s_.order[rank], e - c_.first[rank], 0};
  }
}

// ---- With a scorer: pairs of a rank and a token, and for each of them the ways of the scorer to take the token.
//
// There is no limit to them. They are gone through in the order of equal candidates, a pair for each thread, as the CPU
// does: when candidates_kept() candidates are there, the best beam_size are kept, and what follows must be above the
// worst of them.

// An extension of the prefix in `slot` by a token scores at most this and the log-probability of the token.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ double Beam<Element, kOneWarp, Knowledge>::reach_of(int slot) const {
  const double total = s_.scores.total[slot];
  return W::fma(4e-16, fabs(total), total + c_.bound[slot]);
}

// The number of tokens, most probable first, that may bring the prefix of this thread's rank above `worst`. Mostly it
// is small.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ int Beam<Element, kOneWarp, Knowledge>::tokens_above(double worst) const {
  const double reach = reach_of(s_.order[me_]), least = now().best - p_.token_threshold;
  const auto enough = [&](int k) { return reach + y(k) > worst && y(k) >= least; };
  int count = 0, end = 1;
  for (; end < listed_ && enough(end - 1); end *= 2) count = end;
  for (end = end < listed_ ? end : listed_; count < end;) {
    const int k = (count + end) / 2;
    const bool more = enough(k);
    count = more ? k + 1 : count;
    end = more ? end : k;
  }
  return count;
}

// The number of pairs from `next` on. Where the list of tokens is too short for a rank, they end with that; else
// `ends_early` is the size of the beam.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ int Beam<Element, kOneWarp, Knowledge>::count_pairs(const Pair& next, double worst,
                                                                               int& ends_early) const {
  Team::sync();  // what was counted before has been read
  int count = 0, sum;
  bool too_short = false;
  if (me_ < size_ && me_ >= next.rank) {
    const int above = tokens_above(worst), begin = me_ == next.rank ? next.place : 0;
    too_short = above == listed_ && listed_ < p_.classes - 1;
    count = above > begin ? above - begin : 0;
    if (count == 0 && me_ == next.rank && next.choice > 0) count = 1;  // some of its ways are left
  }
  const int before = Team::sum_before(count, sum, *c_.shared);
  if (me_ < size_) c_.first[me_] = before;
  if (me_ == 0) c_.first[size_] = sum;
  ends_early = listed_ < p_.classes - 1 ? int(Team::min(too_short ? me_ : size_, *c_.shared)) : size_;
  Team::sync();
  return ends_early < size_ ? c_.first[ends_early + 1] : sum;
}

// True if the prefix in `slot` with this token and word is in the beam.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ bool Beam<Element, kOneWarp, Knowledge>::has_child(int slot, int32_t token,
                                                                              int32_t word) const {
  for (int j = 0; j < beam_size_; ++j) {
    if (s_.parent[j] == slot && s_.last[j] == token && s_.word[j] == word) return true;
  }
  return false;
}

// The first way of a pair from `choice` on that is a candidate above `worst`.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ typename Beam<Element, kOneWarp, Knowledge>::Way
Beam<Element, kOneWarp, Knowledge>::find_way(const Pair& pair, int choice, double worst) const {
  const int slot = s_.order[pair.rank];
  const int32_t token = this->token(pair.place);
  const ScorerState& state = s_.scorer[slot];
  const double from = (s_.last[slot] == token ? s_.scores.blank[slot] : s_.scores.total[slot]) + y(pair.place);
  if (!(from + c_.bound[slot] > pair.worst)) return {kNever, -1};
  for (const int choices = p_.scorer.choices(state, token); choice < choices; ++choice) {
    const ScorerArc arc = p_.scorer.arc(state, token, choice, pair.worst - from);
    const double score = from + arc.weight;
    if (score > worst && !has_child(slot, token, arc.word)) return {score, choice};
  }
  return {kNever, -1};
}

// Adds the candidates of pair e, one pair for each thread. True if the last of candidates_kept() was added: then
// c_.next is where to go on.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ bool Beam<Element, kOneWarp, Knowledge>::add_ways(int e, int pairs, const Pair& next,
                                                                             double worst, int& count) const {
  Pair pair{};
  Way way{};
  int found = 0, sum;
  if (e < pairs) {
    pair.rank = rank_of_extension(e);
    pair.place = e - c_.first[pair.rank] + (pair.rank == next.rank ? next.place : 0);
    pair.worst = worst;
    if (pair.rank == next.rank && pair.place == next.place) pair = next;
    for (Way w = find_way(pair, pair.choice, worst); w.choice >= 0; w = find_way(pair, w.choice + 1, worst)) {
      if (found++ == 0) way = w;
    }
  }
  const int before = Team::sum_before(found, sum, *c_.shared), room = int(candidates_kept(beam_size_)) - count;
  for (int i = 0; i < found && before + i < room; ++i) {
    if (i > 0) way = find_way(pair, way.choice + 1, worst);
    const int candidate = count + before + i;
    c_.scores[candidate] = way.score;
    c_.origins[candidate] = {s_.order[pair.rank], pair.place, way.choice};
    if (before + i == room - 1) *c_.next = {pair.rank, pair.place, way.choice + 1, pair.worst};
  }
  count += sum < room ? sum : room;
  return sum >= room;
}

// Keeps the best beam_size of candidates_kept() candidates, in their order. Returns the score of the worst.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ double Beam<Element, kOneWarp, Knowledge>::keep_best() const {
  const int count = int(candidates_kept(beam_size_));
  Team::sync();  // they are there
  for (int i = me_; i < count; i += Team::size()) {
    const double score = c_.scores[i];
    int place = 0;
    for (int j = 0; j < count; ++j) place += c_.scores[j] > score || (c_.scores[j] == score && j < i);
    c_.candidates[i] = place < beam_size_;  // for this thread
    if (place == beam_size_ - 1) *c_.raised = score;
  }
  int kept = 0, sum;
  for (int first = 0; first < count; first += Team::size()) {
    const int i = first + me_;
    const bool keeps = i < count && c_.candidates[i];
    const double score = keeps ? c_.scores[i] : 0;
    const Origin origin = keeps ? c_.origins[i] : Origin{};
    const int place = kept + Team::sum_before(keeps, sum, *c_.shared);
    Team::sync();  // all have been compared, and those of these threads read
    if (keeps) {
      c_.scores[place] = score;
      c_.origins[place] = origin;
    }
    kept += sum;
  }
  Team::sync();
  return *c_.raised;
}

// The list of the tokens of a frame becomes one of all tokens.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::sort_row(int t) {
  listed_ = int(p_.classes) - 1;
  const int size = int(power_of_two_from(listed_));
  for (int i = me_; i < size; i += Team::size()) {
    const int32_t c = i < int(p_.blank) ? i : i + 1;
    c_.global.x[i] = i < listed_ ? score(first_ + t, c) : Scalar(-INFINITY);
    c_.global.token[i] = i < listed_ ? c : INT32_MAX;
  }
  sort_pairs<Team>(c_.global.x, c_.global.token, size);
  more_x_ = c_.global.x;
  more_token_ = c_.global.token;
}

// All candidates, or the best of them; their number. The scores of the stays are in c_.scores by rank.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ int Beam<Element, kOneWarp, Knowledge>::find_weighed(bool extends, double worst, int t) {
  int count, ends_early;
  const double stay = me_ < size_ ? c_.scores[me_] : kNever;
  const int place = Team::sum_before(stay > kNever, count, *c_.shared);
  Team::sync();  // they have been read
  if (stay > kNever) {
    c_.scores[place] = stay;
    c_.origins[place] = {s_.order[me_], kStays, 0};
  }
  Pair next = {0, 0, 0, worst};
  while (extends) {
    const int pairs = count_pairs(next, worst, ends_early);
    bool full = false;
    for (int e = 0; e < pairs && !full; e += Team::size()) full = add_ways(e + me_, pairs, next, worst, count);
    if (full) {
      worst = keep_best();
      count = beam_size_;
      next = *c_.next;
    } else if (ends_early == size_) {
      break;
    } else if (next.rank == ends_early && next.place == listed_) {
      sort_row(t);
    } else {
      next = {ends_early, listed_, 0, worst};
    }
  }
  Team::sync();
  return count;
}

}  // namespace cuda
}  // namespace fastctc

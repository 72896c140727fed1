// The prefix search of one sample by one block: a warp for up to 32 prefixes, else a thread for each prefix.
//
// A frame, thread by thread. Most frames end after the second line:
//
//   stays        each slot: its prefix one frame later                       -> scores[rank]
//   cut          can the best token bring any prefix above the worst stay? are the ranks still in order?
//   extensions   each rank: how many tokens can; then each pair of the two   -> scores[size + number of the pair]
//                each slot: strikes itself out among the extensions of its parent
//                (with a scorer: beam_candidates.h)
//   ranking      each candidate: how many are before it                      -> winner[rank]
//   places       each rank: the slot of its prefix, a new one goes where one was dropped
//   next beam    each slot, and each new prefix: what has changed
//   adoption     each slot without a parent: is one of the new prefixes it?
//
// Between two lines stands a barrier. Of equal candidates the one with the lower number is before the other: stays by
// rank, then extensions by rank and token.
#pragma once

#include "beam_scratch.h"
#include "lanes.h"
#include "sort.h"

namespace fastctc {
namespace cuda {

// The search of one sample. Each thread stands for a slot, a rank and a next rank at the same time.
template <class Element, bool kOneWarp, class Knowledge>
class Beam {
  using Scalar = typename ScalarOf<Element>::type;
  using Team = BlockTeam<kOneWarp>;
  using Scratch = BeamScratch<Scalar, kOneWarp, Knowledge>;
  using W = Lanes<double>;

 public:
  __device__ __forceinline__ Beam(const BeamSearchParams& p, const TopTokens<Scalar>& top, const Scratch& scratch,
                                  const BeamState& state)
      : p_(p),
        top_(top),
        c_(scratch),
        s_(state),
        me_(Team::rank()),
        beam_size_(int(p.beam_size)),
        tokens_(int(Knowledge::kWeighs ? tokens_that_matter(p.classes, p.beam_size) : top.count)) {}

  __device__ __forceinline__ void start();
  __device__ __forceinline__ void run(int64_t first, int frames);

 private:
  __device__ __forceinline__ void fetch(int64_t first, int t);
  __device__ __forceinline__ void receive(int64_t first, int t);
  __device__ __forceinline__ void advance(int t);
  __device__ __forceinline__ Source source(int parent, int32_t token) const;
  __device__ __forceinline__ void add_node(int parent, int32_t token, int32_t word, int slot, int t) const;
  __device__ __forceinline__ Stay stay(double y, int t) const;
  __device__ __forceinline__ Stay stay_by_blank() const;
  __device__ __forceinline__ int count_extensions(double worst) const;
  __device__ __forceinline__ int rank_of_extension(int e) const;
  __device__ __forceinline__ void score_extensions(int extensions, double worst, double* scores) const;
  __device__ __forceinline__ void strike_out(double* scores) const;
  __device__ __forceinline__ void rank_candidates(int count, double* scores, int32_t* candidate) const;
  __device__ __forceinline__ void select(int extensions, double worst, const Stay& stay, int t);
  __device__ __forceinline__ void next_beam(const Stay& stay, int t);
  __device__ __forceinline__ Origin origin_of(int candidate) const;
  __device__ __forceinline__ Birth birth(const Origin& origin, int slot, int t) const;
  __device__ __forceinline__ void commit(const Stay& stay, int t) const;
  __device__ __forceinline__ void drop() const;
  __device__ __forceinline__ void settle(const Birth& b, int slot, int t) const;
  __device__ __forceinline__ void adopt(int births) const;

  // With a scorer:
  struct Way {
    double score;
    int choice;  // -1: there is none
  };
  __device__ __forceinline__ double reach_of(int slot) const;
  __device__ __forceinline__ int tokens_above(double worst) const;
  __device__ __forceinline__ int count_pairs(const Pair& next, double worst, int& ends_early) const;
  __device__ __forceinline__ bool has_child(int slot, int32_t token, int32_t word) const;
  __device__ __forceinline__ Way find_way(const Pair& pair, int choice, double worst) const;
  __device__ __forceinline__ bool add_ways(int e, int pairs, const Pair& next, double worst, int& count) const;
  __device__ __forceinline__ double keep_best() const;
  __device__ __forceinline__ void sort_row(int t);
  __device__ __forceinline__ int find_weighed(bool extends, double worst, int t);

  __device__ __forceinline__ Scalar score(int64_t t, int64_t c) const {
    const Element* const x = static_cast<const Element*>(p_.input);
    return to_scalar(x[blockIdx.x * p_.stride_n + t * p_.stride_t + c * p_.stride_c]);
  }
  __device__ __forceinline__ BeamNode* arena() const { return p_.arena + blockIdx.x * p_.arena_stride; }
  __device__ __forceinline__ int64_t frame(int t) const { return s_.header->frame + t; }
  // A slot makes one node at most in each frame.
  __device__ __forceinline__ int64_t node_of(int slot, int t) const { return frame(t) * beam_size_ + slot; }
  __device__ __forceinline__ const FrameScores& now() const { return c_.frame[buffer_]; }
  __device__ __forceinline__ Scalar x(int k) const {
    if (Knowledge::kWeighs && k >= tokens_) return more_x_[k];
    return c_.x[buffer_ * tokens_ + k];
  }
  __device__ __forceinline__ int32_t token(int k) const {
    if (Knowledge::kWeighs && k >= tokens_) return more_token_[k];
    return c_.token[buffer_ * tokens_ + k];
  }
  __device__ __forceinline__ double y(int k) const { return log_prob(double(x(k)), now().log_denominator); }
  __device__ __forceinline__ bool has_slot() const { return me_ < beam_size_; }
  __device__ __forceinline__ bool alive() const { return has_slot() && s_.scores.total[me_] > kNever; }
  __device__ __forceinline__ bool near_best(double score, double best) const {
    return score > kNever && !(score < best - p_.beam_threshold);
  }

  const BeamSearchParams& p_;
  const TopTokens<Scalar>& top_;
  const Scratch& c_;
  const BeamState& s_;
  const int me_, beam_size_, tokens_;
  int size_ = 0;
  int buffer_ = 0;        // of the two frames, this one
  Scalar score_;          // of the last token of this slot
  Scalar next_score_;     // loaded while the frame before is worked on
  bool renewed_ = false;  // in that frame the slot got another prefix
  // With a scorer, the list of the frame's tokens in global memory; how many it has.
  const Scalar* more_x_;
  const int32_t* more_token_;
  int listed_;
  int64_t first_;  // the frame of the call that is the first of the chunk
};

// A beam of the empty prefix.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::start() {
  const BeamScores& b = s_.scores;
  for (int64_t j = me_; j < s_.stride; j += Team::size()) {
    b.total[j] = b.blank[j] = b.best_blank[j] = j == 0 ? 0 : kNever;
    b.label[j] = b.best_label[j] = b.peak_blank[j] = b.peak_label[j] = b.sum_blank[j] = b.sum_label[j] = kNever;
    b.path_blank[j] = b.path_label[j] = -1;
    b.end_blank[j] = 0;
    s_.last[j] = int32_t(p_.blank);
    s_.parent[j] = -1;
    s_.length[j] = 0;
    s_.hash[j] = kEmptyPrefix;
    s_.parent_hash[j] = 0;
    s_.order[j] = 0;
    if constexpr (Knowledge::kWeighs) {
      s_.scorer[j] = p_.scorer.start();
      s_.model[j] = s_.last_weight[j] = 0;
      s_.word[j] = kNoWord;
    }
  }
  if (me_ == 0) *s_.header = {0, 0, 1, 1, beam_size_, kOk};
}

// Frames [first, first + frames) of this call, whose tokens are in the workspace.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::run(int64_t first, int frames) {
  Team::sync();  // the state is there
  Status status = kOk;
  size_ = s_.header->size;
  if (me_ < size_) c_.rank[s_.order[me_]] = me_;
  if constexpr (Knowledge::kWeighs) {
    first_ = first;
    if (alive()) c_.bound[me_] = p_.scorer.bound(s_.scorer[me_]);
  }
  if (frames > 0) fetch(first, 0);
  int t = 0;
  for (; t < frames && size_ > 0; ++t) {
    receive(first, t);
    status = Status(now().status);
    if (status != kOk) break;
    if (t + 1 < frames) fetch(first, t + 1);
    advance(t);
  }
  async_wait<0>();
  Team::sync();  // the header has been read
  if (me_ == 0) *s_.header = {s_.header->frame + t, 0, 1, size_, beam_size_, status};
  Team::sync();
}

// Starts to load what will be needed of frame t of the chunk.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::fetch(int64_t first, int t) {
  const int64_t row = blockIdx.x * top_.frames + t;
  const int buffer = buffer_ ^ 1, listed = Knowledge::kWeighs ? int(top_.count) : tokens_;
  for (int k = me_; k < tokens_; k += Team::size()) {
    async_copy<sizeof(Scalar)>(c_.x + buffer * tokens_ + k, top_.x + row * listed + k);
    async_copy<sizeof(int32_t)>(c_.token + buffer * tokens_ + k, top_.token + row * listed + k);
  }
  if (me_ < int(sizeof(FrameScores)) / 16) {
    async_copy<16>(reinterpret_cast<char*>(c_.frame + buffer) + 16 * me_,
                   reinterpret_cast<const char*>(top_.scores + row) + 16 * me_);
  }
  async_commit();
  if (has_slot()) next_score_ = score(first + t, s_.last[me_]);
}
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::receive(int64_t first, int t) {
  score_ = renewed_ ? score(first + t, s_.last[me_]) : next_score_;
  renewed_ = false;
  buffer_ ^= 1;
  if constexpr (Knowledge::kWeighs) {
    const int64_t row = blockIdx.x * top_.frames + t;
    listed_ = int(top_.count);
    more_x_ = top_.x + row * listed_;
    more_token_ = top_.token + row * listed_;
  }
  async_wait<0>();
  Team::sync();
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::advance(int t) {
  const bool certain = now().blank > p_.blank_skip;
  double reachable = kNever;
  if constexpr (Knowledge::kWeighs) {  // by the prefix of this rank
    if (!certain && tokens_ > 0 && me_ < size_) reachable = reach_of(s_.order[me_]) + y(0);
  } else if (!certain && tokens_ > 0) {  // by any prefix
    reachable = s_.scores.total[s_.order[0]] + y(0);
  }
  Stay mine{};
  const bool stays = alive();
  if (stays) {
    mine = certain ? stay_by_blank() : stay(log_prob(double(score_), now().log_denominator), t);
    c_.scores[c_.rank[me_]] = mine.next.total;
  }
  Team::sync();
  const double of_rank = me_ < size_ ? c_.scores[me_] : INFINITY;
  const bool sorted = !Team::any(me_ + 1 < size_ && of_rank < c_.scores[me_ + 1]);
  double worst = kNever;
  if (size_ == beam_size_) worst = sorted ? c_.scores[size_ - 1] : Team::min(of_rank, *c_.shared);
  int extensions = 0;  // with a scorer: are there any?
  if constexpr (Knowledge::kWeighs) {
    extensions = Team::any(reachable > worst);
  } else if (reachable > worst) {
    extensions = count_extensions(worst);
  }
  if (sorted && extensions == 0 && near_best(c_.scores[size_ - 1], c_.scores[0])) {
    if (stays) commit(mine, t);
  } else {
    select(extensions, worst, mine, t);
  }
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ Source Beam<Element, kOneWarp, Knowledge>::source(int parent, int32_t token) const {
  const BeamScores& b = s_.scores;
  const bool after_blank = s_.last[parent] == token, from_label = !after_blank && b.ends_in_label(parent);
  return {after_blank ? b.blank[parent] : b.total[parent], from_label ? b.best_label[parent] : b.best_blank[parent]};
}

// A token after the best path of a prefix in the old beam, or the best one that ends in the blank.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::add_node(int parent, int32_t token, int32_t word,
                                                                             int slot, int t) const {
  const BeamScores& b = s_.scores;
  const bool from_label = s_.last[parent] != token && b.ends_in_label(parent);
  const int64_t previous = from_label ? b.path_label[parent] : b.path_blank[parent];
  arena()[node_of(slot, t)] = {BeamScores::node_of(previous), token, int32_t(frame(t)),
                               b.last_run(parent, from_label, frame(t)), word};
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ Stay Beam<Element, kOneWarp, Knowledge>::stay(double y, int t) const {
  const BeamScores& b = s_.scores;
  const Prefixes<W> old = {b.total[me_], b.blank[me_], b.label[me_], b.best_blank[me_], b.best_label[me_]};
  const int parent = s_.parent[me_];
  Source from = {kNever, kNever};
  if (parent >= 0) from = source(parent, s_.last[me_]);
  int32_t word = kNoWord;
  if constexpr (Knowledge::kWeighs) {
    from.total += s_.last_weight[me_];
    from.best += s_.last_weight[me_];
    word = s_.word[me_];
  }
  Stay s;
  s.next = fastctc::stay<W>(old, from.total, from.best, y, now().blank);
  s.y = y;
  s.restarts = from.best > old.best_label;
  if (s.restarts) add_node(parent, s_.last[me_], word, me_, t);  // nothing refers to it where the prefix is dropped
  return s;
}

// In a frame that counts as blank.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ Stay Beam<Element, kOneWarp, Knowledge>::stay_by_blank() const {
  const BeamScores& b = s_.scores;
  Stay s{};
  s.next.total = s.next.blank = b.total[me_] + now().blank;
  s.next.best_blank = W::max(b.best_blank[me_], b.best_label[me_]) + now().blank;
  s.next.label = s.next.best_label = s.y = kNever;
  return s;
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::select(int extensions, double worst,
                                                                           const Stay& stay, int t) {
  double* scores = c_.scores;
  int32_t* candidate = c_.candidates;
  if (!kOneWarp && !Knowledge::kWeighs && size_ + extensions > kSharedCandidates) {
    scores = c_.global.scores;
    candidate = c_.global.candidates;
    if (me_ < size_) scores[me_] = c_.scores[me_];
  }
  if (has_slot()) {
    c_.winner_score[me_] = kNever;
    c_.stayed[me_] = 0;
  }
  if constexpr (Knowledge::kWeighs) {
    rank_candidates(find_weighed(extensions > 0, worst, t), scores, candidate);
  } else {
    score_extensions(extensions, worst, scores);
    Team::sync();
    if (extensions > 0) strike_out(scores);
    Team::sync();
    rank_candidates(size_ + extensions, scores, candidate);
  }
  next_beam(stay, t);
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::next_beam(const Stay& stay, int t) {
  const bool enters = has_slot() && near_best(c_.winner_score[me_], c_.winner_score[0]);
  const int size = Team::count(enters);
  const Origin origin = enters ? origin_of(c_.winner[me_]) : Origin{};
  const bool born = enters && origin.place != kStays;
  int births, vacancies, slot = origin.slot;
  if (enters && !born) c_.stayed[slot] = 1;
  const int number = Team::sum_before(born, births, *c_.shared);
  Team::sync();
  const bool stays = has_slot() && c_.stayed[me_], vacant = has_slot() && !stays;
  const int place = Team::sum_before(vacant, vacancies, *c_.shared);
  renewed_ = vacant && place < births;
  if (renewed_) c_.vacant[place] = me_;
  Team::sync();
  Birth mine{};
  if (born) {
    slot = c_.vacant[number];
    mine = birth(origin, slot, t);
  }
  const bool orphaned = stays && s_.parent[me_] >= 0 && !c_.stayed[s_.parent[me_]];
  Team::sync();  // the old beam has been read
  if (stays) commit(stay, t);
  if (orphaned) s_.parent[me_] = -1;
  if (vacant && !renewed_) drop();
  if (born) settle(mine, slot, t);
  if (enters) {
    s_.order[me_] = slot;
    c_.rank[slot] = me_;
  }
  size_ = size;
  Team::sync();
  if (stays && s_.parent[me_] < 0 && s_.length[me_] > 1) adopt(births);
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ Birth Beam<Element, kOneWarp, Knowledge>::birth(const Origin& origin, int slot,
                                                                           int t) const {
  const int k = origin.place, parent = origin.slot;
  Birth b;
  int32_t word = kNoWord;
  b.y = y(k);
  b.best = source(parent, token(k)).best + b.y;
  b.token = token(k);
  if constexpr (Knowledge::kWeighs) {
    b.arc = p_.scorer.arc(s_.scorer[parent], b.token, origin.choice, kNever);
    b.best += b.arc.weight;
    b.model = s_.model[parent] + b.arc.weight;
    word = b.arc.word;
  }
  b.parent = c_.stayed[parent] ? parent : -1;
  b.length = s_.length[parent] + 1;
  b.parent_hash = s_.hash[parent];
  add_node(parent, b.token, word, slot, t);
  return b;
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::commit(const Stay& stay, int t) const {
  const BeamScores& b = s_.scores;
  if (b.ends_in_label(me_)) {
    b.path_blank[me_] = b.path_label[me_];
    b.peak_blank[me_] = b.peak_label[me_];
    b.sum_blank[me_] = b.sum_label[me_];
    b.end_blank[me_] = frame(t);
  }
  if (stay.restarts) {
    b.path_label[me_] = BeamScores::pack(frame(t), node_of(me_, t));
    b.peak_label[me_] = b.sum_label[me_] = stay.y;
  } else {
    if (stay.y > b.peak_label[me_]) {
      b.path_label[me_] = BeamScores::pack(frame(t), b.path_label[me_] & int64_t(UINT32_MAX));
      b.peak_label[me_] = stay.y;
    }
    b.sum_label[me_] += stay.y;
  }
  b.total[me_] = stay.next.total;
  b.blank[me_] = stay.next.blank;
  b.label[me_] = stay.next.label;
  b.best_blank[me_] = stay.next.best_blank;
  b.best_label[me_] = stay.next.best_label;
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::drop() const {
  s_.scores.total[me_] = kNever;
  s_.last[me_] = int32_t(p_.blank);
  s_.parent[me_] = -1;
}

template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::settle(const Birth& birth, int slot, int t) const {
  const BeamScores& b = s_.scores;
  b.total[slot] = b.label[slot] = c_.winner_score[me_];
  b.best_label[slot] = birth.best;
  b.blank[slot] = b.best_blank[slot] = b.peak_blank[slot] = b.sum_blank[slot] = kNever;
  b.peak_label[slot] = b.sum_label[slot] = birth.y;
  b.path_label[slot] = BeamScores::pack(frame(t), node_of(slot, t));
  b.path_blank[slot] = -1;
  b.end_blank[slot] = 0;
  s_.last[slot] = birth.token;
  s_.parent[slot] = birth.parent;
  s_.length[slot] = birth.length;
  int32_t word = kNoWord;
  if constexpr (Knowledge::kWeighs) {
    s_.scorer[slot] = birth.arc.state;
    s_.last_weight[slot] = birth.arc.weight;
    s_.word[slot] = word = birth.arc.word;
    s_.model[slot] = birth.model;
    c_.bound[slot] = p_.scorer.bound(birth.arc.state);
  }
  s_.hash[slot] = extend_hash(birth.parent_hash, birth.token, word);
  s_.parent_hash[slot] = birth.parent_hash;
}

// The shorter prefix of this one may have come back.
template <class Element, bool kOneWarp, class Knowledge>
__device__ __forceinline__ void Beam<Element, kOneWarp, Knowledge>::adopt(int births) const {
  for (int i = 0; i < births; ++i) {
    const int slot = c_.vacant[i];
    if (s_.hash[slot] != s_.parent_hash[me_] || s_.length[slot] + 1 != s_.length[me_]) continue;
    const int64_t before = arena()[s_.scores.node(me_)].previous;
    if (spell_the_same(arena(), before, BeamScores::node_of(s_.scores.path_label[slot]))) s_.parent[me_] = slot;
  }
}

}  // namespace cuda
}  // namespace fastctc

#include "beam_candidates.h"

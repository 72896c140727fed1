// Prefix beam search on CUDA: after a pass over all frames for their most probable tokens (top_tokens.cu), one kernel
// goes through the frames of each sample with the threads of a block: a warp for a beam of up to 32, else one thread
// for each prefix.
//
// A frame, thread by thread; in most of them nothing is left to do after the second line:
//
//   stays        each slot: its prefix one frame later                       -> scores[rank]
//   cut          can the best token bring any prefix above the worst stay? are the ranks still in order?
//   extensions   each rank: how many tokens can; then each pair of the two   -> scores[size + number of the pair]
//                each slot: strikes itself out among the extensions of its parent
//   ranking      each candidate: how many are before it                      -> winner[rank]
//   places       each rank: the slot of its prefix, a new one goes where one was dropped
//   next beam    each slot, and each new prefix: what has changed
//   adoption     each slot without a parent: is one of the new prefixes it?
//
// Between two lines stands a barrier. Of equal candidates the one with the lower number is before the other: stays by
// rank, then extensions by rank and token.
#include "../beam_search.h"

#include <new>

#include "rows.h"
#include "team.h"
#include "top_tokens.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int64_t kMaxBeam = 1024;
constexpr int64_t kChunkFrames = 1024;             // whose tokens are in the workspace at the same time
constexpr int64_t kChunkBytes = int64_t(1) << 28;  // and what they may take
constexpr int64_t kSharedCandidates = 2048;        // beyond, they are ranked in global memory
constexpr int kSharedBeam = 256;                   // a wider beam is worked on in global memory
constexpr double kNever = -INFINITY;

// What depends on the shapes alone.
struct Shape {
  int64_t beam_size, tokens;  // tokens of a frame
  int64_t candidates;         // at most, rounded up to a power of two
  size_t shared_bytes;
};

// The working memory of a block, but for the state.
template <bool kOneWarp>
struct Scratch {
  using Team = BlockTeam<kOneWarp>;
  typename Team::Exchange* exchange;
  double* scores;          // of the candidates
  double* winner_score;    // by next rank
  int32_t* candidates;     // their numbers, for sorting
  int32_t* winner;         // by next rank: a candidate
  int32_t *rank, *stayed;  // of each slot
  int32_t* first;          // of each rank: the number of its first extension
  int32_t* vacant;         // slots for new prefixes
  double* many_scores;     // the same in global memory, for as many as there can be
  int32_t* many_candidates;
  FrameScores* frame;  // two frames: this one and the one that is loaded meanwhile
  int32_t* token;      // of each of them, most probable first
  size_t size;

  __host__ __device__ Scratch(void* base, const Shape& shape, double* many_scores, int32_t* many_candidates)
      : many_scores(many_scores), many_candidates(many_candidates) {
    const int64_t W = shape.beam_size;
    const int64_t n = shape.candidates < kSharedCandidates ? shape.candidates : kSharedCandidates;
    Workspace w(base);
    exchange = w.take<typename Team::Exchange>(1);
    scores = w.take<double>(n);
    winner_score = w.take<double>(W);
    candidates = w.take<int32_t>(n);
    winner = w.take<int32_t>(W);
    rank = w.take<int32_t>(W);
    stayed = w.take<int32_t>(W);
    first = w.take<int32_t>(W + 1);
    vacant = w.take<int32_t>(W);
    frame = w.take<FrameScores>(2);
    token = w.take<int32_t>(2 * shape.tokens);
    size = w.size();
  }
};

// x follows the scratch memory, the state x.
template <bool kOneWarp, class Scalar>
size_t shared_bytes(const Shape& shape) {
  const size_t scratch = Scratch<kOneWarp>(nullptr, shape, nullptr, nullptr).size;
  return scratch + (size_t(2 * shape.tokens) * sizeof(Scalar) + 63) / 64 * 64;
}

template <class Scalar>
Shape shape_of(const BeamSearchParams& p) {
  Shape s{};
  s.beam_size = p.beam_size;
  s.tokens = tokens_that_matter(p.classes, p.beam_size);
  int64_t candidates = p.beam_size;
  for (int64_t rank = 0; rank < p.beam_size; ++rank) {
    const int64_t extensions = extensions_of_rank(rank, p.beam_size);
    candidates += extensions < s.tokens ? extensions : s.tokens;
  }
  s.candidates = power_of_two_from(candidates);
  s.shared_bytes = p.beam_size <= kWarp ? shared_bytes<true, Scalar>(s) : shared_bytes<false, Scalar>(s);
  if (p.beam_size <= kSharedBeam) s.shared_bytes += BeamState::bytes(p.beam_size);
  return s;
}

template <class Scalar>
struct SearchWorkspace {
  TopTokens<Scalar> top;
  double* scores;       // (N, candidates), where they do not fit into shared memory
  int32_t* candidates;  // the same
  size_t size;

  static int64_t chunk_frames(const BeamSearchParams& p) {
    const int64_t token_bytes = int64_t(sizeof(Scalar)) + 4;
    const int64_t row_bytes = int64_t(sizeof(FrameScores)) + token_bytes * tokens_that_matter(p.classes, p.beam_size);
    const int64_t most = kChunkBytes / row_bytes / (p.batch > 0 ? p.batch : 1);
    const int64_t frames = p.frames < kChunkFrames ? p.frames : kChunkFrames;
    return most < 1 ? (frames < 1 ? frames : 1) : most < frames ? most : frames;
  }
  SearchWorkspace(Workspace w, const BeamSearchParams& p, const Shape& shape) : top(w, p, chunk_frames(p)) {
    const int64_t count = shape.candidates > kSharedCandidates ? p.batch * shape.candidates : 0;
    scores = w.take<double>(count);
    candidates = w.take<int32_t>(count);
    size = w.size();
  }
};

// Where a prefix one token longer comes from: all paths that it may continue, and the best of them.
struct Origin {
  double total, best, peak;
  int64_t path;
};

// What becomes of the prefix in a slot; kept in registers until all threads have read the old beam.
struct Stay {
  Prefixes<Lanes<double>> next;
  double y;  // of its last token
  // Where its best path in that token now comes from the parent:
  bool restarts;
  int32_t previous;
  float previous_peak;
};

// A new prefix.
struct Birth {
  double best, y;
  int32_t token, parent, length, previous;
  float previous_peak;
  uint64_t parent_hash;
};

// The block on its way through the frames of a sample. Its threads are slots, ranks and next ranks at the same time.
template <class Element, bool kOneWarp>
class Search {
  using Scalar = typename ScalarOf<Element>::type;
  using Team = BlockTeam<kOneWarp>;
  using W = Lanes<double>;

 public:
  __device__ __forceinline__ Search(const BeamSearchParams& p, const SearchWorkspace<Scalar>& w, int tokens,
                                    const Scratch<kOneWarp>& scratch, const BeamState& state)
      : p_(p),
        w_(w),
        c_(scratch),
        s_(state),
        x_(reinterpret_cast<Scalar*>(dynamic_shared<char>() + c_.size)),
        me_(Team::rank()),
        beam_size_(int(p.beam_size)),
        tokens_(tokens) {}

  __device__ __forceinline__ void start();
  __device__ __forceinline__ void run(int64_t first, int frames);

 private:
  __device__ __forceinline__ void fetch(int64_t first, int t);
  __device__ __forceinline__ void receive(int64_t first, int t);
  __device__ __forceinline__ void advance(int t);
  __device__ __forceinline__ Origin origin(int parent, int32_t token) const;
  __device__ __forceinline__ Stay stay(double y) const;
  __device__ __forceinline__ Stay stay_by_blank() const;
  __device__ __forceinline__ int count_extensions(double worst) const;
  __device__ __forceinline__ int rank_of_extension(int e) const;
  __device__ __forceinline__ void score_extensions(int extensions, double worst, double* scores) const;
  __device__ __forceinline__ void strike_out(double* scores) const;
  __device__ __forceinline__ void rank_candidates(int count, double* scores, int32_t* candidate) const;
  __device__ __forceinline__ void select(int extensions, double worst, const Stay& stay, int t);
  __device__ __forceinline__ void next_beam(const Stay& stay, int t);
  __device__ __forceinline__ Birth birth(int e) const;
  __device__ __forceinline__ void commit(const Stay& stay, int t) const;
  __device__ __forceinline__ void drop() const;
  __device__ __forceinline__ void settle(const Birth& b, int slot, int t) const;
  __device__ __forceinline__ void adopt(int births) const;

  __device__ __forceinline__ Scalar score(int64_t t, int64_t c) const {
    const Element* const x = static_cast<const Element*>(p_.input);
    return to_scalar(x[blockIdx.x * p_.stride_n + t * p_.stride_t + c * p_.stride_c]);
  }
  __device__ __forceinline__ BeamNode* arena() const { return p_.arena + blockIdx.x * p_.arena_stride; }
  __device__ __forceinline__ const FrameScores& now() const { return c_.frame[buffer_]; }
  __device__ __forceinline__ Scalar x(int k) const { return x_[buffer_ * tokens_ + k]; }
  __device__ __forceinline__ int32_t token(int k) const { return c_.token[buffer_ * tokens_ + k]; }
  __device__ __forceinline__ double y(int k) const { return log_prob(double(x(k)), now().log_denominator); }
  __device__ __forceinline__ bool has_slot() const { return me_ < beam_size_; }
  __device__ __forceinline__ bool alive() const { return has_slot() && s_.scores.total[me_] > kNever; }
  __device__ __forceinline__ bool near_best(double score, double best) const {
    return score > kNever && !(score < best - p_.beam_threshold);
  }

  const BeamSearchParams& p_;
  const SearchWorkspace<Scalar>& w_;
  const Scratch<kOneWarp>& c_;
  const BeamState& s_;
  Scalar* const x_;  // scores of the tokens of two frames
  const int me_, beam_size_, tokens_;
  int size_ = 0;
  int buffer_ = 0;        // of the two frames, this one
  Scalar score_;          // of the last token of this slot
  Scalar next_score_;     // loaded while the frame before is worked on
  bool renewed_ = false;  // in that frame the slot got another prefix
};

// A beam of the empty prefix.
template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::start() {
  const BeamScores& b = s_.scores;
  for (int64_t j = me_; j < s_.stride; j += Team::size()) {
    b.total[j] = b.blank[j] = b.best_blank[j] = j == 0 ? 0 : kNever;
    b.label[j] = b.best_label[j] = b.peak_blank[j] = b.peak_label[j] = kNever;
    b.path_blank[j] = b.path_label[j] = -1;
    s_.last[j] = int32_t(p_.blank);
    s_.parent[j] = -1;
    s_.length[j] = 0;
    s_.hash[j] = kEmptyPrefix;
    s_.parent_hash[j] = 0;
    s_.order[j] = 0;
  }
  if (me_ == 0) *s_.header = {0, 0, 1, 1, beam_size_, kOk};
}

// Frames [first, first + frames) of this call, whose tokens are in the workspace.
template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::run(int64_t first, int frames) {
  Team::sync();  // the state is there
  Status status = kOk;
  size_ = s_.header->size;
  if (me_ < size_) c_.rank[s_.order[me_]] = me_;
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
template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::fetch(int64_t first, int t) {
  const int64_t row = blockIdx.x * w_.top.frames + t;
  const int buffer = buffer_ ^ 1;
  for (int k = me_; k < tokens_; k += Team::size()) {
    async_copy<sizeof(Scalar)>(x_ + buffer * tokens_ + k, w_.top.x + row * tokens_ + k);
    async_copy<sizeof(int32_t)>(c_.token + buffer * tokens_ + k, w_.top.token + row * tokens_ + k);
  }
  if (me_ < int(sizeof(FrameScores)) / 16) {
    async_copy<16>(reinterpret_cast<char*>(c_.frame + buffer) + 16 * me_,
                   reinterpret_cast<const char*>(w_.top.scores + row) + 16 * me_);
  }
  async_commit();
  if (has_slot()) next_score_ = score(first + t, s_.last[me_]);
}
template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::receive(int64_t first, int t) {
  score_ = renewed_ ? score(first + t, s_.last[me_]) : next_score_;
  renewed_ = false;
  buffer_ ^= 1;
  async_wait<0>();
  Team::sync();
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::advance(int t) {
  const bool certain = now().blank > p_.blank_skip;
  const double reachable = certain || tokens_ == 0 ? kNever : s_.scores.total[s_.order[0]] + y(0);
  Stay mine{};
  const bool stays = alive();
  if (stays) {
    mine = certain ? stay_by_blank() : stay(log_prob(double(score_), now().log_denominator));
    c_.scores[c_.rank[me_]] = mine.next.total;
  }
  Team::sync();
  const double of_rank = me_ < size_ ? c_.scores[me_] : INFINITY;
  const bool sorted = !Team::any(me_ + 1 < size_ && of_rank < c_.scores[me_ + 1]);
  double worst = kNever;
  if (size_ == beam_size_) worst = sorted ? c_.scores[size_ - 1] : Team::min(of_rank, *c_.exchange);
  const int extensions = reachable > worst ? count_extensions(worst) : 0;
  if (sorted && extensions == 0 && near_best(c_.scores[size_ - 1], c_.scores[0])) {
    if (stays) commit(mine, t);
  } else {
    select(extensions, worst, mine, t);
  }
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ Origin Search<Element, kOneWarp>::origin(int parent, int32_t token) const {
  const BeamScores& b = s_.scores;
  const bool after_blank = s_.last[parent] == token, from_label = !after_blank && b.ends_in_label(parent);
  return {after_blank ? b.blank[parent] : b.total[parent], from_label ? b.best_label[parent] : b.best_blank[parent],
          from_label ? b.peak_label[parent] : b.peak_blank[parent],
          from_label ? b.path_label[parent] : b.path_blank[parent]};
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ Stay Search<Element, kOneWarp>::stay(double y) const {
  const BeamScores& b = s_.scores;
  const Prefixes<W> old = {b.total[me_], b.blank[me_], b.label[me_], b.best_blank[me_], b.best_label[me_]};
  const int parent = s_.parent[me_];
  Origin from = {kNever, kNever, kNever, -1};
  if (parent >= 0) from = origin(parent, s_.last[me_]);
  Stay s;
  s.next = fastctc::stay<W>(old, from.total, from.best, y, now().blank);
  s.y = y;
  s.restarts = from.best > old.best_label;
  s.previous = int32_t(from.path);
  s.previous_peak = float(from.peak);
  return s;
}

// In a frame that counts as blank.
template <class Element, bool kOneWarp>
__device__ __forceinline__ Stay Search<Element, kOneWarp>::stay_by_blank() const {
  const BeamScores& b = s_.scores;
  Stay s{};
  s.next.total = s.next.blank = b.total[me_] + now().blank;
  s.next.best_blank = W::max(b.best_blank[me_], b.best_label[me_]) + now().blank;
  s.next.label = s.next.best_label = s.y = kNever;
  return s;
}

// How many tokens bring the prefix of each rank above the worst stay; their sum.
template <class Element, bool kOneWarp>
__device__ __forceinline__ int Search<Element, kOneWarp>::count_extensions(double worst) const {
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
  const int before = Team::sum_before(count, sum, *c_.exchange);
  if (me_ < size_) c_.first[me_] = before;
  if (me_ == 0) c_.first[size_] = sum;
  Team::sync();
  return sum;
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ int Search<Element, kOneWarp>::rank_of_extension(int e) const {
  int rank = 0;
  for (int end = size_; end - rank > 1;) {
    const int middle = (rank + end) / 2;
    (c_.first[middle] <= e ? rank : end) = middle;
  }
  return rank;
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::score_extensions(int extensions, double worst,
                                                                            double* scores) const {
  for (int e = me_; e < extensions; e += Team::size()) {
    const int rank = rank_of_extension(e), k = e - c_.first[rank], slot = s_.order[rank];
    const bool repeats = s_.last[slot] == token(k);
    // The weight that a scorer gives to this extension would be added here.
    const double score = (repeats ? s_.scores.blank[slot] : s_.scores.total[slot]) + y(k);
    scores[size_ + e] = score > worst ? score : kNever;
  }
}

// A prefix that is in the beam is not new: where is its last token among those that extend its parent?
template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::strike_out(double* scores) const {
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
template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::rank_candidates(int count, double* scores,
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

template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::select(int extensions, double worst, const Stay& stay,
                                                                  int t) {
  double* scores = c_.scores;
  int32_t* candidate = c_.candidates;
  if (size_ + extensions > kSharedCandidates) {
    scores = c_.many_scores;
    candidate = c_.many_candidates;
    if (me_ < size_) scores[me_] = c_.scores[me_];
  }
  if (has_slot()) {
    c_.winner_score[me_] = kNever;
    c_.stayed[me_] = 0;
  }
  score_extensions(extensions, worst, scores);
  Team::sync();
  if (extensions > 0) strike_out(scores);
  Team::sync();
  rank_candidates(size_ + extensions, scores, candidate);
  next_beam(stay, t);
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::next_beam(const Stay& stay, int t) {
  const bool enters = has_slot() && near_best(c_.winner_score[me_], c_.winner_score[0]);
  const int winner = enters ? c_.winner[me_] : 0, size = Team::count(enters);
  const bool born = enters && winner >= size_;
  int births, vacancies, slot = 0;
  if (enters && !born) {
    slot = s_.order[winner];
    c_.stayed[slot] = 1;
  }
  const int number = Team::sum_before(born, births, *c_.exchange);
  Team::sync();
  const bool stays = has_slot() && c_.stayed[me_], vacant = has_slot() && !stays;
  const int place = Team::sum_before(vacant, vacancies, *c_.exchange);
  renewed_ = vacant && place < births;
  if (renewed_) c_.vacant[place] = me_;
  Team::sync();
  Birth mine{};
  if (born) {
    mine = birth(winner - size_);
    slot = c_.vacant[number];
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

template <class Element, bool kOneWarp>
__device__ __forceinline__ Birth Search<Element, kOneWarp>::birth(int e) const {
  const int rank = rank_of_extension(e), k = e - c_.first[rank], slot = s_.order[rank];
  const Origin from = origin(slot, token(k));
  Birth b;
  b.y = y(k);
  b.best = from.best + b.y;
  b.token = token(k);
  b.parent = c_.stayed[slot] ? slot : -1;
  b.length = s_.length[slot] + 1;
  b.previous = int32_t(from.path);
  b.previous_peak = float(from.peak);
  b.parent_hash = s_.hash[slot];
  return b;
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::commit(const Stay& stay, int t) const {
  const BeamScores& b = s_.scores;
  if (b.ends_in_label(me_)) {
    b.path_blank[me_] = b.path_label[me_];
    b.peak_blank[me_] = b.peak_label[me_];
  }
  if (stay.restarts) {
    const int64_t frame = s_.header->frame + t,
                  node = frame * beam_size_ + me_;  // a slot makes one at most in each frame
    arena()[node] = {stay.previous, s_.last[me_], int32_t(frame), stay.previous_peak};
    b.path_label[me_] = node;
    b.peak_label[me_] = stay.y;
  } else {
    b.peak_label[me_] = W::max(b.peak_label[me_], stay.y);
  }
  b.total[me_] = stay.next.total;
  b.blank[me_] = stay.next.blank;
  b.label[me_] = stay.next.label;
  b.best_blank[me_] = stay.next.best_blank;
  b.best_label[me_] = stay.next.best_label;
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::drop() const {
  s_.scores.total[me_] = kNever;
  s_.last[me_] = int32_t(p_.blank);
  s_.parent[me_] = -1;
}

template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::settle(const Birth& birth, int slot, int t) const {
  const BeamScores& b = s_.scores;
  const int64_t frame = s_.header->frame + t, node = frame * beam_size_ + slot;
  arena()[node] = {birth.previous, birth.token, int32_t(frame), birth.previous_peak};
  b.total[slot] = b.label[slot] = c_.winner_score[me_];
  b.best_label[slot] = birth.best;
  b.blank[slot] = b.best_blank[slot] = b.peak_blank[slot] = kNever;
  b.peak_label[slot] = birth.y;
  b.path_label[slot] = node;
  b.path_blank[slot] = -1;
  s_.last[slot] = birth.token;
  s_.parent[slot] = birth.parent;
  s_.length[slot] = birth.length;
  s_.hash[slot] = extend_hash(birth.parent_hash, birth.token);
  s_.parent_hash[slot] = birth.parent_hash;
}

// This prefix may have outlived a shorter one that has come back.
template <class Element, bool kOneWarp>
__device__ __forceinline__ void Search<Element, kOneWarp>::adopt(int births) const {
  for (int i = 0; i < births; ++i) {
    const int slot = c_.vacant[i];
    if (s_.hash[slot] != s_.parent_hash[me_] || s_.length[slot] + 1 != s_.length[me_]) continue;
    const int64_t before = arena()[s_.scores.path(me_)].previous;
    if (spell_the_same(arena(), before, s_.scores.path_label[slot])) s_.parent[me_] = slot;
  }
}

template <bool kOneWarp>
__device__ __forceinline__ void copy_state(char* to, const char* from, int64_t bytes) {
  using Team = BlockTeam<kOneWarp>;
  Team::sync();
  for (int64_t i = Team::rank(); i < bytes / 8; i += Team::size()) {
    reinterpret_cast<uint64_t*>(to)[i] = reinterpret_cast<const uint64_t*>(from)[i];
  }
  Team::sync();
}

template <bool kOneWarp>
struct Pointers {
  alignas(16) char scratch[sizeof(Scratch<kOneWarp>)];
  alignas(16) char state[sizeof(BeamState)];
};

template <class Element, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    search(BeamSearchParams p, SearchWorkspace<typename ScalarOf<Element>::type> w, Shape shape, int64_t first) {
  constexpr bool kOneWarp = kThreads == kWarp, kInShared = kThreads <= kSharedBeam;
  using Team = BlockTeam<kOneWarp>;
  const int64_t n = blockIdx.x, length = p.input_lengths[n], bytes = int64_t(BeamState::bytes(p.beam_size));
  char* const home = p.state + n * p.state_stride;
  BeamHeader* const header = reinterpret_cast<BeamHeader*>(home);
  const BeamHeader before = *header;
  Team::sync();  // all have read it
  if (length < 0 || length > p.frames || (before.frame + length - first) * p.beam_size > p.capacity) {
    if (Team::rank() == 0) header->started = 1;
    if (Team::rank() == 0) header->status = kInvalid;
    return;
  }
  const int64_t left = length > first ? length - first : 0, frames = left < w.top.frames ? left : w.top.frames;
  if (before.status != kOk || (before.started && (frames == 0 || before.size == 0))) return;
  char* const state = kInShared ? dynamic_shared<char>() + (shape.shared_bytes - bytes) : home;
  if (kInShared && before.started) copy_state<kOneWarp>(state, home, bytes);
  const auto make_scratch = [&] {
    return Scratch<kOneWarp>(dynamic_shared<char>(), shape, w.scores + n * shape.candidates,
                             w.candidates + n * shape.candidates);
  };
  const auto go = [&](const Scratch<kOneWarp>& scratch, const BeamState& arrays) {
    Search<Element, kOneWarp> beam(p, w, int(shape.tokens), scratch, arrays);
    if (!before.started) beam.start();
    beam.run(first, int(frames));
  };
  if constexpr (kInShared) {
    go(make_scratch(), BeamState(state, p.beam_size));
  } else {  // for registers' sake in shared memory
    FASTCTC_SHARED_ARRAY(Pointers<kOneWarp>, pointers, [1]);
    if (Team::rank() == 0) {
      new (pointers->scratch) Scratch<kOneWarp>(make_scratch());
      new (pointers->state) BeamState(state, p.beam_size);
    }
    Team::sync();
    go(*reinterpret_cast<const Scratch<kOneWarp>*>(pointers->scratch),
       *reinterpret_cast<const BeamState*>(pointers->state));
  }
  if (kInShared) copy_state<kOneWarp>(home, state, bytes);
}

template <class Element>
cudaError_t run(const BeamSearchParams& p, void* workspace, cudaStream_t stream) {
  using Scalar = typename ScalarOf<Element>::type;
  if (p.beam_size < 1 || p.beam_size > kMaxBeam || p.batch > INT32_MAX || p.classes > INT32_MAX) {
    return cudaErrorInvalidValue;
  }
  const Shape shape = shape_of<Scalar>(p);
  const SearchWorkspace<Scalar> w(Workspace(workspace), p, shape);
  const dim3 samples{unsigned(p.batch)}, threads{unsigned((p.beam_size + kWarp - 1) / kWarp * kWarp)};
  const auto kernel = threads.x == kWarp                   ? search<Element, kWarp>
                      : threads.x <= unsigned(kSharedBeam) ? search<Element, kSharedBeam>
                                                           : search<Element, int(kMaxBeam)>;
  cudaError_t error = cudaSuccess;
  int64_t first = 0;
  do {  // without frames too: the beam is started
    if (p.frames > 0) error = find_top_tokens(p, first, w.top, stream);
    if (!error) error = launch(kernel, samples, threads, shape.shared_bytes, stream, p, w, shape, first);
    first += w.top.frames;
  } while (!error && first < p.frames);
  return error;
}

// A warp for each hypothesis: one lane walks its path backwards.
template <class Scalar>
__global__ void __launch_bounds__(kRowThreads, 1) results(BeamResultParams p) {
  using T = Team<1>;
  for (int64_t h = T::first_row(); h < p.batch * p.nbest; h += T::row_step()) {
    const int64_t n = h / p.nbest, rank = h - n * p.nbest;
    const BeamState s(const_cast<char*>(p.state) + n * p.state_stride, p.beam_size);
    const BeamNode* const arena = p.arena + n * p.arena_stride;
    const BeamHeader& header = *s.header;
    int64_t *const tokens = p.tokens + h * p.max_length, *const timesteps = p.timesteps + h * p.max_length;
    Scalar* const confidences = static_cast<Scalar*>(p.confidences) + h * p.max_length;
    int64_t length = 0;
    double score = kNever;
    if (header.status != kOk) {
      score = double(NAN);
    } else if (!header.started) {  // the empty prefix
      if (rank == 0) score = 0;
    } else if (rank < header.size) {
      const int32_t slot = s.order[rank];
      length = s.length[slot];
      score = s.scores.total[slot];
      int64_t node = s.scores.path(slot);
      float peak = float(s.scores.peak(slot));
      for (int64_t i = length - 1; i >= 0 && lane_id() == 0; --i) {
        const BeamNode a = arena[node];
        tokens[i] = a.token;
        timesteps[i] = a.frame;
        confidences[i] = Scalar(peak);
        peak = a.previous_peak;
        node = a.previous;
      }
    }
    __syncwarp();
    for (int64_t i = lane_id(); i < p.max_length; i += kWarp) {
      const double log = i < length ? double(confidences[i]) : kNever;
      confidences[i] = log < -700 ? Scalar(0) : Scalar(exp_of_negative<Lanes<double>>(fmin(log, 0.0)));
      if (i >= length) tokens[i] = timesteps[i] = -1;
    }
    if (lane_id() == 0) {
      p.lengths[h] = length;
      static_cast<Scalar*>(p.scores)[h] = Scalar(score);
    }
  }
}

}  // namespace

size_t beam_search_workspace(const BeamSearchParams& p) {
  if (p.dtype == DType::kFloat64) return SearchWorkspace<double>(Workspace(nullptr), p, shape_of<double>(p)).size;
  return SearchWorkspace<float>(Workspace(nullptr), p, shape_of<float>(p)).size;
}
int beam_search(const BeamSearchParams& p, void* workspace, void* stream) {
  return with_element(p.dtype, [&](auto element) {
    return int(run<decltype(element)>(p, workspace, static_cast<cudaStream_t>(stream)));
  });
}
int beam_search_result(const BeamResultParams& p, void* stream) {
  const auto kernel = p.dtype == DType::kFloat64 ? results<double> : results<float>;
  return int(launch(kernel, grid_for(p.batch * p.nbest, Team<1>::kTeams), dim3(kRowThreads), 0,
                    static_cast<cudaStream_t>(stream), p));
}

}  // namespace cuda
}  // namespace fastctc

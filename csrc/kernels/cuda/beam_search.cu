// Prefix beam search on CUDA: a pass over all frames for their most probable tokens (top_tokens.cu), then one kernel
// with a block for each sample goes through the frames (beam.h). Many frames are done in chunks.
#include "../beam_search.h"

#include <new>

#include "../beam_result.h"
#include "beam.h"
#include "rows.h"

namespace fastctc {
namespace cuda {
namespace {

constexpr int kSharedBeam = 256;                   // a wider beam is worked on in global memory
constexpr int64_t kChunkFrames = 1024;             // whose tokens are in the workspace at the same time
constexpr int64_t kChunkBytes = int64_t(1) << 28;  // and what they may take

template <class Scalar>
BeamShape shape_of(const BeamSearchParams& p) {
  BeamShape s{};
  s.beam_size = p.beam_size;
  s.tokens = tokens_that_matter(p.classes, p.beam_size);
  int64_t candidates = p.beam_size;
  for (int64_t rank = 0; rank < p.beam_size; ++rank) {
    const int64_t extensions = extensions_of_rank(rank, p.beam_size);
    candidates += extensions < s.tokens ? extensions : s.tokens;
  }
  s.candidates = power_of_two_from(candidates);
  s.shared_bytes = p.beam_size <= kWarp ? BeamScratch<Scalar, true>(nullptr, s, nullptr, nullptr).size
                                        : BeamScratch<Scalar, false>(nullptr, s, nullptr, nullptr).size;
  if (p.beam_size <= kSharedBeam) s.shared_bytes += BeamState::bytes(p.beam_size, p.weighs);
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
  SearchWorkspace(Workspace w, const BeamSearchParams& p, const BeamShape& shape) : top(w, p, chunk_frames(p)) {
    const int64_t count = shape.candidates > kSharedCandidates ? p.batch * shape.candidates : 0;
    scores = w.take<double>(count);
    candidates = w.take<int32_t>(count);
    size = w.size();
  }
};

template <bool kOneWarp>
__device__ __forceinline__ void copy_state(char* to, const char* from, int64_t bytes) {
  using Team = BlockTeam<kOneWarp>;
  Team::sync();
  for (int64_t i = Team::rank(); i < bytes / 8; i += Team::size()) {
    reinterpret_cast<uint64_t*>(to)[i] = reinterpret_cast<const uint64_t*>(from)[i];
  }
  Team::sync();
}

template <class Scalar, bool kOneWarp>
struct Pointers {
  alignas(16) char scratch[sizeof(BeamScratch<Scalar, kOneWarp>)];
  alignas(16) char state[sizeof(BeamState)];
};

template <class Element, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    search(BeamSearchParams p, SearchWorkspace<typename ScalarOf<Element>::type> w, BeamShape shape, int64_t first) {
  using Scalar = typename ScalarOf<Element>::type;
  constexpr bool kOneWarp = kThreads == kWarp, kInShared = kThreads <= kSharedBeam;
  using Team = BlockTeam<kOneWarp>;
  const int64_t n = blockIdx.x, length = p.input_lengths[n], bytes = int64_t(BeamState::bytes(p.beam_size, p.weighs));
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
    return BeamScratch<Scalar, kOneWarp>(dynamic_shared<char>(), shape, w.scores + n * shape.candidates,
                                         w.candidates + n * shape.candidates);
  };
  const auto go = [&](const BeamScratch<Scalar, kOneWarp>& scratch, const BeamState& arrays) {
    Beam<Element, kOneWarp> beam(p, w.top, scratch, arrays);
    if (!before.started) beam.start();
    beam.run(first, int(frames));
  };
  if constexpr (kInShared) {
    go(make_scratch(), BeamState(state, p.beam_size, p.weighs));
  } else {  // for registers' sake in shared memory
    using Here = Pointers<Scalar, kOneWarp>;
    FASTCTC_SHARED_ARRAY(Here, pointers, [1]);
    if (Team::rank() == 0) {
      new (pointers->scratch) BeamScratch<Scalar, kOneWarp>(make_scratch());
      new (pointers->state) BeamState(state, p.beam_size, p.weighs);
    }
    Team::sync();
    go(*reinterpret_cast<const BeamScratch<Scalar, kOneWarp>*>(pointers->scratch),
       *reinterpret_cast<const BeamState*>(pointers->state));
  }
  if (kInShared) copy_state<kOneWarp>(home, state, bytes);
}

template <class Element>
cudaError_t run(const BeamSearchParams& p, void* workspace, cudaStream_t stream) {
  using Scalar = typename ScalarOf<Element>::type;
  if (p.beam_size < 1 || p.beam_size > kLargestBeam || p.batch > INT32_MAX || p.classes > INT32_MAX) {
    return cudaErrorInvalidValue;
  }
  const BeamShape shape = shape_of<Scalar>(p);
  const SearchWorkspace<Scalar> w(Workspace(workspace), p, shape);
  const dim3 samples{unsigned(p.batch)}, threads{unsigned((p.beam_size + kWarp - 1) / kWarp * kWarp)};
  const auto kernel = threads.x == kWarp                   ? search<Element, kWarp>
                      : threads.x <= unsigned(kSharedBeam) ? search<Element, kSharedBeam>
                                                           : search<Element, int(kLargestBeam)>;
  cudaError_t error = cudaSuccess;
  int64_t first = 0;
  do {  // without frames too: the beam is started
    if (p.frames > 0) error = find_top_tokens(p, first, w.top, stream);
    if (!error) error = launch(kernel, samples, threads, shape.shared_bytes, stream, p, w, shape, first);
    first += w.top.frames;
  } while (!error && first < p.frames);
  return error;
}

// A warp for each hypothesis.
template <class Scalar>
__global__ void __launch_bounds__(kRowThreads, 1) results(BeamResultParams p) {
  using T = RowTeam<1>;
  for (int64_t h = T::first_row(); h < p.batch * p.nbest; h += T::row_step()) {
    const int64_t n = h / p.nbest;
    write_hypothesis<Lanes<double>, Scalar>(p, n, h - n * p.nbest);
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
  return int(launch_warps(kernel, p.batch * p.nbest, 0, static_cast<cudaStream_t>(stream), p));
}

}  // namespace cuda
}  // namespace fastctc

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

constexpr int64_t kChunkFrames = 1024;             // whose tokens are in the workspace at the same time
constexpr int64_t kChunkBytes = int64_t(1) << 28;  // and what they may take

template <class Scalar, class Knowledge>
BeamShape shape_of(const BeamSearchParams& p) {
  BeamShape s{};
  s.beam_size = p.beam_size;
  s.tokens = tokens_that_matter(p.classes, p.beam_size);
  int64_t candidates = p.beam_size;
  for (int64_t rank = 0; rank < p.beam_size; ++rank) {
    const int64_t extensions = extensions_of_rank(rank, p.beam_size);
    candidates += extensions < s.tokens ? extensions : s.tokens;
  }
  s.candidates = power_of_two_from(Knowledge::kWeighs ? candidates_kept(p.beam_size) : candidates);
  if (Knowledge::kWeighs && tokens_listed(p) < p.classes - 1) s.sorted = power_of_two_from(p.classes - 1);
  Workspace nowhere(nullptr);
  const GlobalScratch<Scalar> none(nowhere, s, 0, Knowledge::kWeighs);
  s.shared_bytes = p.beam_size <= kWarp ? BeamScratch<Scalar, true, Knowledge>(nullptr, s, none).size
                                        : BeamScratch<Scalar, false, Knowledge>(nullptr, s, none).size;
  if (p.beam_size <= kSharedBeam) s.shared_bytes += BeamState::bytes(p.beam_size, p.weighs);
  return s;
}

template <class Scalar>
struct SearchWorkspace {
  TopTokens<Scalar> top;
  GlobalScratch<Scalar> scratch;
  size_t size;

  static int64_t chunk_frames(const BeamSearchParams& p) {
    const int64_t token_bytes = int64_t(sizeof(Scalar)) + 4;
    const int64_t row_bytes = int64_t(sizeof(FrameScores)) + token_bytes * tokens_listed(p);
    const int64_t most = kChunkBytes / row_bytes / (p.batch > 0 ? p.batch : 1);
    const int64_t frames = p.frames < kChunkFrames ? p.frames : kChunkFrames;
    return most < 1 ? (frames < 1 ? frames : 1) : most < frames ? most : frames;
  }
  SearchWorkspace(Workspace w, const BeamSearchParams& p, const BeamShape& shape)
      : top(w, p, chunk_frames(p)), scratch(w, shape, p.batch, p.weighs) {
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

template <class Scratch>
struct Pointers {
  alignas(16) char scratch[sizeof(Scratch)];
  alignas(16) char state[sizeof(BeamState)];
};

template <class Element, int kThreads, class Knowledge>
__global__ void __launch_bounds__(kThreads, 1)
    search(BeamSearchParams p, SearchWorkspace<typename ScalarOf<Element>::type> w, BeamShape shape, int64_t first) {
  using Scalar = typename ScalarOf<Element>::type;
  constexpr bool kOneWarp = kThreads == kWarp, kInShared = kThreads <= kSharedBeam;
  using Team = BlockTeam<kOneWarp>;
  using Scratch = BeamScratch<Scalar, kOneWarp, Knowledge>;
  const int64_t n = blockIdx.x, length = p.input_lengths[n],
                bytes = int64_t(BeamState::bytes(p.beam_size, Knowledge::kWeighs));
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
  const auto make_scratch = [&] { return Scratch(dynamic_shared<char>(), shape, w.scratch.of(n, shape)); };
  const auto go = [&](const Scratch& scratch, const BeamState& arrays) {
    Beam<Element, kOneWarp, Knowledge> beam(p, w.top, scratch, arrays);
    if (!before.started) beam.start();
    beam.run(first, int(frames));
  };
  if constexpr (kInShared) {
    go(make_scratch(), BeamState(state, p.beam_size, Knowledge::kWeighs));
  } else {  // for registers' sake in shared memory
    using Here = Pointers<Scratch>;
    FASTCTC_SHARED_ARRAY(Here, pointers, [1]);
    if (Team::rank() == 0) {
      new (pointers->scratch) Scratch(make_scratch());
      new (pointers->state) BeamState(state, p.beam_size, Knowledge::kWeighs);
    }
    Team::sync();
    go(*reinterpret_cast<const Scratch*>(pointers->scratch), *reinterpret_cast<const BeamState*>(pointers->state));
  }
  if (kInShared) copy_state<kOneWarp>(home, state, bytes);
}

template <class Element, class Knowledge>
cudaError_t run(const BeamSearchParams& p, void* workspace, cudaStream_t stream) {
  using Scalar = typename ScalarOf<Element>::type;
  if (p.beam_size < 1 || p.beam_size > kLargestBeam || p.batch > INT32_MAX || p.classes > INT32_MAX) {
    return cudaErrorInvalidValue;
  }
  if (Knowledge::kWeighs && p.classes > INT32_MAX / 2 / p.beam_size) return cudaErrorInvalidValue;
  const BeamShape shape = shape_of<Scalar, Knowledge>(p);
  const SearchWorkspace<Scalar> w(Workspace(workspace), p, shape);
  const dim3 samples{unsigned(p.batch)}, threads{unsigned((p.beam_size + kWarp - 1) / kWarp * kWarp)};
  const auto kernel = threads.x == kWarp                   ? search<Element, kWarp, Knowledge>
                      : threads.x <= unsigned(kSharedBeam) ? search<Element, kSharedBeam, Knowledge>
                                                           : search<Element, int(kLargestBeam), Knowledge>;
  cudaError_t error = cudaSuccess;
  int64_t first = 0;
  do {  // without frames too: the beam is started
    if (p.frames > 0) error = find_top_tokens(p, first, w.top, stream);
    if (!error) error = launch("search", kernel, samples, threads, shape.shared_bytes, stream, p, w, shape, first);
    first += w.top.frames;
  } while (!error && first < p.frames);
  return error;
}

// With a scorer: a warp for each sample. Each lane weighs the first ending of one prefix, the first lane chooses.
__global__ void __launch_bounds__(kRowThreads) endings(BeamResultParams p) {
  using T = RowTeam<1>;
  for (int64_t n = T::first_row(); n < p.batch; n += T::row_step()) {
    BestEndings best(p, n);
    const ScorerState* const states = best.s.scorer;
    for (int64_t first = 0; first < best.size; first += kWarp) {
      const int64_t rank = first + T::rank();
      const int32_t slot = rank < best.size ? best.s.order[rank] : 0;
      const int32_t ways = rank < best.size ? p.scorer.ways_to_end(states[slot]) : 0;
      const ScorerEnd end = ways > 0 ? p.scorer.end(states[slot], 0) : ScorerEnd{kNoWord, kNever};
      for (int lane = 0; lane < kWarp && first + lane < best.size; ++lane) {
        const int32_t slot_there = from_lane(slot, lane), ways_there = from_lane(ways, lane);
        const ScorerEnd end_there = {from_lane(end.word, lane), from_lane(end.weight, lane)};
        if (T::rank() > 0) continue;
        best.add(slot_there, end_there);
        for (int32_t choice = 1; choice < ways_there; ++choice) {
          best.add(slot_there, p.scorer.end(states[slot_there], choice));
        }
      }
    }
    if (T::rank() == 0) best.finish();
  }
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
  return with_knowledge(p, [&](auto knowledge) {
    using Knowledge = decltype(knowledge);
    const Workspace nowhere(nullptr);
    if (p.dtype == DType::kFloat64) return SearchWorkspace<double>(nowhere, p, shape_of<double, Knowledge>(p)).size;
    return SearchWorkspace<float>(nowhere, p, shape_of<float, Knowledge>(p)).size;
  });
}
int beam_search(const BeamSearchParams& p, void* workspace, void* stream) {
  return with_element(p.dtype, [&](auto element) {
    return with_knowledge(p, [&](auto knowledge) {
      return int(run<decltype(element), decltype(knowledge)>(p, workspace, static_cast<cudaStream_t>(stream)));
    });
  });
}
int beam_search_result(const BeamResultParams& p, void* stream) {
  const auto kernel = p.dtype == DType::kFloat64 ? results<double> : results<float>;
  cudaError_t error = cudaSuccess;
  if (p.weighs) error = launch_warps("endings", endings, p.batch, 0, static_cast<cudaStream_t>(stream), p);
  if (!error) error = launch_warps("results", kernel, p.batch * p.nbest, 0, static_cast<cudaStream_t>(stream), p);
  return int(error);
}

}  // namespace cuda
}  // namespace fastctc

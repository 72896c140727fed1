// fastctc::beam_search and, for streams, beam_search_advance and beam_search_result: checks, allocation, registration.
#include "../kernels/beam_search.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "decoders.h"
#include "log_probs.h"
#include "scorer.h"

namespace fastctc {
namespace {

using Result = Tensors<9>;
using ScoredResult = Tensors<13>;  // and acoustic_scores, model_scores, words, last_words

void check_beam_size(int64_t beam_size, const Tensor& place) {
  if (beam_size < 1) value_error("beam_size is ", beam_size, ", but must be at least 1");
  const bool on_gpu = on_cuda(place);
  const int64_t largest = on_gpu ? cuda::kLargestBeam : cpu::kLargestBeam;
  if (beam_size > largest) {
    value_error("beam_size is ", beam_size, ", but must be at most ", largest, on_gpu ? " on CUDA" : "");
  }
}

BeamSearchParams parameters(const Tensor& input, const Tensor& input_lengths, int64_t beam_size, int64_t blank,
                            bool from_logits, double beam_threshold, double token_threshold, double blank_skip) {
  check_beam_size(beam_size, input);
  BeamSearchParams p{};
  set_input(p, input, Layout::kBatchFirst, input_lengths, blank);
  p.beam_size = beam_size;
  p.from_logits = from_logits;
  p.beam_threshold = beam_threshold;
  p.token_threshold = token_threshold;
  p.blank_skip = blank_skip;
  return p;
}

// Results for `batch` samples, on the device of `place`.
struct Outputs {
  Tensor tokens, timesteps, ends, peaks;  // (N, nbest, max_length) int64
  Tensor confidences, token_scores;       // (N, nbest, max_length)
  Tensor lengths, scores, path_scores;    // (N, nbest)
  // With a scorer:
  Tensor acoustic_scores, model_scores, last_words;  // (N, nbest)
  Tensor words;                                      // (N, nbest, max_length)
  Tensor endings;                                    // scratch
  BeamResultParams params{};

  Outputs(const Tensor& place, int64_t batch, int64_t beam_size, int64_t nbest, int64_t max_length, bool float64)
      : Outputs([&](ScalarType type) { return empty_tensor(place, {batch, nbest, max_length}, type); },
                [&](ScalarType type) { return empty_tensor(place, {batch, nbest}, type); },
                float64 ? ScalarType::Double : ScalarType::Float) {
    params.batch = batch;
    params.beam_size = beam_size;
    params.nbest = nbest;
    params.max_length = max_length;
    params.dtype = float64 ? DType::kFloat64 : DType::kFloat32;
    params.tokens = static_cast<int64_t*>(tokens.mutable_data_ptr());
    params.lengths = static_cast<int64_t*>(lengths.mutable_data_ptr());
    params.scores = scores.mutable_data_ptr();
    params.path_scores = path_scores.mutable_data_ptr();
    params.timesteps = static_cast<int64_t*>(timesteps.mutable_data_ptr());
    params.ends = static_cast<int64_t*>(ends.mutable_data_ptr());
    params.peaks = static_cast<int64_t*>(peaks.mutable_data_ptr());
    params.confidences = confidences.mutable_data_ptr();
    params.token_scores = token_scores.mutable_data_ptr();
  }
  // For the results of a search with this scorer.
  void add_scorer(const Scorer& scorer) {
    const auto like = [](const Tensor& t, ScalarType type) {
      return t.dim() == 3 ? empty_tensor(t, {t.size(0), t.size(1), t.size(2)}, type)
                          : empty_tensor(t, {t.size(0), t.size(1)}, type);
    };
    acoustic_scores = like(scores, scores.scalar_type());
    model_scores = like(scores, scores.scalar_type());
    last_words = like(lengths, ScalarType::Long);
    words = like(tokens, ScalarType::Long);
    endings = device_workspace(tokens, size_t(params.batch) * size_t(params.nbest) * sizeof(Ending));
    params.scorer = scorer;
    params.weighs = true;
    params.endings = static_cast<Ending*>(endings.mutable_data_ptr());
    params.acoustic_scores = acoustic_scores.mutable_data_ptr();
    params.model_scores = model_scores.mutable_data_ptr();
    params.words = static_cast<int64_t*>(words.mutable_data_ptr());
    params.last_words = static_cast<int64_t*>(last_words.mutable_data_ptr());
  }
  Result result() const {
    return {tokens, lengths, scores, timesteps, confidences, ends, peaks, token_scores, path_scores};
  }
  ScoredResult scored_result() const {
    return std::tuple_cat(result(), std::make_tuple(acoustic_scores, model_scores, words, last_words));
  }

 private:
  template <class PerToken, class PerHypothesis>
  Outputs(const PerToken& per_token, const PerHypothesis& per_hypothesis, ScalarType scalar)
      : tokens(per_token(ScalarType::Long)),
        timesteps(per_token(ScalarType::Long)),
        ends(per_token(ScalarType::Long)),
        peaks(per_token(ScalarType::Long)),
        confidences(per_token(scalar)),
        token_scores(per_token(scalar)),
        lengths(per_hypothesis(ScalarType::Long)),
        scores(per_hypothesis(scalar)),
        path_scores(per_hypothesis(scalar)) {}
};

void check_nbest(int64_t nbest, int64_t beam_size) {
  if (nbest < 1) value_error("nbest is ", nbest, ", but must be at least 1");
  if (nbest > beam_size) value_error("nbest is ", nbest, ", but beam_size is only ", beam_size);
}

// Calls run(next) on every thread. next() returns a sample that no other thread has taken, or -1. Samples differ in
// length and in time per frame.
template <class F>
void for_each_sample(int64_t batch, const F& run) {
  std::atomic<int64_t> taken{0};
  const auto next = [&] {
    const int64_t n = taken.fetch_add(1, std::memory_order_relaxed);
    return n < batch ? n : -1;
  };
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), batch);
  parallel_for(threads, 1, [&](int64_t, int64_t) { run(next); });
}

// Raises for a sample of status kInvalid whose length is valid.
[[noreturn]] void invalid_sample(const BeamSearchParams& p, int64_t n) {
  check_log_probs(p, n);
  value_error("sample ", n, " cannot go on: it is invalid from before, or its arena has no room for ",
              p.input_lengths[n], " more frames");
}

void check_status(const BeamSearchParams& p, const std::vector<int32_t>& status) {
  for (int64_t n = 0; n < p.batch; ++n) {
    if (status[size_t(n)] == kInvalid) invalid_sample(p, n);
  }
}

// Each thread has one state and one arena, which its samples use in turn.
void search_on_cpu(const BeamSearchParams& params, const BeamResultParams& results) {
  const size_t state_bytes = BeamState::bytes(params.beam_size, params.weighs);
  std::vector<int32_t> status(size_t(params.batch), kOk);
  for_each_sample(params.batch, [&](const auto& next) {
    const HostWorkspace workspace(cpu::beam_search_workspace(params)), state(state_bytes);
    const HostWorkspace arena(size_t(params.capacity) * sizeof(BeamNode));
    BeamSearchParams p = params;
    BeamResultParams r = results;
    r.state = p.state = static_cast<char*>(state.get());
    r.arena = p.arena = static_cast<BeamNode*>(arena.get());
    for (int64_t n = next(); n >= 0; n = next()) {
      memset(p.state, 0, state_bytes);
      cpu::beam_search(p, n, n + 1, workspace.get());
      cpu::beam_search_result(r, n, n + 1);
      status[size_t(n)] = BeamState(p.state, p.beam_size, p.weighs).header->status;
    }
  });
  check_status(params, status);
}

void set_scorer(BeamSearchParams& p, Outputs& out, const Scorer* scorer) {
  if (!scorer) return;
  p.scorer = *scorer;
  p.weighs = true;
  out.add_scorer(*scorer);
}

void search_on_cuda(BeamSearchParams& p, BeamResultParams& r, const Tensor& input) {
  const DeviceGuard guard(input);
  const int64_t state_bytes = int64_t(BeamState::bytes(p.beam_size, p.weighs));
  Tensor state = zero_tensor(input, {p.batch, state_bytes}, ScalarType::Byte);
  Tensor arena = device_workspace(input, size_t(p.batch) * size_t(p.capacity) * sizeof(BeamNode));
  r.state = p.state = static_cast<char*>(state.mutable_data_ptr());
  r.arena = p.arena = static_cast<BeamNode*>(arena.mutable_data_ptr());
  r.state_stride = p.state_stride = state_bytes;
  r.arena_stride = p.arena_stride = p.capacity;
  run_on_cuda(input, p, cuda::beam_search_workspace, cuda::beam_search);
  check_cuda(cuda::beam_search_result(r, current_stream(input)));
}

// A search of the whole input. Without a scorer, `scorer` is null.
Outputs search(const Tensor& input, BeamSearchParams p, int64_t nbest, const Scorer* scorer) {
  const int64_t beam_size = p.beam_size;
  check_nbest(nbest, beam_size);
  if (p.frames > kLargestArena / beam_size) {
    value_error("log_probs has ", p.frames, " frames and beam_size is ", beam_size,
                ", but frames * beam_size must be less than 2^31");
  }
  p.capacity = p.frames * beam_size;
  Outputs out(input, p.batch, beam_size, nbest, p.frames, p.dtype == DType::kFloat64);
  set_scorer(p, out, scorer);
  if (on_cuda(input)) {
    search_on_cuda(p, out.params, input);
  } else {
    search_on_cpu(p, out.params);
  }
  return out;
}

}  // namespace

Tensors<9> beam_search(Tensor input, Tensor input_lengths, int64_t beam_size, int64_t nbest, int64_t blank,
                       bool from_logits, double beam_threshold, double token_threshold, double blank_skip) {
  const BeamSearchParams p =
      parameters(input, input_lengths, beam_size, blank, from_logits, beam_threshold, token_threshold, blank_skip);
  return search(input, p, nbest, nullptr).result();
}

namespace {

ScoredResult scored_search(Tensor input, Tensor input_lengths, int64_t beam_size, int64_t nbest, int64_t blank,
                           bool from_logits, double beam_threshold, double token_threshold, double blank_skip,
                           std::vector<Tensor> scorer, std::vector<int64_t> scorer_numbers, double unknown_word) {
  const BeamSearchParams p =
      parameters(input, input_lengths, beam_size, blank, from_logits, beam_threshold, token_threshold, blank_skip);
  const Scorer view = scorer_of(scorer, scorer_numbers, unknown_word, input);
  return search(input, p, nbest, &view).scored_result();
}

// ---- streams: the beams of a batch, kept in tensors between calls

void check_state(const Tensor& state, const Tensor& arena, int64_t beam_size, bool weighs, const Tensor& place) {
  check_beam_size(beam_size, place);
  const int64_t bytes = int64_t(BeamState::bytes(beam_size, weighs));
  if (state.scalar_type() != ScalarType::Byte || state.dim() != 2 || state.size(1) != bytes) {
    value_error("state must be (N, ", bytes, ") of type uint8 for a beam_size of ", beam_size);
  }
  if (arena.scalar_type() != ScalarType::Int || arena.dim() != 3 || arena.size(0) != state.size(0) ||
      arena.size(2) * int64_t(sizeof(int32_t)) != int64_t(sizeof(BeamNode))) {
    value_error("arena must be (N, capacity, ", sizeof(BeamNode) / sizeof(int32_t),
                ") of type int32, where state has N = ", state.size(0));
  }
  if (arena.size(1) > kLargestArena) value_error("arena has ", arena.size(1), " nodes, but must have less than 2^31");
  check_place(state, "state", place);
  check_place(arena, "arena", place);
  if (reinterpret_cast<uintptr_t>(state.const_data_ptr()) % 64 != 0) value_error("state must be 64-byte aligned");
}

void advance(const Tensor& input, Tensor& state, Tensor& arena, BeamSearchParams p) {
  check_state(state, arena, p.beam_size, p.weighs, input);
  if (state.size(0) != p.batch) {
    value_error("state has ", state.size(0), " samples, but log_probs has a batch of ", p.batch);
  }
  p.state = static_cast<char*>(state.mutable_data_ptr());
  p.arena = static_cast<BeamNode*>(arena.mutable_data_ptr());
  p.state_stride = state.size(1);
  p.arena_stride = p.capacity = arena.size(1);
  if (on_cuda(input)) {
    return run_on_cuda(input, p, cuda::beam_search_workspace, cuda::beam_search);
  }
  std::vector<int32_t> status(size_t(p.batch), kOk);
  for_each_sample(p.batch, [&](const auto& next) {
    const HostWorkspace workspace(cpu::beam_search_workspace(p));
    for (int64_t n = next(); n >= 0; n = next()) {
      cpu::beam_search(p, n, n + 1, workspace.get());
      status[size_t(n)] = BeamState(p.state + n * p.state_stride, p.beam_size, p.weighs).header->status;
    }
  });
  check_status(p, status);
}

void beam_search_advance(Tensor input, Tensor input_lengths, Tensor state, Tensor arena, int64_t beam_size,
                         int64_t blank, bool from_logits, double beam_threshold, double token_threshold,
                         double blank_skip) {
  advance(input, state, arena,
          parameters(input, input_lengths, beam_size, blank, from_logits, beam_threshold, token_threshold, blank_skip));
}

void scored_search_advance(Tensor input, Tensor input_lengths, Tensor state, Tensor arena, int64_t beam_size,
                           int64_t blank, bool from_logits, double beam_threshold, double token_threshold,
                           double blank_skip, std::vector<Tensor> scorer, std::vector<int64_t> scorer_numbers,
                           double unknown_word) {
  BeamSearchParams p =
      parameters(input, input_lengths, beam_size, blank, from_logits, beam_threshold, token_threshold, blank_skip);
  p.scorer = scorer_of(scorer, scorer_numbers, unknown_word, input);
  p.weighs = true;
  advance(input, state, arena, p);
}

Outputs results(const Tensor& state, const Tensor& arena, int64_t beam_size, int64_t nbest, int64_t max_length,
                bool float64, const Scorer* scorer) {
  check_state(state, arena, beam_size, scorer != nullptr, state);
  check_nbest(nbest, beam_size);
  if (max_length < 0) value_error("max_length is ", max_length, ", but must not be negative");
  Outputs out(state, state.size(0), beam_size, nbest, max_length, float64);
  if (scorer) out.add_scorer(*scorer);
  BeamResultParams& p = out.params;
  p.state = static_cast<const char*>(state.const_data_ptr());
  p.arena = static_cast<const BeamNode*>(arena.const_data_ptr());
  p.state_stride = state.size(1);
  p.arena_stride = arena.size(1);
  if (on_cuda(state)) {
    const DeviceGuard guard(state);
    check_cuda(cuda::beam_search_result(p, current_stream(state)));
    return out;
  }
  for (int64_t n = 0; n < p.batch; ++n) {
    const int64_t frames =
        BeamState(const_cast<char*>(p.state) + n * p.state_stride, beam_size, p.weighs).header->frame;
    if (frames > max_length) value_error("max_length is ", max_length, ", but sample ", n, " has ", frames, " frames");
  }
  parallel_for(p.batch, 16, [&](int64_t begin, int64_t end) { cpu::beam_search_result(p, begin, end); });
  return out;
}

Result beam_search_result(Tensor state, Tensor arena, int64_t beam_size, int64_t nbest, int64_t max_length,
                          bool float64) {
  return results(state, arena, beam_size, nbest, max_length, float64, nullptr).result();
}

ScoredResult scored_search_result(Tensor state, Tensor arena, int64_t beam_size, int64_t nbest, int64_t max_length,
                                  bool float64, std::vector<Tensor> scorer, std::vector<int64_t> scorer_numbers,
                                  double unknown_word) {
  const Scorer view = scorer_of(scorer, scorer_numbers, unknown_word, state);
  return results(state, arena, beam_size, nbest, max_length, float64, &view).scored_result();
}

}  // namespace

#define FASTCTC_BEAM_TENSORS                                                                                        \
  "Tensor tokens, Tensor lengths, Tensor scores, Tensor timesteps, Tensor confidences, Tensor ends, Tensor peaks, " \
  "Tensor token_scores, Tensor path_scores"
#define FASTCTC_BEAM_RESULT "(" FASTCTC_BEAM_TENSORS ")"
#define FASTCTC_SCORED_RESULT \
  "(" FASTCTC_BEAM_TENSORS ", Tensor acoustic_scores, Tensor model_scores, Tensor words, Tensor last_words)"
#define FASTCTC_BEAM_OPTIONS "bool from_logits, float beam_threshold, float token_threshold, float blank_skip"
#define FASTCTC_SCORER "Tensor[] scorer, int[] scorer_numbers, float unknown_word"

FASTCTC_DEFINE(m) {
  m.def("beam_search(Tensor input, Tensor input_lengths, int beam_size, int nbest, int blank, " FASTCTC_BEAM_OPTIONS
        ") -> " FASTCTC_BEAM_RESULT);
  m.def("scored_search(Tensor input, Tensor input_lengths, int beam_size, int nbest, int blank, " FASTCTC_BEAM_OPTIONS
        ", " FASTCTC_SCORER ") -> " FASTCTC_SCORED_RESULT);
  m.def(
      "beam_search_advance(Tensor input, Tensor input_lengths, Tensor(a!) state, Tensor(b!) arena, int beam_size, "
      "int blank, " FASTCTC_BEAM_OPTIONS ") -> ()");
  m.def(
      "scored_search_advance(Tensor input, Tensor input_lengths, Tensor(a!) state, Tensor(b!) arena, int beam_size, "
      "int blank, " FASTCTC_BEAM_OPTIONS ", " FASTCTC_SCORER ") -> ()");
  m.def(
      "beam_search_result(Tensor state, Tensor arena, int beam_size, int nbest, SymInt max_length, bool float64) "
      "-> " FASTCTC_BEAM_RESULT);
  m.def(
      "scored_search_result(Tensor state, Tensor arena, int beam_size, int nbest, SymInt max_length, bool "
      "float64, " FASTCTC_SCORER ") -> " FASTCTC_SCORED_RESULT);
}
FASTCTC_IMPLEMENT(m) {
  m.impl("beam_search", TORCH_BOX(&beam_search));
  m.impl("scored_search", TORCH_BOX(&scored_search));
  m.impl("beam_search_advance", TORCH_BOX(&beam_search_advance));
  m.impl("scored_search_advance", TORCH_BOX(&scored_search_advance));
  m.impl("beam_search_result", TORCH_BOX(&beam_search_result));
  m.impl("scored_search_result", TORCH_BOX(&scored_search_result));
}

}  // namespace fastctc

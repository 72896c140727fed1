// fastctc::beam_search and, for streams, beam_search_advance and beam_search_result: checks, allocation, registration.
#include "../kernels/beam_search.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <tuple>
#include <vector>

#include "tensors.h"

namespace fastctc {
namespace {

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

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
  Tensor tokens, lengths, scores, timesteps, confidences;
  BeamResultParams params{};

  Outputs(const Tensor& place, int64_t batch, int64_t beam_size, int64_t nbest, int64_t max_length, bool float64)
      : tokens(empty_tensor(place, {batch, nbest, max_length}, ScalarType::Long)),
        lengths(empty_tensor(place, {batch, nbest}, ScalarType::Long)),
        scores(empty_tensor(place, {batch, nbest}, scalar(float64))),
        timesteps(empty_tensor(place, {batch, nbest, max_length}, ScalarType::Long)),
        confidences(empty_tensor(place, {batch, nbest, max_length}, scalar(float64))) {
    params.batch = batch;
    params.beam_size = beam_size;
    params.nbest = nbest;
    params.max_length = max_length;
    params.dtype = float64 ? DType::kFloat64 : DType::kFloat32;
    params.tokens = static_cast<int64_t*>(tokens.mutable_data_ptr());
    params.lengths = static_cast<int64_t*>(lengths.mutable_data_ptr());
    params.scores = scores.mutable_data_ptr();
    params.timesteps = static_cast<int64_t*>(timesteps.mutable_data_ptr());
    params.confidences = confidences.mutable_data_ptr();
  }
  static ScalarType scalar(bool float64) { return float64 ? ScalarType::Double : ScalarType::Float; }
  Result result() const { return {tokens, lengths, scores, timesteps, confidences}; }
};

void check_nbest(int64_t nbest, int64_t beam_size) {
  if (nbest < 1) value_error("nbest is ", nbest, ", but must be at least 1");
  if (nbest > beam_size) value_error("nbest is ", nbest, ", but beam_size is only ", beam_size);
}

// Calls run(next) on every thread, where next() is a sample that no other thread has had, or -1: samples differ in
// length, and in how hard they are.
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

// Raises, of a sample whose status is kInvalid though its length is right.
[[noreturn]] void invalid_sample(const BeamSearchParams& p, int64_t n) {
  with_element(p.dtype, [&](auto element) {
    const auto* const x = static_cast<const decltype(element)*>(p.input) + n * p.stride_n;
    for (int64_t t = 0; t < p.input_lengths[n] && !p.from_logits; ++t) {
      for (int64_t c = 0; c < p.classes; ++c) {
        const auto value = to_scalar(x[t * p.stride_t + c * p.stride_c]);
        if (value > kLargestLogProb) {
          value_error("log_probs[", n, ", ", t, ", ", c, "] (sample, frame, class) is ", value,
                      ", but natural-log probabilities are at most 0 (for logits pass from_logits=True, for "
                      "probabilities their log())");
        }
      }
    }
  });
  value_error("sample ", n, " cannot go on: it is invalid from before, or its arena has no room for ",
              p.input_lengths[n], " more frames");
}

void check_status(const BeamSearchParams& p, const std::vector<int32_t>& status) {
  for (int64_t n = 0; n < p.batch; ++n) {
    if (status[size_t(n)] == kInvalid) invalid_sample(p, n);
  }
}

// Each thread has one state and one arena, which the samples use in turn.
void search_on_cpu(const BeamSearchParams& params, const BeamResultParams& results) {
  const size_t state_bytes = BeamState::bytes(params.beam_size);
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
      status[size_t(n)] = BeamState(p.state, p.beam_size).header->status;
    }
  });
  check_status(params, status);
}

void search_on_cuda(BeamSearchParams& p, BeamResultParams& r, const Tensor& input) {
  const DeviceGuard guard(input);
  const int64_t state_bytes = int64_t(BeamState::bytes(p.beam_size));
  Tensor state = zero_tensor(input, {p.batch, state_bytes}, ScalarType::Byte);
  Tensor arena = device_workspace(input, size_t(p.batch) * size_t(p.capacity) * sizeof(BeamNode));
  r.state = p.state = static_cast<char*>(state.mutable_data_ptr());
  r.arena = p.arena = static_cast<BeamNode*>(arena.mutable_data_ptr());
  r.state_stride = p.state_stride = state_bytes;
  r.arena_stride = p.arena_stride = p.capacity;
  run_on_cuda(input, p, cuda::beam_search_workspace, cuda::beam_search);
  check_cuda(cuda::beam_search_result(r, current_stream(input)));
}

Result beam_search(Tensor input, Tensor input_lengths, int64_t beam_size, int64_t nbest, int64_t blank,
                   bool from_logits, double beam_threshold, double token_threshold, double blank_skip) {
  BeamSearchParams p =
      parameters(input, input_lengths, beam_size, blank, from_logits, beam_threshold, token_threshold, blank_skip);
  check_nbest(nbest, beam_size);
  if (p.frames > kLargestArena / beam_size) {
    value_error("log_probs has ", p.frames, " frames and beam_size is ", beam_size,
                ", but frames * beam_size must be less than 2^31");
  }
  p.capacity = p.frames * beam_size;
  Outputs out(input, p.batch, beam_size, nbest, p.frames, p.dtype == DType::kFloat64);
  if (on_cuda(input)) {
    search_on_cuda(p, out.params, input);
  } else {
    search_on_cpu(p, out.params);
  }
  return out.result();
}

// ---- streams: the beams of a batch, kept in tensors between calls

void check_state(const Tensor& state, const Tensor& arena, int64_t beam_size, const Tensor& place) {
  check_beam_size(beam_size, place);
  const int64_t bytes = int64_t(BeamState::bytes(beam_size));
  if (state.scalar_type() != ScalarType::Byte || state.dim() != 2 || state.size(1) != bytes) {
    value_error("state must be (N, ", bytes, ") of type uint8 for a beam_size of ", beam_size);
  }
  if (arena.scalar_type() != ScalarType::Int || arena.dim() != 3 || arena.size(0) != state.size(0) ||
      arena.size(2) * int64_t(sizeof(int32_t)) != int64_t(sizeof(BeamNode))) {
    value_error("arena must be (N, capacity, 4) of type int32, where state has N = ", state.size(0));
  }
  if (arena.size(1) > kLargestArena) value_error("arena has ", arena.size(1), " nodes, but must have less than 2^31");
  check_place(state, "state", place);
  check_place(arena, "arena", place);
  if (reinterpret_cast<uintptr_t>(state.const_data_ptr()) % 64 != 0) value_error("state must be 64-byte aligned");
}

void beam_search_advance(Tensor input, Tensor input_lengths, Tensor state, Tensor arena, int64_t beam_size,
                         int64_t blank, bool from_logits, double beam_threshold, double token_threshold,
                         double blank_skip) {
  BeamSearchParams p =
      parameters(input, input_lengths, beam_size, blank, from_logits, beam_threshold, token_threshold, blank_skip);
  check_state(state, arena, beam_size, input);
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
      status[size_t(n)] = BeamState(p.state + n * p.state_stride, beam_size).header->status;
    }
  });
  check_status(p, status);
}

Result beam_search_result(Tensor state, Tensor arena, int64_t beam_size, int64_t nbest, int64_t max_length,
                          bool float64) {
  check_state(state, arena, beam_size, state);
  check_nbest(nbest, beam_size);
  if (max_length < 0) value_error("max_length is ", max_length, ", but must not be negative");
  Outputs out(state, state.size(0), beam_size, nbest, max_length, float64);
  BeamResultParams& p = out.params;
  p.state = static_cast<const char*>(state.const_data_ptr());
  p.arena = static_cast<const BeamNode*>(arena.const_data_ptr());
  p.state_stride = state.size(1);
  p.arena_stride = arena.size(1);
  if (on_cuda(state)) {
    const DeviceGuard guard(state);
    check_cuda(cuda::beam_search_result(p, current_stream(state)));
    return out.result();
  }
  for (int64_t n = 0; n < p.batch; ++n) {
    const int64_t frames = BeamState(const_cast<char*>(p.state) + n * p.state_stride, beam_size).header->frame;
    if (frames > max_length) value_error("max_length is ", max_length, ", but sample ", n, " has ", frames, " frames");
  }
  parallel_for(p.batch, 16, [&](int64_t begin, int64_t end) { cpu::beam_search_result(p, begin, end); });
  return out.result();
}

}  // namespace

#define FASTCTC_BEAM_RESULT "(Tensor tokens, Tensor lengths, Tensor scores, Tensor timesteps, Tensor confidences)"
#define FASTCTC_BEAM_OPTIONS "bool from_logits, float beam_threshold, float token_threshold, float blank_skip"

FASTCTC_DEFINE(m) {
  m.def("beam_search(Tensor input, Tensor input_lengths, int beam_size, int nbest, int blank, " FASTCTC_BEAM_OPTIONS
        ") -> " FASTCTC_BEAM_RESULT);
  m.def(
      "beam_search_advance(Tensor input, Tensor input_lengths, Tensor(a!) state, Tensor(b!) arena, int beam_size, "
      "int blank, " FASTCTC_BEAM_OPTIONS ") -> ()");
  m.def(
      "beam_search_result(Tensor state, Tensor arena, int beam_size, int nbest, SymInt max_length, bool float64) "
      "-> " FASTCTC_BEAM_RESULT);
}
FASTCTC_IMPLEMENT(m) {
  m.impl("beam_search", TORCH_BOX(&beam_search));
  m.impl("beam_search_advance", TORCH_BOX(&beam_search_advance));
  m.impl("beam_search_result", TORCH_BOX(&beam_search_result));
}

}  // namespace fastctc

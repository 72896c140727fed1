// What the forward phase of the CTC loss needs for one sample, or for one half of its frames.
#pragma once

#include "../../math/recursion.h"
#include "../workspace.h"
#include "ctc_loss.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

constexpr int kMaxRegisters = 4;             // K: a block has at most this many registers of slots
constexpr int64_t kWholeBytes = 1000 << 10;  // a sample whose lattice is smaller keeps all of it
constexpr int64_t kShortHalf = 128;          // frames of a half that is one segment
constexpr int64_t kMaxMeeting = 256;         // frames of sequences whose two directions run at once,
constexpr int kMaxMeetingRegisters = 2;      // and their slots: both must find room in the processor's registers

// Is a sample so short that both directions run at once, on one thread?
template <class Scalar>
bool halves_meet(int64_t frames, int64_t length) {
  return frames <= kMaxMeeting && length < kMaxMeetingRegisters * Lanes<Scalar>::N;
}

template <class Scalar>
struct ForwardWorkspace {
  using X = Scaled<Lanes<Scalar>>;
  Sequence<X> sequence;
  States<X> swept, across;  // of the direction of the sweep, and of the other one
  States<X> again;          // of the first direction, from a snapshot on
  uint8_t *skip, *blank_is_zero;
  uint8_t* counts;          // (S) of loss_bound.h
  int32_t* labels;          // (P)
  Scalar* bias;             // (P) added to the labels' scores; null if nothing is
  Plane<Scalar> origins;    // (T) n and r of the score that the emissions of a frame are relative to
  Scalar* occupancy;        // (frames, S) where the result is of another type
  Plane<Scalar> snapshots;  // closed states with which the sweep enters each segment
  bool meets;               // do both directions run at once?
  bool whole;               // are the rows of all frames kept, or of one segment?
  int64_t segment;          // frames
  size_t size;

  // For a sample with this number of frames; `count` of them are worked on.
  ForwardWorkspace(void* base, const CtcLossParams& p, int64_t frames, int64_t count, int64_t length,
                   bool own_occupancy) {
    constexpr int64_t N = Lanes<Scalar>::N;
    Workspace w(base);
    Sequence<X>& q = sequence;
    q.frames = frames;
    q.length = length;
    q.slots = (length + N) / N * N;
    q.first = 0;
    q.skip = skip = w.take<uint8_t>(q.slots);
    labels = w.take<int32_t>(q.slots);
    bias = p.class_bias ? w.take<Scalar>(q.slots) : nullptr;
    blank_is_zero = w.take<uint8_t>(frames);
    counts = w.take<uint8_t>(length);
    q.blank_is_zero = nullptr;
    const bool tilted = p.delay_penalty != 0;
    q.tilt = w.take_plane<Scalar>(tilted ? q.slots + N : 0);
    if (!tilted) q.tilt = {};
    meets = halves_meet<Scalar>(frames, length);
    // By the largest sample there could be, so that no smaller one needs more. It does not change the result.
    const int64_t largest = p.frames * (p.max_length + N) * 4 * int64_t(sizeof(Scalar));
    whole = meets || (p.need_grad && (p.frames <= kSegment || largest <= kWholeBytes));
    segment = count <= kShortHalf ? kShortHalf : int64_t(kSegment);
    const int64_t rows = whole || count < kShortHalf ? count : kShortHalf;
    q.labels = w.take_plane<Scalar>(rows * q.slots, N);
    q.kept = w.take_plane<Scalar>(p.need_grad ? rows * q.slots + N : 0, N);
    q.carries = w.take_plane<Scalar>((q.slots / (N * kMaxRegisters) + 2) * kTile);
    swept = take_states(w);
    across = take_states(w);
    again = take_states(w);
    snapshots = w.take_plane<Scalar>(p.need_grad && !meets ? (count / kSegment + 1) * snapshot_size() : 0);
    origins = w.take_plane<Scalar>(frames + N);
    occupancy = w.take<Scalar>(own_occupancy ? count * length : 0);
    size = w.size();
  }
  States<X> take_states(Workspace& w) const {
    const Plane<Scalar> b = w.take_plane<Scalar>(sequence.slots);
    return {b, w.take_plane<Scalar>(sequence.slots + 1, Lanes<Scalar>::N)};
  }
  int64_t snapshot_size() const { return 2 * (sequence.slots + Lanes<Scalar>::N); }
  States<X> snapshot(int64_t segment) const {
    const Plane<Scalar> p = snapshots + segment * snapshot_size();
    return {p, p + (sequence.slots + Lanes<Scalar>::N)};
  }
};

template <class X>
void copy(const States<X>& from, const States<X>& to, int64_t slots) {
  X::copy(from.b, to.b, slots);
  X::copy(from.e + -1, to.e + -1, slots + 2);
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

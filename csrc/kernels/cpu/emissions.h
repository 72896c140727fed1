// From the scores of a sample's labels to the emissions that its recursions multiply with.
#pragma once

#include "forward_workspace.h"
#include "rows.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

template <class Scalar, class Stored>
typename Lanes<Scalar>::F load_as(const Stored* p, int64_t count) {
  using L = Lanes<Scalar>;
  if constexpr (sizeof(Stored) == sizeof(Scalar)) return L::load(p, L::first(count));
  auto x = L::set(0);
  for (int64_t i = 0; i < L::N && i < count; ++i) x[i] = p[i];
  return x;
}

// The emissions of one sample.
template <class Stored, class Scalar>
class Emissions {
  using L = Lanes<Scalar>;
  using X = Scaled<L>;

 public:
  // What emissions tell about a sample.
  struct Found {
    typename L::F range = L::set(0);  // the largest exponent of an emission
    typename L::M finite = L::less(L::set(0), L::set(1));

    // exp(x - origin) in the lanes of `wanted`, elsewhere zero.
    X emission(typename L::F x, Split<L> origin, typename L::M wanted) {
      const auto nonzero = L::both(wanted, L::invert(L::less(x, L::set(Scalar(kZeroLog)))));
      const X y = nonzero_emission<L>(x, origin);
      range = L::max(range, L::select(nonzero, L::magnitude(y.e), L::set(0)));
      return X::select(nonzero, y, X::zero());
    }
  };

  Found found;

  // `rows` (T, S) has the scores of the labels where they are not looked up.
  Emissions(const CtcLossParams& p, int64_t n, int64_t length, const Stored* rows, const ForwardWorkspace<Scalar>& w)
      : p_(p), n_(n), length_(length), rows_(rows), w_(w), q_(w.sequence) {}

  // Writes the emissions of frames [t0, t1) to w.sequence. Meanwhile rows (T, S) that are written soon are fetched from
  // memory, unless `soon` is null.
  void write(int64_t t0, int64_t t1, const Stored* soon) {
    if (!scores_by_lookup(p_)) {
      emit_from(t0, t1, [rows = rows_, stride = p_.max_length, length = length_](int64_t t) {
        return Stand{rows + t * stride, length};
      });
    } else if (has_many_labels()) {
      emit_by_class(t0, t1, soon);
    } else if (p_.classes <= 2 * L::N) {
      emit_by_lookup<2>(t0, t1, soon);
    } else if (p_.classes <= 4 * L::N) {
      emit_by_lookup<4>(t0, t1, soon);
    } else if (p_.classes <= 8 * L::N) {
      emit_by_lookup<8>(t0, t1, soon);
    } else if constexpr (kWidens) {
      emit_by_lookup<16>(t0, t1, soon);
    }
  }

 private:
  static constexpr bool kWidens = sizeof(Stored) != sizeof(Scalar);  // a row of floats in twice as many registers

  // Both give the scores of labels i, i + 1, ... in a frame. Lookup takes them from a short row of the input, Stand
  // from a row of their own, which stands in place of the occupancies.
  template <int registers>
  struct Lookup {
    typename L::F row[registers];
    const int32_t* labels;
    typename L::F operator()(int64_t i) const { return L::template lookup<registers>(row, labels + i); }
  };
  struct Stand {
    const Stored* row;
    int64_t length;
    typename L::F operator()(int64_t i) const {
      if constexpr (!kWidens) {
        if (length - i >= L::N) return L::load(row + i);
      }
      return load_as<Scalar>(row + i, length - i);
    }
  };

  template <int registers>
  void emit_by_lookup(int64_t t0, int64_t t1, const Stored* soon) {
    const Stored* const x = row_of<Stored>(p_, 0, n_);
    const int64_t stride = p_.stride_t, classes = p_.classes, width = p_.max_length;
    emit_from(t0, t1, [=, labels = w_.labels](int64_t t) {
      for (int64_t i = 0; soon && i < width; i += L::N) __builtin_prefetch(soon + t * width + i, 1, kSecondLevel);
      Lookup<registers> scores{{}, labels};
      FASTCTC_UNROLL for (int k = 0; k < registers; ++k) {
        scores.row[k] = load_as<Scalar>(x + t * stride + k * L::N, classes - k * L::N);
      }
      return scores;
    });
  }
  template <class ScoresOf>
  void emit_from(int64_t t0, int64_t t1, const ScoresOf& scores_of) {
    const int64_t length = length_, slots = q_.slots;
    const Plane<Scalar> origins = w_.origins, tilt = q_.tilt;
    const Scalar* const bias = w_.bias;
    Plane<Scalar> out = q_.labels + (t0 - q_.first) * slots;
    const auto last = L::first(length % L::N);  // of the last register of slots
    Found seen = found;
    for (int64_t t = t0; t < t1; ++t, out = out + slots) {
      const Split<L> origin = {L::set(origins.m[t]), L::set(origins.e[t])};
      const auto scores = scores_of(t);
      const auto emit = [&](int64_t i, typename L::M wanted) __attribute__((always_inline)) {
        auto x = scores(i);
        if (bias) x += L::load(bias + i);
        seen.finite = L::both(seen.finite, L::less(x, L::set(Scalar(INFINITY))));
        X y = seen.emission(x, origin, wanted);
        if (tilt) y = y * X::template load<1>(tilt + (i + 1), 0);
        y.template store<1>(out + i, 0);
      };
      int64_t i = 0;
      for (; i + L::N <= length; i += L::N) emit(i, L::first(L::N));
      emit(i, last);
    }
    found = seen;
  }

  // The same where few classes have many labels: an emission for each class, from which the labels take theirs.
  static constexpr int kClassRegisters = 128 / kVectorBytes;  // 32 floats
  static constexpr int64_t kFramesAhead = 8;                  // that are fetched
  bool has_many_labels() const {
    return p_.classes <= kClassRegisters * L::N && q_.slots > kClassRegisters * L::N && !w_.bias;
  }
  void emit_by_class(int64_t t0, int64_t t1, const Stored* soon) {
    const int64_t length = length_, slots = q_.slots, stride = p_.stride_t, classes = p_.classes, width = p_.max_length;
    const Stored* const input = row_of<Stored>(p_, 0, n_);
    const int32_t* const labels = w_.labels;
    const Plane<Scalar> origins = w_.origins, tilt = q_.tilt;
    Plane<Scalar> out = q_.labels + (t0 - q_.first) * slots;
    uint8_t is_label[kClassRegisters * L::N] = {};
    for (int64_t i = 0; i < length; ++i) is_label[labels[i]] = 1;
    typename L::M wanted[kClassRegisters], unread[kClassRegisters];
    for (int k = 0; k < kClassRegisters; ++k) wanted[k] = L::template load_mask<1>(is_label + k * L::N, 0);
    is_label[0] = 1;  // which stands in the slots after the last label
    for (int k = 0; k < kClassRegisters; ++k) {
      unread[k] = L::invert(L::template load_mask<1>(is_label + k * L::N, 0));
    }
    Found seen = found;
    for (int64_t t = t0; t < t1; ++t, out = out + slots) {
      const Split<L> origin = {L::set(origins.m[t]), L::set(origins.e[t])};
      if (t + kFramesAhead < t1) fetch(input + (t + kFramesAhead) * stride, classes);
      typename L::F m[kClassRegisters], e[kClassRegisters];
      FASTCTC_UNROLL for (int k = 0; k < kClassRegisters; ++k) {
        const auto x = load_as<Scalar>(input + t * stride + k * L::N, classes - k * L::N);
        const auto read = L::select(unread[k], L::set(0), x);
        seen.finite = L::both(seen.finite, L::less(read, L::set(Scalar(INFINITY))));
        const X y = seen.emission(x, origin, wanted[k]);
        m[k] = y.m;
        e[k] = y.e;
      }
      for (int64_t i = 0; i < slots; i += L::N) {
        if (soon) __builtin_prefetch(soon + t * width + i, 1, kSecondLevel);
        X y = {L::template lookup<kClassRegisters>(m, labels + i), L::template lookup<kClassRegisters>(e, labels + i)};
        if (length - i < L::N) y = X::select(L::first(length - i), y, X::zero());
        if (tilt) y = y * X::template load<1>(tilt + (i + 1), 0);
        y.template store<1>(out + i, 0);
      }
    }
    found = seen;
  }

  const CtcLossParams& p_;
  const int64_t n_, length_;
  const Stored* const rows_;
  const ForwardWorkspace<Scalar>& w_;
  const Sequence<X>& q_;
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

// The oracle: everything about CTC by enumerating all C^T paths, in double, without dynamic programming.
//
// log_probs is (T, C) row-major, natural logarithms. A path is one class per frame; its log-probability is
// the sum over frames; collapse() merges repeats, then removes blanks. Feasible up to about C^T = 10^6.
#pragma once

#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <vector>

namespace fastctc::testing {

using Labeling = std::vector<int>;
using Path = std::vector<int>;

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

inline Labeling collapse(const Path& path, int blank) {
  Labeling labels;
  for (size_t t = 0; t < path.size(); ++t) {
    const bool repeats = t > 0 && path[t] == path[t - 1];
    if (path[t] != blank && !repeats) labels.push_back(path[t]);
  }
  return labels;
}

inline double log_add(double a, double b) {
  if (a == kMinusInfinity) return b;
  if (b == kMinusInfinity) return a;
  return a > b ? a + std::log1p(std::exp(b - a)) : b + std::log1p(std::exp(a - b));
}

// Calls visit(path, log-probability of the path) for each of the C^T paths.
template <class Visit>
void for_each_path(const std::vector<double>& log_probs, int T, int C, Visit visit) {
  if (log_probs.size() != static_cast<size_t>(T) * C) throw std::invalid_argument("log_probs is not (T, C)");
  if (T * std::log(double(C)) > std::log(5e7)) throw std::invalid_argument("too many paths to enumerate");
  Path path(T, 0);
  for (;;) {
    double log_prob = 0;
    for (int t = 0; t < T; ++t) log_prob += log_probs[t * C + path[t]];
    visit(path, log_prob);
    int t = T - 1;
    while (t >= 0 && path[t] == C - 1) path[t--] = 0;  // count up in base C
    if (t < 0) return;
    ++path[t];
  }
}

// The log-probability of every labeling that some path collapses to.
inline std::map<Labeling, double> all_labelings(const std::vector<double>& log_probs, int T, int C, int blank) {
  std::map<Labeling, double> table;
  for_each_path(log_probs, T, C, [&](const Path& path, double log_prob) {
    auto [entry, inserted] = table.try_emplace(collapse(path, blank), log_prob);
    if (!inserted) entry->second = log_add(entry->second, log_prob);
  });
  return table;
}

struct Posteriors {
  double log_prob = kMinusInfinity;  // log P(target | x)
  // (T, C): gamma[t * C + c] = P(path has class c at frame t | it collapses to target). All 0 if that is
  // impossible. The gradient of -log P(target | x) with respect to log_probs is -gamma.
  std::vector<double> gamma;
};

// The frames in which a path starts a label, less the middle frame, added up.
inline double delay(const Path& path, int blank) {
  double sum = 0;
  for (size_t t = 0; t < path.size(); ++t) {
    const bool starts = path[t] != blank && (t == 0 || path[t] != path[t - 1]);
    if (starts) sum += double(t) - (double(path.size()) - 1) / 2;
  }
  return sum;
}

// With a delay penalty, the log-probability of a path falls by that times its delay.
inline Posteriors posteriors(const std::vector<double>& log_probs, int T, int C, const Labeling& target, int blank,
                             double delay_penalty = 0) {
  Posteriors result;
  const auto for_each_path_to_target = [&](auto visit) {
    for_each_path(log_probs, T, C, [&](const Path& path, double log_prob) {
      if (collapse(path, blank) == target) visit(path, log_prob - delay_penalty * delay(path, blank));
    });
  };
  for_each_path_to_target([&](const Path&, double log_prob) { result.log_prob = log_add(result.log_prob, log_prob); });
  result.gamma.assign(static_cast<size_t>(T) * C, 0.0);
  if (result.log_prob == kMinusInfinity) return result;
  for_each_path_to_target([&](const Path& path, double log_prob) {
    for (int t = 0; t < T; ++t) result.gamma[t * C + path[t]] += std::exp(log_prob - result.log_prob);
  });
  return result;
}

// posteriors() for targets whose labels may equal the blank. Its paths are paths of states: they stay, go one state
// further, or go from a label to the next one where the two differ.
class StatePaths {
 public:
  StatePaths(const std::vector<double>& log_probs, int T, int C, const Labeling& target, int blank,
             double delay_penalty = 0)
      : log_probs_(log_probs), T_(T), C_(C), target_(target), blank_(blank), delay_penalty_(delay_penalty), path_(T) {
    result_.gamma.assign(static_cast<size_t>(T) * C, 0.0);
    walk(0, 0, 0);
    if (result_.log_prob == kMinusInfinity) return;
    adds_ = true;
    walk(0, 0, 0);
  }
  const Posteriors& result() const { return result_; }

 private:
  int class_of(int state) const { return state % 2 ? target_[state / 2] : blank_; }

  // The paths from `state` before frame t, where the frames so far have this log-probability.
  void walk(int t, int state, double log_prob) {
    const int states = 2 * int(target_.size()) + 1;
    if (t == T_) {
      if (state >= states - 2) finish(log_prob);
      return;
    }
    for (int next = state; next <= state + 2 && next < states; ++next) {
      const bool skips = next == state + 2;
      if (skips && (next % 2 == 0 || class_of(next) == class_of(state))) continue;
      path_[t] = next;
      const bool begins = next % 2 && next != state;
      const double delay = begins ? double(t) - (double(T_) - 1) / 2 : 0;
      walk(t + 1, next, log_prob + log_probs_[t * C_ + class_of(next)] - delay_penalty_ * delay);
    }
  }
  void finish(double log_prob) {
    if (!adds_) {
      result_.log_prob = log_add(result_.log_prob, log_prob);
      return;
    }
    for (int t = 0; t < T_; ++t) result_.gamma[t * C_ + class_of(path_[t])] += std::exp(log_prob - result_.log_prob);
  }

  const std::vector<double>& log_probs_;
  const int T_, C_;
  const Labeling& target_;
  const int blank_;
  const double delay_penalty_;
  Path path_;  // of states
  bool adds_ = false;
  Posteriors result_;
};

struct BestPath {
  Path path;
  Labeling labels;
  double log_prob;
};

// The most probable class of each frame, the lowest class among equals.
inline BestPath greedy(const std::vector<double>& log_probs, int T, int C, int blank) {
  BestPath best{Path(T, 0), {}, 0};
  for (int t = 0; t < T; ++t) {
    for (int c = 1; c < C; ++c)
      if (log_probs[t * C + c] > log_probs[t * C + best.path[t]]) best.path[t] = c;
    best.log_prob += log_probs[t * C + best.path[t]];
  }
  best.labels = collapse(best.path, blank);
  return best;
}

}  // namespace fastctc::testing

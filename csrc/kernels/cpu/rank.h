// Sorting of a few scores.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lanes.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

constexpr int kRanked = 4, kRankedTogether = kRanked * Lanes<double>::N;  // registers; scores
constexpr int64_t kCounted = 256;                                         // more are sorted by std::sort

// Sorts scores, the largest first; equal scores keep their order. The rank of a score is the number of larger scores.
// Counting is faster than sorting for a few scores.
inline void rank(const double* score, int64_t count, int32_t* ranked) {
  using L = Lanes<double>;
  if (std::is_sorted(score, score + count, [](double a, double b) { return a > b; })) {
    for (int64_t i = 0; i < count; ++i) ranked[i] = int32_t(i);
    return;
  }
  if (count > kCounted) {
    for (int64_t i = 0; i < count; ++i) ranked[i] = int32_t(i);
    std::sort(ranked, ranked + count,
              [score](int32_t a, int32_t b) { return score[a] > score[b] || (score[a] == score[b] && a < b); });
    return;
  }
  std::fill_n(ranked, count, -1);
  for (int64_t begin = 0; begin < count; begin += kRankedTogether) {
    L::F x[kRanked], larger[kRanked] = {};
    for (int r = 0; r < kRanked; ++r) x[r] = L::load(score + begin + r * L::N);
    for (int64_t i = 0; i < count; ++i) {
      const auto other = L::set(score[i]);
      for (int r = 0; r < kRanked; ++r) larger[r] = L::select(L::less(x[r], other), larger[r] + 1.0, larger[r]);
    }
    double place[kRankedTogether];
    for (int r = 0; r < kRanked; ++r) L::store(place + r * L::N, larger[r]);
    for (int64_t i = begin; i < std::min(begin + kRankedTogether, count); ++i) {
      int32_t* p = ranked + int64_t(place[i - begin]);
      while (*p >= 0) ++p;  // equal scores have equal places
      *p = int32_t(i);
    }
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

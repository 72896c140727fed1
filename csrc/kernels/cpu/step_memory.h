// Steps of automata that were taken before: most frames ask again for what the frame before asked.
#pragma once

#include "../../math/scorer.h"
#include "../workspace.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// A table in which a step has one place. A look into a large model costs several misses of the cache.
class StepMemory {
 public:
  explicit StepMemory(Workspace& memory) : entries_(memory.take<Entry>(kEntries)) {}

  void forget() const {
    for (int i = 0; i < kEntries; ++i) entries_[i].automaton = -1;
  }
  Step find(const Scorer& scorer, int i, int32_t state, int32_t label) const {
    uint64_t h = (uint64_t(uint32_t(state)) << 32 | uint32_t(label)) + uint64_t(i);
    h *= 0x9e3779b97f4a7c15u;
    Entry& e = entries_[h >> (64 - kBits)];
    if (e.automaton != i || e.state != state || e.label != label) {
      e = {i, state, label, 0, step(scorer.automata[i], state, label)};
    }
    return e.step;
  }

 private:
  static constexpr int kBits = 12, kEntries = 1 << kBits;
  struct Entry {
    int32_t automaton, state, label, unused;
    Step step;
  };
  Entry* entries_;
};

// In a search without a scorer.
struct NoSteps {
  explicit NoSteps(Workspace&) {}
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

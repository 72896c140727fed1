// Which prefixes of a beam extend which: lists of their slots.
#pragma once

#include <algorithm>

#include "../workspace.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// A prefix is in the list of its parent, which has the number of the parent's slot. An orphan is a prefix whose parent
// is not in the beam. It is in a list that the hash of its parent chooses.
class BeamFamily {
 public:
  BeamFamily(Workspace& memory, int64_t slots, int64_t classes) : slots_(slots), classes_(classes) {
    while (orphan_lists_ < slots) orphan_lists_ *= 2;
    first_ = memory.take<int32_t>(slots + orphan_lists_);
    next_ = memory.take<int32_t>(slots);
    noted_ = memory.take<int32_t>(classes);
  }

  void clear() const { std::fill_n(first_, slots_ + orphan_lists_, -1); }
  bool empty(int32_t list) const { return first_[list] < 0; }
  int32_t orphans_of(uint64_t parent_hash) const {
    return int32_t(slots_ + int64_t(parent_hash & uint64_t(orphan_lists_ - 1)));
  }
  void add(int32_t list, int32_t slot) const {
    next_[slot] = first_[list];
    first_[list] = slot;
  }
  void remove(int32_t list, int32_t slot) const {
    int32_t* link = &first_[list];
    while (*link != slot) link = &next_[*link];
    *link = next_[slot];
  }
  // Calls f(slot) for each slot of a list; f may take that slot out of it.
  template <class F>
  void for_each(int32_t list, const F& f) const {
    for (int32_t slot = first_[list]; slot >= 0;) {
      const int32_t next = next_[slot];
      f(slot);
      slot = next;
    }
  }
  // The slot that was noted last for a token; -1: none.
  void forget_notes() const { std::fill_n(noted_, classes_, -1); }
  void note(int32_t token, int32_t slot) const { noted_[token] = slot; }
  int32_t noted(int32_t token) const { return noted_[token]; }

 private:
  int64_t slots_, classes_, orphan_lists_ = 1;
  int32_t *first_, *next_;  // the first slot of each list; the next one after each slot; -1: none
  int32_t* noted_;
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc

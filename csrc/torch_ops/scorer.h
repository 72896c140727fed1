// The scorer of a search from the tensors of fastctc.scoring.
#pragma once

#include <vector>

#include "../math/scorer.h"
#include "tensors.h"

namespace fastctc {

// `tensors`: the nine of each automaton, then the thirteen of the lexicon, if there is one. `numbers`: how many
// automata, start and dense state of each, then of the lexicon its boundary and separator. The tensors are on the
// device of `place` and are used, not copied. Raises if their number, a type or a size is wrong; their values are not
// looked at.
Scorer scorer_of(const std::vector<Tensor>& tensors, const std::vector<int64_t>& numbers, double unknown_word,
                 const Tensor& place);

}  // namespace fastctc

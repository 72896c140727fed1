// The ops that decode and align; see their schemas.
#pragma once

#include "tensors.h"

namespace fastctc {

Tensors<8> greedy_decode(Tensor input, Tensor input_lengths, int64_t blank, bool from_logits);
Tensors<9> beam_search(Tensor input, Tensor input_lengths, int64_t beam_size, int64_t nbest, int64_t blank,
                       bool from_logits, double beam_threshold, double token_threshold, double blank_skip);
Tensors<3> forced_align(Tensor input, Tensor targets, Tensor input_lengths, Tensor target_lengths, int64_t max_length,
                        int64_t blank, int64_t star, bool from_logits);

}  // namespace fastctc

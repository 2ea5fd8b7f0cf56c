#pragma once

#include <cstdint>

#include "dtype.h"

namespace codeact::cuda {

// nll[i] = logsumexp(logits[i]) - logits[i][targets[i]] in float32, in nats; 0 where targets[i] is
// ignore_index, NaN where it is no column.
//
// All pointers are device memory of the current device: logits (num_tokens, vocab_size) of
// `dtype`, rows `logits_stride` elements apart, each row contiguous; targets (num_tokens,) int64;
// nll (num_tokens,) float32. Enqueued on `stream` (a cudaStream_t); does not wait.
// Throws std::runtime_error when the launch fails.
void token_nll(const void* logits, const int64_t* targets, float* nll, int64_t num_tokens,
               int64_t vocab_size, int64_t logits_stride, DType dtype, int64_t ignore_index,
               void* stream);

}  // namespace codeact::cuda

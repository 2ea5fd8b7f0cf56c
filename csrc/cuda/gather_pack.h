#pragma once

#include <cstdint>

namespace codeact::cuda {

// Gathers sequences out of a token store on the device into one batch, with a single launch.
//
// Sequence k of the batch is tokens starts[k] and on of the store. It goes to
// [cu_tokens[k], cu_tokens[k+1]) of the batch, and the rows that predict one of its labels to
// [cu_rows[k], cu_rows[k+1]): a row is the place, in the batch, of the token before a label that is
// not ignore_index; the first label of a sequence never counts. Should the labels hold more rows
// than cu_rows has room for, the last are left out.
//
// All pointers are device memory of the current device.
// In: input_ids, labels int32, the store; starts (num_seqs,), cu_tokens and cu_rows (num_seqs + 1,)
// int64. Out: out_ids and position_ids (cu_tokens[num_seqs],) int64, cu_seqlens (num_seqs + 1,)
// int32, equal to cu_tokens; rows and targets (cu_rows[num_seqs],) int64.
// Enqueued on `stream` (a cudaStream_t); does not wait.
// Throws std::runtime_error when the launch fails.
void gather_pack(const int32_t* input_ids, const int32_t* labels, const int64_t* starts,
                 const int64_t* cu_tokens, const int64_t* cu_rows, int64_t num_seqs,
                 int64_t ignore_index, int64_t* out_ids, int64_t* position_ids, int32_t* cu_seqlens,
                 int64_t* rows, int64_t* targets, void* stream);

}  // namespace codeact::cuda

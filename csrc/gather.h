#pragma once

#include <cstdint>

namespace codeact {

// The total length of the segments [starts[k], stops[k]) of `num_values` values.
// Throws std::invalid_argument unless 0 <= start <= stop <= num_values for each.
int64_t checked_total(const int64_t* starts, const int64_t* stops, int64_t num_segments,
                      int64_t num_values);

// Lays the segments of `values` end to end in `out`, widened to int64. T is int16_t, uint16_t,
// int32_t, uint32_t or int64_t. Trusts what checked_total accepted.
template <typename T>
void gather_tokens(const T* values, const int64_t* starts, const int64_t* stops,
                   int64_t num_segments, int64_t* out);

// The sum of the lengths. Throws std::invalid_argument when a length is negative, or the sum is
// above `limit`, which is at most 2^31 - 1 as the running sums are int32.
int32_t checked_sum(const int32_t* seqlens, int64_t num_seqs, int64_t limit);

// For sequences laid end to end: each token's place in its sequence, the index of its sequence,
// and the num_seqs + 1 running sums of the lengths. Trusts what checked_sum accepted.
void pack_layout(const int32_t* seqlens, int64_t num_seqs, int64_t* position_ids, int32_t* seq_idx,
                 int32_t* cu_seqlens);

}  // namespace codeact

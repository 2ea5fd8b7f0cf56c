#pragma once

#include <cstdint>

#include "huge_pages.h"

namespace codeact {

// Best fit decreasing: sequences are taken longest first, each into the fullest bin that still
// holds it, or into a new bin. The number of bins, and how full each is, equal what one pass over
// the single sequences gives.
//
// Writes a permutation of 0..num_seqs-1 to `order`, bin after bin and longest first within a bin,
// and returns num_bins + 1 offsets into it: bin k holds order[offsets[k]] .. order[offsets[k+1]-1].
// Equal lengths keep their input order, so the result depends on the input alone. Sequences of
// length 0 take a place and no space, all in one bin.
//
// The first `num_first` sequences are placed before all others, by the same rule.
//
// Time: one counting sort, one copy, and a step per (length, remaining capacity) pair that occurs,
// a few thousandths of the sequences in a real set. Memory besides the results: 4 bytes a sequence,
// 20 a pair, and two tables of 4 bytes a token of capacity. Where such a table would have more than
// num_seqs + 65536 entries, a comparison sort and a tree take its place.
//
// Throws std::invalid_argument when capacity < 1 or a length is not in [0, capacity].
HugeVector<int64_t> pack_best_fit(const int32_t* seqlens, int32_t num_seqs, int32_t capacity,
                                  int32_t* order, int32_t num_first = 0);

// Next fit: bins in the given order, a new one where the next sequence does not fit the last.
// Returns num_bins + 1 offsets into the sequences; throws like pack_best_fit.
HugeVector<int64_t> pack_next_fit(const int32_t* seqlens, int32_t num_seqs, int32_t capacity);

// Throws std::invalid_argument as above, naming the first length that is wrong.
void check_seqlens(const int32_t* seqlens, int32_t num_seqs, int32_t capacity);

}  // namespace codeact

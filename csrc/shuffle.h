#pragma once

#include <array>
#include <cstdint>

namespace codeact {

// One block of the counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers:
// as easy as 1, 2, 3", SC 2011): four random words, a pure function of counter and key.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Writes a random permutation of 0..num_items-1 to `permutation`, a pure function of
// (num_items, seed, epoch) on every platform.
//
// Fisher-Yates: for i = num_items - 1 down to 1, items i and j = floor(u_i * (i + 1) / 2^64) change
// places; u_i is the word pair i % 2 (low word first) of the Philox block with the seed as key and
// (i / 2, epoch) as counter, low words first. No u_i is drawn anew, so an item's chances are off by
// less than num_items / 2^64.
void shuffled(int32_t num_items, uint64_t seed, uint64_t epoch, int32_t* permutation);

}  // namespace codeact

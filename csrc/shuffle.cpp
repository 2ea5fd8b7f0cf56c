#include "shuffle.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace codeact {
namespace {

// Draws are made a chunk ahead of the swaps, so that the items they will touch are on their way
// from memory by then. 256 is far enough, and small enough for the first-level cache.
constexpr int32_t kChunk = 256;

uint32_t low(uint64_t word) { return static_cast<uint32_t>(word); }
uint32_t high(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

// floor((u_high * 2^32 + u_low) * bound / 2^64); exact in 64 bits as bound < 2^31.
int32_t below(uint64_t bound, uint32_t u_low, uint32_t u_high) {
  return static_cast<int32_t>(high(u_high * bound + high(u_low * bound)));
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {high(b) ^ counter[1] ^ key[0], low(b), high(a) ^ counter[3] ^ key[1], low(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

void shuffled(int32_t num_items, uint64_t seed, uint64_t epoch, int32_t* permutation) {
  std::iota(permutation, permutation + num_items, 0);
  const std::array<uint32_t, 2> key{low(seed), high(seed)};
  std::array<int32_t, kChunk> partner;
  // Chunks [first, first + kChunk) from the last one down.
  for (int32_t first = (num_items - 1) / kChunk * kChunk; num_items > 0 && first >= 0;
       first -= kChunk) {
    const int32_t count = std::min(kChunk, num_items - first);
    for (int32_t k = 0; k < count; k += 2) {
      const auto block = static_cast<uint32_t>((first + k) / 2);
      const auto words = philox({block, 0, low(epoch), high(epoch)}, key);
      const auto bound = static_cast<uint64_t>(first + k) + 1;
      partner[k] = below(bound, words[0], words[1]);
      partner[k + 1] = below(bound + 1, words[2], words[3]);
      __builtin_prefetch(permutation + partner[k], 1);
      __builtin_prefetch(permutation + partner[k + 1], 1);
    }
    for (int32_t k = count - 1; k >= 0; --k) {
      std::swap(permutation[first + k], permutation[partner[k]]);
    }
  }
}

}  // namespace codeact

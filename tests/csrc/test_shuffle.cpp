#include <limits>

#include "bins.h"
#include "shuffle.h"

namespace {

using Block = std::array<uint32_t, 4>;
constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

Lengths shuffled(int32_t num_items, uint64_t seed, uint64_t epoch) {
  Lengths items(num_items, -1);
  codeact::shuffled(num_items, seed, epoch, items.data());
  return items;
}

// The known answers of Random123, the generator's own distribution.
void test_known_answers() {
  EXPECT((codeact::philox({0, 0, 0, 0}, {0, 0}) ==
          Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT((codeact::philox({ones, ones, ones, ones}, {ones, ones}) ==
          Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT((
      codeact::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
      Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

void test_permutations() {
  for (const int32_t num_items : {0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 100'000}) {
    for (const uint64_t seed : {uint64_t{0}, kMax}) {
      EXPECT(is_permutation_of_indices(shuffled(num_items, seed, 0)));
      EXPECT(is_permutation_of_indices(shuffled(num_items, seed, kMax)));
    }
  }
  EXPECT(shuffled(100, 1, 2) == shuffled(100, 1, 2));
  EXPECT(shuffled(100, 1, 2) != shuffled(100, 2, 1));
  EXPECT(shuffled(100, 1, 0) != shuffled(100, uint64_t{1} << 32, 0));
  EXPECT(shuffled(100, 0, 1) != shuffled(100, 0, uint64_t{1} << 32));
}

}  // namespace

void test_shuffle() {
  test_known_answers();
  test_permutations();
}

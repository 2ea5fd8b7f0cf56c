#include <limits>
#include <map>
#include <numeric>

#include "bins.h"
#include "packing.h"

namespace {

constexpr int32_t kMax = std::numeric_limits<int32_t>::max();

Bins best_fit(const Lengths& seqlens, int32_t capacity, int32_t num_first = 0) {
  Lengths order(seqlens.size(), -1);
  const auto offsets = codeact::pack_best_fit(seqlens.data(), static_cast<int32_t>(seqlens.size()),
                                              capacity, order.data(), num_first);
  EXPECT(is_permutation_of_indices(order));
  return split(order, offsets);
}

Bins next_fit(const Lengths& seqlens, int32_t capacity) {
  Lengths order(seqlens.size());
  std::iota(order.begin(), order.end(), 0);
  return split(order, codeact::pack_next_fit(seqlens.data(), static_cast<int32_t>(seqlens.size()),
                                             capacity));
}

// What remains in each bin of plain best fit, one sequence at a time.
std::vector<int64_t> plain_loads(Lengths seqlens, int32_t capacity, int32_t num_first) {
  std::sort(seqlens.begin(), seqlens.begin() + num_first, std::greater<>());
  std::sort(seqlens.begin() + num_first, seqlens.end(), std::greater<>());
  std::multimap<int32_t, int> rooms;
  for (const int32_t seqlen : seqlens) {
    const auto tightest = rooms.lower_bound(seqlen);
    int32_t room = capacity;
    if (tightest != rooms.end()) {
      room = tightest->first;
      rooms.erase(tightest);
    }
    rooms.emplace(room - seqlen, 0);
  }
  std::vector<int64_t> loads;
  for (const auto& [room, unused] : rooms) loads.push_back(int64_t{capacity} - room);
  std::sort(loads.begin(), loads.end());
  return loads;
}

void test_best_fit_equals_the_plain_one() {
  std::mt19937 random(1);
  // Capacities on both sides of each table's limit; lengths that repeat, and that do not.
  for (const int32_t capacity : {1, 2, 63, 64, 65, 4096, 65'700, 66'000, 1 << 20, kMax}) {
    for (const int32_t most : {1, 5, 700, capacity}) {
      for (const int32_t num_seqs : {1, 2, 50, 400}) {
        const Lengths seqlens = random_lengths(&random, num_seqs, 0, std::min(most, capacity));
        for (const int32_t num_first : {0, 1, num_seqs / 3, num_seqs}) {
          const Bins bins = best_fit(seqlens, capacity, num_first);
          EXPECT(sorted_loads(seqlens, bins) == plain_loads(seqlens, capacity, num_first));
        }
      }
    }
  }
}

void test_edges() {
  EXPECT(best_fit({}, 7) == Bins{});
  EXPECT((best_fit({0, 0, 0}, 7) == Bins{{0, 1, 2}}));
  EXPECT((best_fit({3, 4, 2, 5}, 7) == Bins{{1, 0}, {3, 2}}));
  EXPECT((best_fit({0, 7, 0}, 7) == Bins{{1, 0, 2}}));
  EXPECT((best_fit({2, 2, 2, 2, 2}, 5) == Bins{{0, 1}, {2, 3}, {4}}));
  EXPECT((best_fit({kMax, kMax}, kMax) == Bins{{0}, {1}}));
  EXPECT((best_fit({1, 6, 6, 1}, 7, 1) == Bins{{0, 1}, {2, 3}}));
  EXPECT(next_fit({}, 7) == Bins{});
  EXPECT((next_fit({0, 3, 4, 0, 2, 6}, 7) == Bins{{0, 1, 2, 3}, {4}, {5}}));
  EXPECT((next_fit({kMax, 0, kMax}, kMax) == Bins{{0, 1}, {2}}));
}

void test_arrays_on_huge_pages() {
  std::mt19937 random(2);
  const Lengths seqlens = random_lengths(&random, 600'000, 1, 4096);
  for (const Lengths& members : best_fit(seqlens, 4096)) EXPECT(load(seqlens, members) <= 4096);
  for (const Lengths& members : next_fit(seqlens, 4096)) EXPECT(load(seqlens, members) <= 4096);
}

void test_refusals() {
  EXPECT(refuses([] { best_fit({1}, 0); }, "capacity must be positive, got 0"));
  EXPECT(refuses([] { best_fit({3, 9}, 7); }, "seqlens[1] = 9 does not fit a bin of 7 tokens"));
  EXPECT(refuses([] { best_fit({3, -1}, 7); }, "seqlens[1] = -1 is negative"));
  EXPECT(refuses([] { best_fit({std::numeric_limits<int32_t>::min()}, kMax); }, "is negative"));
  EXPECT(refuses([] { next_fit({3, 9}, 7); }, "seqlens[1] = 9 does not fit a bin of 7 tokens"));
  EXPECT(refuses([] { next_fit({1}, -7); }, "capacity must be positive, got -7"));
}

}  // namespace

void test_packing() {
  test_best_fit_equals_the_plain_one();
  test_edges();
  test_arrays_on_huge_pages();
  test_refusals();
}

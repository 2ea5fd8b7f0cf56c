#include "bins.h"
#include "windows.h"

namespace {

struct Packed {
  Bins bins;
  int64_t num_closed;
};

Packed window(const Lengths& seqlens, const Lengths& ages, int32_t capacity, int32_t max_carry,
              bool close_all = false) {
  Lengths order(seqlens.size(), -1);
  const codeact::Window packed =
      codeact::pack_window(seqlens.data(), ages.data(), static_cast<int32_t>(seqlens.size()),
                           capacity, max_carry, close_all, order.data());
  EXPECT(is_permutation_of_indices(order));
  return {split(order, packed.offsets), packed.num_closed};
}

Bins windows(const Lengths& seqlens, int32_t capacity, int32_t size, int32_t tail = 0) {
  Lengths order(seqlens.size(), -1);
  const auto offsets = codeact::pack_windows(seqlens.data(), static_cast<int32_t>(seqlens.size()),
                                             capacity, size, tail, order.data());
  EXPECT(is_permutation_of_indices(order));
  return split(order, offsets);
}

void test_what_is_carried() {
  EXPECT(window({}, {}, 100, 5).num_closed == 0);
  EXPECT(window({98}, {0}, 100, 5).num_closed == 0);
  EXPECT(window({98}, {0}, 100, 0).num_closed == 1);
  EXPECT(window({98}, {0}, 100, 5, true).num_closed == 1);
  EXPECT(window({99}, {0}, 100, 5).num_closed == 1);
  EXPECT(window({98}, {7}, 100, 5).num_closed == 0);
  EXPECT(window({98}, {8}, 100, 5).num_closed == 1);
  EXPECT(window({2'000'000'000}, {0}, 2'147'483'647, 5).num_closed == 0);
  const Packed least_full = window({60, 70, 80}, {0, 0, 0}, 100, 2);
  EXPECT((least_full.bins == Bins{{2}, {1}, {0}} && least_full.num_closed == 1));
  const Packed older_first = window({60, 60}, {0, 3}, 100, 5);
  EXPECT((older_first.bins == Bins{{1}, {0}}));
  const Packed due_first = window({95, 5, 9}, {0, 8, 9}, 100, 5);
  EXPECT((due_first.bins == Bins{{2, 1}, {0}} && due_first.num_closed == 1));
}

// max_carry, the 99 % and the age hold for random windows.
void test_limits_of_carrying() {
  std::mt19937 random(3);
  for (int trial = 0; trial < 200; ++trial) {
    const int32_t capacity = 50 << (trial % 12);
    const Lengths seqlens = random_lengths(&random, 1 + trial, 0, std::min(capacity, 300));
    const Lengths ages = random_lengths(&random, 1 + trial, 0, trial % 3 == 0 ? 0 : 9);
    const int32_t max_carry = trial / 2;
    const Packed packed = window(seqlens, ages, capacity, max_carry);
    size_t num_carried = 0;
    for (size_t bin = 0; bin < packed.bins.size(); ++bin) {
      const Lengths& members = packed.bins[bin];
      EXPECT(load(seqlens, members) <= capacity);
      if (static_cast<int64_t>(bin) < packed.num_closed) continue;
      num_carried += members.size();
      EXPECT(load(seqlens, members) * 100 < int64_t{capacity} * 99);
      for (const int32_t seq : members) EXPECT(ages[seq] < 8);
    }
    EXPECT(num_carried <= static_cast<size_t>(max_carry));
  }
}

void test_streams() {
  std::mt19937 random(4);
  EXPECT(windows({}, 7, 3) == Bins{});
  EXPECT((windows({5}, 7, 2'147'483'647) == Bins{{0}}));
  EXPECT((windows({4, 3, 2, 5}, 7, 1) == Bins{{0, 1}, {3, 2}}));
  for (const int32_t num_seqs : {1, 31, 32, 33, 2000}) {
    const Lengths seqlens = random_lengths(&random, num_seqs, 0, 300);
    for (const int32_t size : {1, 32, 500, 5000}) {
      for (const int32_t tail : {0, size, size + 7, 2'147'483'647}) {
        for (const Lengths& members : windows(seqlens, 1000, size, tail)) {
          EXPECT(load(seqlens, members) <= 1000);
        }
      }
    }
    // One window is plain best fit.
    const Bins whole = windows(seqlens, 1000, num_seqs);
    EXPECT(whole == window(seqlens, Lengths(num_seqs, 0), 1000, 0).bins);
    EXPECT(whole == windows(seqlens, 1000, 1, num_seqs));
  }
}

// The number of bins depends on the lengths in each window, not on their order.
void test_order_within_a_window_does_not_count() {
  std::mt19937 random(5);
  for (int trial = 0; trial < 20; ++trial) {
    Lengths seqlens = random_lengths(&random, 640, 1, 900);
    const Bins before = windows(seqlens, 4096, 32);
    const auto loads = sorted_loads(seqlens, before);
    for (auto start = seqlens.begin(); start != seqlens.end(); start += 32) {
      std::shuffle(start, start + 32, random);
    }
    EXPECT(loads == sorted_loads(seqlens, windows(seqlens, 4096, 32)));
  }
}

void test_refusals() {
  EXPECT(refuses([] { window({1}, {-1}, 7, 1); }, "ages[0] = -1 is negative"));
  EXPECT(refuses([] { window({1}, {0}, 7, -1); }, "max_carry must not be negative, got -1"));
  EXPECT(refuses([] { window({9}, {0}, 7, 1); }, "seqlens[0] = 9 does not fit"));
  EXPECT(refuses([] { windows({1}, 7, 0); }, "window must be positive, got 0"));
  EXPECT(refuses([] { windows({1}, 7, 4, 3); }, "tail must be at least window = 4, got 3"));
  EXPECT(refuses([] { windows({1, 1, -9}, 7, 1); }, "seqlens[2] = -9 is negative"));
}

}  // namespace

void test_windows() {
  test_what_is_carried();
  test_limits_of_carrying();
  test_streams();
  test_order_within_a_window_does_not_count();
  test_refusals();
}

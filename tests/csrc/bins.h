#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "expect.h"

using Lengths = std::vector<int32_t>;
using Bins = std::vector<Lengths>;  // the sequences of each

template <typename Offsets>
Bins split(const Lengths& order, const Offsets& offsets) {
  Bins bins;
  EXPECT(!offsets.empty() && offsets.front() == 0);
  EXPECT(offsets.back() == static_cast<int64_t>(order.size()));
  for (size_t bin = 0; bin + 1 < offsets.size(); ++bin) {
    EXPECT(offsets[bin] < offsets[bin + 1]);  // no bin is empty
    bins.emplace_back(order.begin() + offsets[bin], order.begin() + offsets[bin + 1]);
  }
  return bins;
}

inline int64_t load(const Lengths& seqlens, const Lengths& members) {
  int64_t num_tokens = 0;
  for (const int32_t seq : members) num_tokens += seqlens[seq];
  return num_tokens;
}

inline std::vector<int64_t> sorted_loads(const Lengths& seqlens, const Bins& bins) {
  std::vector<int64_t> loads;
  for (const Lengths& members : bins) loads.push_back(load(seqlens, members));
  std::sort(loads.begin(), loads.end());
  return loads;
}

inline bool is_permutation_of_indices(Lengths order) {
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != static_cast<int32_t>(i)) return false;
  }
  return true;
}

inline Lengths random_lengths(std::mt19937* random, int32_t num_seqs, int32_t least, int32_t most) {
  Lengths seqlens(num_seqs);
  for (int32_t& seqlen : seqlens) {
    seqlen = std::uniform_int_distribution<int32_t>(least, most)(*random);
  }
  return seqlens;
}

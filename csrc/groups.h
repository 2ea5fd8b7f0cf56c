#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

// Where best fit keeps its groups of equal bins: by the capacity that remains in them.

namespace codeact {

constexpr int32_t kNone = 0;  // no group

// Remaining capacity -> newest group, in a table; 64-way bitmaps find the next occupied entry.
class TableOfGroups {
 public:
  explicit TableOfGroups(int32_t capacity) : heads_(static_cast<size_t>(capacity) + 1, kNone) {
    for (size_t size = heads_.size(); levels_.empty() || size > 1;) {
      size = (size + 63) / 64;
      levels_.emplace_back(size, 0);
    }
  }

  // Smallest occupied remaining capacity >= length, or -1.
  int32_t tightest(int32_t length) const {
    size_t position = static_cast<size_t>(length);
    for (size_t level = 0; level < levels_.size(); ++level) {
      const size_t word = position / 64;
      if (word >= levels_[level].size()) return -1;
      const uint64_t later = levels_[level][word] & (~uint64_t{0} << (position % 64));
      if (later != 0) return descend(level, word * 64 + lowest_bit(later));
      position = word + 1;  // the next word is the next bit one level up
    }
    return -1;
  }

  int32_t head(int32_t remaining) const { return heads_[remaining]; }

  void set_head(int32_t remaining, int32_t group) {
    heads_[remaining] = group;
    size_t position = static_cast<size_t>(remaining);
    for (auto& words : levels_) {
      uint64_t& word = words[position / 64];
      const uint64_t bit = uint64_t{1} << (position % 64);
      word = group == kNone ? word & ~bit : word | bit;
      if (group == kNone && word != 0) return;  // the word above still has reason to be set
      position /= 64;
    }
  }

 private:
  static size_t lowest_bit(uint64_t word) { return static_cast<size_t>(__builtin_ctzll(word)); }

  int32_t descend(size_t level, size_t position) const {
    while (level-- > 0) position = position * 64 + lowest_bit(levels_[level][position]);
    return static_cast<int32_t>(position);
  }

  std::vector<int32_t> heads_;
  std::vector<std::vector<uint64_t>> levels_;
};

// The same for a capacity far above the number of sequences.
class TreeOfGroups {
 public:
  int32_t tightest(int32_t length) const {
    const auto found = heads_.lower_bound(length);
    return found == heads_.end() ? -1 : found->first;
  }

  int32_t head(int32_t remaining) const {
    const auto found = heads_.find(remaining);
    return found == heads_.end() ? kNone : found->second;
  }

  void set_head(int32_t remaining, int32_t group) {
    if (group == kNone) {
      heads_.erase(remaining);
    } else {
      heads_[remaining] = group;
    }
  }

 private:
  std::map<int32_t, int32_t> heads_;
};

}  // namespace codeact

#include "packing.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <utility>

#include "check.h"

namespace codeact {
namespace {

constexpr int32_t kNone = 0;  // no group; the groups' vector starts with an unused one

// Bins of equal content. What they hold is the chain of parents: each link adds `copies` sequences
// of one length to every bin, taken from `first` onwards in the sorted order.
struct Group {
  int32_t parent;
  int32_t first;
  int32_t copies;
  int32_t num_bins;  // bins that are exactly this chain; the others went on to a child
  int32_t next;      // another group with the same remaining capacity
};

// A table as long as the input costs no more than the input; 65536 entries cost nothing.
bool fits_a_table(int32_t largest, int32_t num_seqs) {
  return largest <= int64_t{num_seqs} + 65536;
}

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

template <typename Classes>
class BestFit {
 public:
  BestFit(int32_t capacity, Classes classes) : capacity_(capacity), classes_(std::move(classes)) {}

  // Places `count` sequences of one length, which start at `first` in the sorted order. After an
  // item of length s went into the tightest bin, that bin stays the tightest while s still fits:
  // so a bin takes floor(remaining / s) copies at once, and equal bins take them alike.
  void place(int32_t length, int32_t count, int32_t first) {
    while (count > 0) {
      const int32_t tightest = classes_.tightest(length);
      const bool opens_bins = tightest < 0;
      const int32_t remaining = opens_bins ? capacity_ : tightest;
      const int32_t parent = opens_bins ? kNone : classes_.head(remaining);
      const int32_t copies = length == 0 ? count : std::min(remaining / length, count);
      const int32_t num_bins =
          opens_bins ? count / copies : std::min(count / copies, groups_[parent].num_bins);
      if (!opens_bins) take_from(parent, num_bins, remaining);
      add({parent, first, copies, num_bins, kNone}, remaining - copies * length);
      first += num_bins * copies;
      count -= num_bins * copies;
    }
  }

  std::vector<int64_t> write(const int32_t* sorted, int32_t* order) {
    std::vector<int64_t> offsets{0};
    std::vector<Group> content;  // the chain from its root: longest sequences first
    int32_t* out = order;
    for (size_t group = 0; group < groups_.size(); ++group) {
      const int32_t num_bins = groups_[group].num_bins;
      if (num_bins > 0) take_content(static_cast<int32_t>(group), num_bins, &content);
      for (int32_t bin = 0; bin < num_bins; ++bin) {
        for (Group& link : content) {
          const int32_t* const from = sorted + link.first;
          link.first += link.copies;
          // One copy is the usual case: a plain store instead of a call.
          if (link.copies == 1) {
            *out++ = *from;
          } else {
            out = std::copy_n(from, link.copies, out);
          }
        }
        offsets.push_back(out - order);
      }
    }
    return offsets;
  }

 private:
  void take_from(int32_t group, int32_t num_bins, int32_t remaining) {
    groups_[group].num_bins -= num_bins;
    if (groups_[group].num_bins == 0) classes_.set_head(remaining, groups_[group].next);
  }

  // Copies the chain of a group, and books in each link what `num_bins` bins take out of it.
  void take_content(int32_t group, int32_t num_bins, std::vector<Group>* content) {
    content->clear();
    for (int32_t link = group; link != kNone; link = groups_[link].parent) {
      content->push_back(groups_[link]);
      groups_[link].first += groups_[link].copies * num_bins;
    }
    std::reverse(content->begin(), content->end());
  }

  void add(Group group, int32_t remaining) {
    group.next = classes_.head(remaining);
    classes_.set_head(remaining, static_cast<int32_t>(groups_.size()));
    groups_.push_back(group);
  }

  const int32_t capacity_;
  Classes classes_;
  std::vector<Group> groups_{Group{}};
};

// Throws what the caller needs to find the length that is not in [0, capacity].
void refuse(const int32_t* seqlens, int32_t num_seqs, int32_t capacity) {
  for (int32_t i = 0; i < num_seqs; ++i) {
    check(seqlens[i] >= 0, "seqlens[", i, "] = ", seqlens[i], " is negative");
    check(seqlens[i] <= capacity, "seqlens[", i, "] = ", seqlens[i], " does not fit a bin of ",
          capacity, " tokens");
  }
}

int32_t checked_longest(const int32_t* seqlens, int32_t num_seqs, int32_t capacity) {
  check(capacity > 0, "capacity must be positive, got ", capacity);
  uint32_t longest = 0;  // a negative length is a large one here: one maximum checks both ends
  for (int32_t i = 0; i < num_seqs; ++i) {
    longest = std::max(longest, static_cast<uint32_t>(seqlens[i]));
  }
  if (longest > static_cast<uint32_t>(capacity)) refuse(seqlens, num_seqs, capacity);
  return static_cast<int32_t>(longest);
}

// Calls run(length, count, first) for each length that occurs, longest first, and fills `sorted`
// with the indices in that order.
template <typename Run>
void counting_sort(const int32_t* seqlens, int32_t num_seqs, int32_t longest, int32_t* sorted,
                   Run run) {
  std::vector<int32_t> position(static_cast<size_t>(longest) + 1, 0);
  for (int32_t i = 0; i < num_seqs; ++i) ++position[seqlens[i]];
  int32_t first = 0;
  for (int32_t length = longest; length >= 0; --length) {
    const int32_t count = std::exchange(position[length], first);
    if (count > 0) run(length, count, first);
    first += count;
  }
  for (int32_t i = 0; i < num_seqs; ++i) sorted[position[seqlens[i]]++] = i;
}

template <typename Run>
void comparison_sort(const int32_t* seqlens, int32_t num_seqs, int32_t* sorted, Run run) {
  std::iota(sorted, sorted + num_seqs, 0);
  std::sort(sorted, sorted + num_seqs, [seqlens](int32_t a, int32_t b) {
    return seqlens[a] != seqlens[b] ? seqlens[a] > seqlens[b] : a < b;
  });
  for (int32_t first = 0, end = 0; first < num_seqs; first = end) {
    const int32_t length = seqlens[sorted[first]];
    while (end < num_seqs && seqlens[sorted[end]] == length) ++end;
    run(length, end - first, first);
  }
}

template <typename Classes>
std::vector<int64_t> pack(const int32_t* seqlens, int32_t num_seqs, int32_t longest, int32_t* order,
                          BestFit<Classes> bins) {
  const std::unique_ptr<int32_t[]> sorted(new int32_t[num_seqs]);
  const auto place = [&bins](int32_t length, int32_t count, int32_t first) {
    bins.place(length, count, first);
  };
  if (fits_a_table(longest, num_seqs)) {
    counting_sort(seqlens, num_seqs, longest, sorted.get(), place);
  } else {
    comparison_sort(seqlens, num_seqs, sorted.get(), place);
  }
  return bins.write(sorted.get(), order);
}

}  // namespace

std::vector<int64_t> pack_best_fit(const int32_t* seqlens, int32_t num_seqs, int32_t capacity,
                                   int32_t* order) {
  const int32_t longest = checked_longest(seqlens, num_seqs, capacity);
  if (fits_a_table(capacity, num_seqs)) {
    return pack(seqlens, num_seqs, longest, order, BestFit(capacity, TableOfGroups(capacity)));
  }
  return pack(seqlens, num_seqs, longest, order, BestFit(capacity, TreeOfGroups()));
}

}  // namespace codeact

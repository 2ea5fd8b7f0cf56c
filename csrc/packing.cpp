#include "packing.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "check.h"
#include "groups.h"

namespace codeact {
namespace {

// Bins of equal content. What they hold is the chain of parents: each link adds `copies` sequences
// of one length to every bin, taken from `first` onwards in the sorted order.
struct Group {
  int32_t parent;
  int32_t first;
  int32_t copies;
  int32_t num_bins;  // bins that are exactly this chain; the others went on to a child
  int32_t next;      // another group with the same remaining capacity
};

// Lengths and capacities of some thousand tokens make about as many groups, in any number of bins.
constexpr int32_t kUsualGroups = 8192;

// Counting beats comparing up to about this many table entries a sequence.
constexpr int64_t kEntriesPerSeq = 32;

// A table as long as the input costs no more than the input; 65536 entries cost nothing.
bool fits_a_table(int32_t largest, int32_t num_seqs) {
  return largest <= int64_t{num_seqs} + 65536;
}

template <typename Classes>
class BestFit {
 public:
  BestFit(int32_t capacity, int32_t num_seqs, Classes classes)
      : capacity_(capacity), classes_(std::move(classes)) {
    groups_.reserve(std::min(num_seqs, kUsualGroups) + 1);
    groups_.push_back({});  // number kNone
  }

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

  HugeVector<int64_t> write(const int32_t* sorted, int32_t* order) {
    int64_t total_bins = 0;
    for (const Group& group : groups_) total_bins += group.num_bins;
    HugeVector<int64_t> offsets(total_bins + 1);
    int64_t* offset = offsets.data();
    *offset++ = 0;
    std::vector<Group> content;  // the chain from its root: what was placed first
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
        *offset++ = out - order;
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
  std::vector<Group> groups_;
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

// Sorts sequences begin .. end-1: calls run(length, count, first) for each length that occurs,
// longest first, and fills sorted[begin .. end-1] with the indices in that order.
template <typename Run>
void counting_sort(const int32_t* seqlens, int32_t begin, int32_t end, int32_t longest,
                   int32_t* sorted, Run run) {
  std::vector<int32_t> position(static_cast<size_t>(longest) + 1, 0);
  for (int32_t i = begin; i < end; ++i) ++position[seqlens[i]];
  int32_t first = begin;
  for (int32_t length = longest; length >= 0; --length) {
    const int32_t count = std::exchange(position[length], first);
    if (count > 0) run(length, count, first);
    first += count;
  }
  for (int32_t i = begin; i < end; ++i) sorted[position[seqlens[i]]++] = i;
}

template <typename Run>
void comparison_sort(const int32_t* seqlens, int32_t begin, int32_t end, int32_t* sorted, Run run) {
  std::iota(sorted + begin, sorted + end, begin);
  std::sort(sorted + begin, sorted + end, [seqlens](int32_t a, int32_t b) {
    return seqlens[a] != seqlens[b] ? seqlens[a] > seqlens[b] : a < b;
  });
  for (int32_t first = begin, stop = begin; first < end; first = stop) {
    const int32_t length = seqlens[sorted[first]];
    while (stop < end && seqlens[sorted[stop]] == length) ++stop;
    run(length, stop - first, first);
  }
}

template <typename Classes>
HugeVector<int64_t> pack(const int32_t* seqlens, int32_t num_seqs, int32_t num_first,
                         int32_t longest, int32_t* order, BestFit<Classes> bins) {
  HugeVector<int32_t> sorted(num_seqs);
  const auto place = [&](int32_t begin, int32_t end) {
    const auto run = [&bins](int32_t length, int32_t count, int32_t first) {
      bins.place(length, count, first);
    };
    // Reading a table through costs more than sorting a few sequences.
    if (fits_a_table(longest, num_seqs) && longest <= kEntriesPerSeq * int64_t{end - begin}) {
      counting_sort(seqlens, begin, end, longest, sorted.data(), run);
    } else {
      comparison_sort(seqlens, begin, end, sorted.data(), run);
    }
  };
  place(0, num_first);
  place(num_first, num_seqs);
  return bins.write(sorted.data(), order);
}

}  // namespace

HugeVector<int64_t> pack_best_fit(const int32_t* seqlens, int32_t num_seqs, int32_t capacity,
                                  int32_t* order, int32_t num_first) {
  const int32_t longest = checked_longest(seqlens, num_seqs, capacity);
  if (fits_a_table(capacity, num_seqs)) {
    return pack(seqlens, num_seqs, num_first, longest, order,
                BestFit(capacity, num_seqs, TableOfGroups(capacity)));
  }
  return pack(seqlens, num_seqs, num_first, longest, order,
              BestFit(capacity, num_seqs, TreeOfGroups()));
}

HugeVector<int64_t> pack_next_fit(const int32_t* seqlens, int32_t num_seqs, int32_t capacity) {
  check_seqlens(seqlens, num_seqs, capacity);
  HugeVector<int64_t> offsets{0};
  int64_t used = 0;
  for (int32_t i = 0; i < num_seqs; ++i) {
    used += seqlens[i];
    if (used > capacity) {
      offsets.push_back(i);
      used = seqlens[i];
    }
  }
  if (num_seqs > 0) offsets.push_back(num_seqs);
  return offsets;
}

void check_seqlens(const int32_t* seqlens, int32_t num_seqs, int32_t capacity) {
  checked_longest(seqlens, num_seqs, capacity);
}

}  // namespace codeact

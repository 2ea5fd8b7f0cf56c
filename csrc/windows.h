#pragma once

#include <cstdint>

#include "huge_pages.h"

namespace codeact {

// Bins of one window, the closed ones first. Bins num_closed and later are carried: their sequences
// go into the next window again.
struct Window {
  HugeVector<int64_t> offsets;  // num_bins + 1, into `order`
  int64_t num_closed;
};

// Best fit decreasing (packing.h) of one window, which keeps open what another window may improve:
// bins filled below 99 %, the least full first and at most `max_carry` sequences of them, except
// bins that hold a sequence carried 8 times already; those sequences are placed before all others.
// `close_all` carries nothing.
//
// ages[i] says how many times sequence i was carried. Of equally long sequences the older ones come
// first; so which lengths of which ages stay open, and hence every later number of bins, depends on
// the lengths in each window and not on their order. `order` as in pack_best_fit.
//
// Throws std::invalid_argument like pack_best_fit, and when max_carry or an age is negative.
Window pack_window(const int32_t* seqlens, const int32_t* ages, int32_t num_seqs, int32_t capacity,
                   int32_t max_carry, bool close_all, int32_t* order);

// Cuts the sequences, in the given order, into windows of `window`, and passes each with what was
// carried to pack_window (max_carry = window); the last closes all. The last window is the last
// `tail` sequences; 0 is what remains after the full windows. Bins stand in the order of closing.
//
// Besides the results: 12 bytes a sequence of the largest window, and what pack_best_fit takes.
// Throws std::invalid_argument like pack_best_fit, when window < 1 or 0 != tail < window.
HugeVector<int64_t> pack_windows(const int32_t* seqlens, int32_t num_seqs, int32_t capacity,
                                 int32_t window, int32_t tail, int32_t* order);

}  // namespace codeact

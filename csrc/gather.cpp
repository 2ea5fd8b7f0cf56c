#include "gather.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "check.h"

namespace codeact {

int64_t checked_total(const int64_t* starts, const int64_t* stops, int64_t num_segments,
                      int64_t num_values) {
  int64_t total = 0;
  for (int64_t k = 0; k < num_segments; ++k) {
    check(0 <= starts[k] && starts[k] <= stops[k] && stops[k] <= num_values, "segment ", k, " = [",
          starts[k], ", ", stops[k], ") does not lie in ", num_values, " values");
    check(!__builtin_add_overflow(total, stops[k] - starts[k], &total),
          "the segments hold more than 2**63 - 1 values");
  }
  return total;
}

template <typename T>
void gather_tokens(const T* values, const int64_t* starts, const int64_t* stops,
                   int64_t num_segments, int64_t* out) {
  for (int64_t k = 0; k < num_segments; ++k) {
    out = std::copy(values + starts[k], values + stops[k], out);
  }
}

template void gather_tokens(const int16_t*, const int64_t*, const int64_t*, int64_t, int64_t*);
template void gather_tokens(const uint16_t*, const int64_t*, const int64_t*, int64_t, int64_t*);
template void gather_tokens(const int32_t*, const int64_t*, const int64_t*, int64_t, int64_t*);
template void gather_tokens(const uint32_t*, const int64_t*, const int64_t*, int64_t, int64_t*);
template void gather_tokens(const int64_t*, const int64_t*, const int64_t*, int64_t, int64_t*);

int32_t checked_sum(const int32_t* seqlens, int64_t num_seqs, int64_t limit) {
  int64_t sum = 0;  // below 2^32 at every step, as it is checked at each
  for (int64_t seq = 0; seq < num_seqs; ++seq) {
    check(seqlens[seq] >= 0, "seqlens[", seq, "] = ", seqlens[seq], " is negative");
    sum += seqlens[seq];
    check(sum <= limit, "seqlens sum to more than ", limit, " tokens");
  }
  return static_cast<int32_t>(sum);
}

void pack_layout(const int32_t* seqlens, int64_t num_seqs, int64_t* position_ids, int32_t* seq_idx,
                 int32_t* cu_seqlens) {
  int32_t end = 0;
  cu_seqlens[0] = end;
  for (int64_t seq = 0; seq < num_seqs; ++seq) {
    std::iota(position_ids + end, position_ids + end + seqlens[seq], 0);
    std::fill_n(seq_idx + end, seqlens[seq], static_cast<int32_t>(seq));
    end += seqlens[seq];
    cu_seqlens[seq + 1] = end;
  }
}

}  // namespace codeact

#pragma once

// The maximum of each row of a tile, for any set of instructions.

namespace codeact::simd {
namespace {

template <class S, bool kBias>
struct Values {
  CODEACT_INLINED typename S::V operator()(int64_t col, int64_t count) const {
    const typename S::V products = simd::load<S>(row + col, count);
    if constexpr (!kBias) return products;
    return S::add(products, simd::load<S>(bias + col, count));
  }

  const float* row;
  const float* bias;
};

constexpr uint32_t first_bits(int64_t count) {
  return static_cast<uint32_t>((uint64_t{1} << count) - 1);
}

// The first column in [first, last) whose value is `wanted`, or is NaN if `wanted` is; one is.
template <class S, bool kBias>
inline int64_t find(const Values<S, kBias>& values, float wanted, int64_t first, int64_t last) {
  for (int64_t col = first; col < last; col += S::kWidth) {
    const int64_t count = last - col < S::kWidth ? last - col : int64_t{S::kWidth};
    const typename S::V value = values(col, count);
    uint32_t found = wanted == wanted ? S::equal(value, S::set(wanted)) : ~S::equal(value, value);
    found &= first_bits(count);
    if (found != 0) return col + __builtin_ctz(found);
  }
  return -1;
}

// Adds the columns [first, last) of the tile. Two passes, the second only where a new maximum is
// somewhere: keeping the index beside the value would cost every column a comparison and a blend.
template <class S, bool kBias>
inline void add_range(const Values<S, kBias>& values, int64_t first, int64_t last,
                      int64_t first_col, float* best, int64_t* index) {
  using V = typename S::V;
  if (first >= last || *best != *best) return;  // the first NaN stays
  V top[kAccumulators];
  for (V& lanes : top) lanes = S::set(-kInf);
  uint32_t numbers = first_bits(S::kWidth);
  for_vectors<S>(last - first, [&](int k, int64_t i, int64_t count) CODEACT_INLINED {
    const V value = values(first + i, count);
    const V counted = S::first(count, value, S::set(-kInf));
    numbers &= S::equal(counted, counted);
    top[k] = S::max(counted, top[k]);
  });
  for (int k = 1; k < kAccumulators; ++k) top[0] = S::max(top[0], top[k]);
  const bool has_nan = numbers != first_bits(S::kWidth);
  const float largest = has_nan ? __builtin_nanf("") : largest_lane<S>(top[0]);
  if (!has_nan && !(largest > *best)) return;
  *best = largest;
  *index = first_col + find(values, largest, first, last);
}

template <class S, bool kBias>
inline void max_of_rows(const MaxRows& job, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    const Values<S, kBias> values{job.tile.products + row * job.tile.stride, job.bias};
    const int64_t num_cols = job.tile.num_cols;
    const int64_t excluded = job.excluded == nullptr ? -1 : job.excluded[row];
    int64_t gap = num_cols;  // the tile's column that does not count
    if (excluded >= job.first_col && excluded - job.first_col < num_cols) {
      gap = excluded - job.first_col;
    }
    add_range(values, 0, gap, job.first_col, &job.best[row], &job.index[row]);
    add_range(values, gap + 1, num_cols, job.first_col, &job.best[row], &job.index[row]);
  }
}

template <class S>
void max_rows(const MaxRows& job, int64_t first, int64_t last) {
  job.bias == nullptr ? max_of_rows<S, false>(job, first, last)
                      : max_of_rows<S, true>(job, first, last);
}

}  // namespace
}  // namespace codeact::simd

#pragma once

// Squared distances of points in few dimensions, reduced as they are made, for any set of
// instructions. A difference and a fused product a coordinate cost less than a matrix product that
// is stored and read again, and cancel nothing.

namespace codeact::simd {
namespace {

// Points that share what is loaded of the samples. With two vectors of samples, 4 x 2 sums fit the
// 16 registers of AVX2.
constexpr int kPointGroup = 4;
// 4 rows of 1024 float32 are 16 KiB: they stay in L1 between the distances and the exponentials.
constexpr int64_t kSquareCols = 1024;

// values[p][j] = -|x_p - y_j|^2 / 2 for a group of points and a block of samples, -inf in the lanes
// that fill it up, and the largest of each row.
template <class S>
struct SquareBlock {
  float values[kPointGroup][kSquareCols];
  float top[kPointGroup];
  int64_t num_padded;  // columns, up to whole steps of kAccumulators vectors
};

template <class S>
inline void make_squares(const SquareRows& job, const float* const* points, int64_t first_sample,
                         int64_t num_samples, SquareBlock<S>* block) {
  using V = typename S::V;
  constexpr int64_t kStep = 2 * S::kWidth;
  constexpr int64_t kPadded = kAccumulators * S::kWidth;
  const V minus_half = S::set(-0.5f), minus_inf = S::set(-kInf);
  block->num_padded = (num_samples + kPadded - 1) / kPadded * kPadded;
  V top[kPointGroup];
  for (V& lanes : top) lanes = minus_inf;
  for (int64_t col = 0; col < block->num_padded; col += kStep) {
    V sum[kPointGroup][2];
    for (int p = 0; p < kPointGroup; ++p) sum[p][0] = sum[p][1] = S::set(0.0f);
    for (int64_t d = 0; d < job.dim; ++d) {
      const float* const from = job.samples + d * job.sample_stride + first_sample + col;
      const V y0 = S::load(from), y1 = S::load(from + S::kWidth);
      for (int p = 0; p < kPointGroup; ++p) {
        const V x = S::set(points[p][d]);
        const V d0 = S::sub(x, y0), d1 = S::sub(x, y1);
        sum[p][0] = S::fma(d0, d0, sum[p][0]);
        sum[p][1] = S::fma(d1, d1, sum[p][1]);
      }
    }
    for (int p = 0; p < kPointGroup; ++p) {
      for (int k = 0; k < 2; ++k) {
        const int64_t lane = col + k * S::kWidth;
        const int64_t count = num_samples < lane ? 0 : num_samples - lane;
        const V value = S::first(count, S::mul(sum[p][k], minus_half), minus_inf);
        S::store(block->values[p] + lane, value);
        top[p] = S::max(value, top[p]);
      }
    }
  }
  for (int p = 0; p < kPointGroup; ++p) block->top[p] = largest_lane<S>(top[p]);
}

// Calls reduce(point, p, first_sample, block) for every point of [first, last) and every block.
template <class S, class Reduce>
inline void for_square_blocks(const SquareRows& job, int64_t first, int64_t last, Reduce reduce) {
  // A block of samples, 40 KiB in 10 dimensions, is read from L2 for this many points.
  constexpr int64_t kPoints = 64;
  SquareBlock<S> block;
  for (int64_t chunk = first; chunk < last; chunk += kPoints) {
    const int64_t end = last - chunk < kPoints ? last : chunk + kPoints;
    for (int64_t sample = 0; sample < job.num_samples; sample += kSquareCols) {
      const int64_t left = job.num_samples - sample;
      const int64_t count = left < kSquareCols ? left : kSquareCols;
      for (int64_t point = chunk; point < end; point += kPointGroup) {
        const float* points[kPointGroup];
        for (int p = 0; p < kPointGroup; ++p) {
          // The last group repeats its last point; what comes of it is not looked at.
          points[p] = job.points + (point + p < end ? point + p : end - 1) * job.dim;
        }
        make_squares<S>(job, points, sample, count, &block);
        for (int p = 0; p < kPointGroup && point + p < end; ++p) {
          reduce(point + p, p, sample, block);
        }
      }
    }
  }
}

template <class S>
inline double sum_of_exp(const float* values, int64_t num_cols, float scale, float shift) {
  using V = typename S::V;
  const V factor = S::set(scale), minus_shift = S::set(-shift);
  V sum[kAccumulators];
  for (V& lanes : sum) lanes = S::set(0.0f);
  for (int64_t col = 0; col < num_cols; col += kAccumulators * S::kWidth) {
    for (int k = 0; k < kAccumulators; ++k) {
      const V value = S::load(values + col + k * S::kWidth);
      sum[k] = S::add(sum[k], simd::exp<S>(S::fma(value, factor, minus_shift)));
    }
  }
  double total = 0;
  for (const V& lanes : sum) total += sum_of_lanes<S>(lanes);
  return total;
}

template <class S>
void square_lse(const SquareLse& job, int64_t first, int64_t last) {
  for (int64_t point = first; point < last; ++point) {
    job.maximum[point] = -kInf;
    job.sum[point] = 0;
  }
  for_square_blocks<S>(
      job.rows, first, last,
      [&](int64_t point, int p, int64_t, const SquareBlock<S>& block) CODEACT_INLINED {
        const float top = job.scale * block.top[p];
        const float before = job.maximum[point];
        if (top < before - job.cutoff) return;
        if (top > before) {
          job.maximum[point] = top;
          job.sum[point] *= ::exp(static_cast<double>(before) - top);
        }
        const float shift = job.maximum[point] == -kInf ? 0.0f : job.maximum[point];
        job.sum[point] += sum_of_exp<S>(block.values[p], block.num_padded, job.scale, shift);
      });
}

template <class S>
void square_max(const SquareMax& job, int64_t first, int64_t last) {
  for (int64_t point = first; point < last; ++point) {
    job.best[point] = -kInf;
    job.index[point] = -1;
  }
  for_square_blocks<S>(
      job.rows, first, last,
      [&](int64_t point, int p, int64_t sample, SquareBlock<S>& block) CODEACT_INLINED {
        if (!(block.top[p] > job.best[point])) return;
        const int64_t left = job.rows.num_samples - sample;
        const int64_t count = left < kSquareCols ? left : kSquareCols;
        int64_t gap = job.excluded == nullptr ? -1 : job.excluded[point] - sample;
        if (gap < 0 || gap >= count) gap = count;
        const Values<S, false> values{block.values[p], nullptr};
        add_range(values, 0, gap, sample, &job.best[point], &job.index[point]);
        add_range(values, gap + 1, count, sample, &job.best[point], &job.index[point]);
      });
}

}  // namespace
}  // namespace codeact::simd

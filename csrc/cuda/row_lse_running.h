#pragma once

// What a thread of row_lse.cu knows of a row, and how it takes in more columns.

#include <cuda_runtime.h>

#include <cmath>

#include "cuda/hopper.h"

namespace codeact::cuda {

constexpr int kTileColumns = 256;
constexpr float kLog2e = 1.4426950408889634f;

// Of the columns one thread has seen of one row; `sum` is of exp(z - max).
struct Running {
  float max = -INFINITY;
  float sum = 0.0f;
  float label = NAN;
};

// Logits, divided on the host.
struct Transform {
  const float* bias;
  float scale;
  float softcap;
  float exponent;  // 2 log2(e) / softcap
  float over_temperature;
};

// Turns a tile's products into logits, of -inf where a column is beyond the last. A thread holds
// of two rows the columns 8 * j + threadIdx.x % 4 * 2 + k, as sums[4 * j + k] and [4 * j + 2 + k].
template <bool kPlain>
__device__ inline void to_logits(float (&sums)[128], int first_column, const Transform& logits,
                                 int num_columns) {
  const int first = first_column + threadIdx.x % 4 * 2;
  if constexpr (!kPlain) {
    // Each choice stands outside its loop: 128 branches would cost more than what they choose.
#pragma unroll
    for (int i = 0; i < 128; ++i) sums[i] *= logits.scale;
    if (logits.bias != nullptr) {
#pragma unroll
      for (int i = 0; i < 64; ++i) {  // both rows have the column
        const float bias = __ldg(logits.bias + min(first + i / 2 * 8 + i % 2, num_columns - 1));
        sums[i / 2 * 4 + i % 2] += bias;
        sums[i / 2 * 4 + i % 2 + 2] += bias;
      }
    }
    if (logits.softcap != 0.0f) {
      // tanh(x) = 1 - 2 / (exp(2 x) + 1): off by an ulp of 1, which a cap of 30 makes 3e-6.
#pragma unroll
      for (int i = 0; i < 128; ++i) {
        const float power = hopper::exp2_fast(sums[i] * logits.exponent);
        const float share = hopper::reciprocal_fast(power + 1.0f);
        sums[i] = logits.softcap * fmaf(-2.0f, share, 1.0f);
      }
    }
#pragma unroll
    for (int i = 0; i < 128; ++i) sums[i] *= logits.over_temperature;
  }
  if (first_column + kTileColumns > num_columns) {
#pragma unroll
    for (int i = 0; i < 128; ++i) {
      if (first + i / 4 * 8 + i % 2 >= num_columns) sums[i] = -INFINITY;
    }
  }
}

// Adds a tile's 64 columns of one row that this thread holds, z = sums[4 * j + half + {0, 1}].
// `label` counts from the tile's first column.
__device__ inline void add_tile(Running& row, const float (&sums)[128], int half, int label) {
  float max = row.max, other_max = row.max;  // two chains: one after the other would wait
#pragma unroll
  for (int j = 0; j < kTileColumns / 8; ++j) {
    max = fmaxf(max, sums[4 * j + half]);
    other_max = fmaxf(other_max, sums[4 * j + half + 1]);
  }
  max = fmaxf(max, other_max);
  if (__any_sync(0xffffffffu, label >= 0 && label < kTileColumns)) {
    const int place = label - static_cast<int>(threadIdx.x % 4 * 2);  // 8 * j + k where it is here
#pragma unroll
    for (int j = 0; j < kTileColumns / 8; ++j) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (8 * j + k == place) row.label = sums[4 * j + half + k];
      }
    }
  }
  // While every logit is -inf the maximum is too, and -inf - (-inf) would be NaN. The difference
  // comes before log2(e): scaling first would cost a logit of 1e4 three digits.
  const float shift = max == -INFINITY ? 0.0f : max;
  float sum = row.sum * hopper::exp2_fast((row.max - shift) * kLog2e);
  float other_sum = 0.0f;
#pragma unroll
  for (int j = 0; j < kTileColumns / 8; ++j) {
    sum += hopper::exp2_fast((sums[4 * j + half] - shift) * kLog2e);
    other_sum += hopper::exp2_fast((sums[4 * j + half + 1] - shift) * kLog2e);
  }
  row.max = max;
  row.sum = sum + other_sum;
}

__device__ inline void merge(Running& row, float max, float sum, float label) {
  const float larger = fmaxf(row.max, max);
  const float shift = larger == -INFINITY ? 0.0f : larger;
  row.sum = row.sum * hopper::exp2_fast((row.max - shift) * kLog2e) +
            sum * hopper::exp2_fast((max - shift) * kLog2e);
  row.max = larger;
  if (isnan(row.label)) row.label = label;
}

// The four threads that share a row.
__device__ inline void merge_quad(Running& row) {
#pragma unroll
  for (int offset = 1; offset <= 2; offset *= 2) {
    const float max = __shfl_xor_sync(0xffffffffu, row.max, offset);
    const float sum = __shfl_xor_sync(0xffffffffu, row.sum, offset);
    const float label = __shfl_xor_sync(0xffffffffu, row.label, offset);
    merge(row, max, sum, label);
  }
}

}  // namespace codeact::cuda

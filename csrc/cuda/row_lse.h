#pragma once

#include <cstdint>

namespace codeact::cuda {

// How a product becomes a logit: z = cap(scale * product + bias[column]) / temperature, with
// cap(u) = softcap * tanh(u / softcap), or u where softcap is 0.
struct Logits {
  const float* bias;  // (num_columns,) float32 or null
  float scale;
  float softcap;
  float temperature;
};

struct RowLseShape {
  int64_t num_rows;
  int64_t num_columns;
  int64_t dim;
  int64_t row_stride;     // elements between rows of `rows`
  int64_t column_stride;  // elements between rows of `columns`
};

// Floats of workspace that row_lse needs for this shape on the current device.
int64_t row_lse_workspace(const RowLseShape& shape);

// lse[i] = logsumexp_j z_ij and label_logits[i] = z[i, labels[i]] for z from rows (num_rows, dim)
// times columns (num_columns, dim), both bfloat16; the product is never stored, its sums are
// float32 and in a fixed order. label_logits is NaN where the label is no column. A
// NaN or +inf in a row of z makes its lse NaN, -inf is a probability of 0. Blocks of 256
// rows whose labels all equal `skip` are left out, their values unspecified.
//
// Needs compute capability 9.0, and num_columns and dim of at least 1. All pointers are device
// memory of the current device; rows and columns lie on multiples of 16 bytes and so do their
// strides. Enqueued on `stream`. Throws std::runtime_error where the device cannot or a launch
// fails, std::invalid_argument for an alignment.
void row_lse(const void* rows, const void* columns, const int64_t* labels, const RowLseShape& shape,
             const Logits& logits, int64_t skip, float* workspace, float* lse, float* label_logits,
             void* stream);

}  // namespace codeact::cuda

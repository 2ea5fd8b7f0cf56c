#pragma once

#include <cuda.h>

#include <cstdint>

namespace codeact::cuda {

// How the copy engine finds boxes of (box_rows, box_columns) in a (num_rows, num_columns) bfloat16
// matrix with rows `stride` elements apart; they come in the 128-byte swizzle, so box_columns is at
// most 64, and what lies outside comes as zeros.
//
// Throws std::invalid_argument where the data or its rows do not start on multiples of 16 bytes,
// std::runtime_error where the driver cannot.
CUtensorMap bfloat16_map(const void* data, int64_t num_rows, int64_t num_columns, int64_t stride,
                         int box_rows, int box_columns);

}  // namespace codeact::cuda

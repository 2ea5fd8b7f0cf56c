#pragma once

#include "row_reduce.h"

namespace codeact {

// One level's reductions, each over the rows [first, last) of a job.
struct RowKernels {
  void (*lse)(const LseRows& job, int64_t first, int64_t last);
  void (*lse_tangent)(const LseTangentRows& job, int64_t first, int64_t last);
  void (*max)(const MaxRows& job, int64_t first, int64_t last);
  void (*square_lse)(const SquareLse& job, int64_t first, int64_t last);
  void (*square_max)(const SquareMax& job, int64_t first, int64_t last);
  void (*nll)(const NllRows& job, int64_t first, int64_t last);
  void (*softmax_gradient)(const SoftmaxGradientRows& job, int64_t first, int64_t last);
};

// Null where the build has no such level. The processor is not asked here.
const RowKernels* plain_row_kernels();
const RowKernels* avx2_row_kernels();
const RowKernels* avx512_row_kernels();

}  // namespace codeact

#pragma once

#include "kmeans.h"

namespace codeact {

constexpr int64_t kBlockRows = 96;  // 96 x 768 float32 is 288 KiB: it stays in the second cache

// A row of a block that has another label now.
struct MovedRow {
  int64_t row;
  int32_t from;  // -1: it had none
};

// One level's steps, each over the rows [first, last) of a job, at most kBlockRows of them.
struct KMeansKernels {
  // Writes the rows that moved, and returns how many. Sums are left alone.
  int64_t (*assign)(const AssignRows& job, int64_t first, int64_t last, MovedRow* moved,
                    int64_t* num_panels);
  void (*candidates)(const CandidateRows& job, int64_t first, int64_t last, double* potentials);
  // sum += sign * rounded row
  void (*add)(const float* row, int64_t dim, double rounder, double sign, double* sum);
};

// Null where the build has no such level. The processor is not asked here.
const KMeansKernels* plain_kmeans_kernels();
const KMeansKernels* avx2_kmeans_kernels();
const KMeansKernels* avx512_kmeans_kernels();

}  // namespace codeact

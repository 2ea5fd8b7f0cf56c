#pragma once

// How tiles of row_lse.cu come into shared memory and are multiplied.

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/hopper.h"
#include "cuda/row_lse_running.h"

namespace codeact::cuda {

constexpr int kTileRows = 128;
constexpr int kTileDim = 64;  // 128 bytes of bfloat16, the width of the swizzle
constexpr int kGroupRows = 64;
constexpr int kStages = 4;  // 48 KiB each
constexpr int kCluster = 2;
constexpr int kGroups = kTileRows / kGroupRows;  // of 128 threads, which multiply
constexpr int kThreads = 128 * (kGroups + 1);
constexpr int kRowsBytes = kTileRows * kTileDim * 2;
constexpr int kColumnsBytes = kTileColumns * kTileDim * 2;
static_assert(kGroups == 2, "multiply() lets one warpgroup follow one other");
constexpr int kBoxRows = 128;  // of either operand; half of a tile of columns

struct Stage {
  unsigned char rows[kRowsBytes];
  unsigned char columns[kColumnsBytes];
};

struct Shared {
  Stage stages[kStages];
  uint64_t full[kStages];   // a stage's bytes have come
  uint64_t empty[kStages];  // all warpgroups of the cluster are done with it
};
// Swizzled tiles start on multiples of 1024 bytes, which dynamic shared memory does not promise.
constexpr int kSharedBytes = sizeof(Shared) + 1024;

struct Sweep {
  int64_t num_rows;
  int num_columns;
  int steps;  // of kTileDim
  int tiles;  // of kTileColumns
  int splits;
};

// Position in the ring: a stage, and the parity of its barrier's phase.
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

__device__ inline void produce(Shared& shared, const CUtensorMap* rows, const CUtensorMap* columns,
                               const Sweep& sweep, int first_row, int first_tile, int last_tile) {
  const uint32_t rank = hopper::cluster_rank();
  constexpr uint16_t kBoth = (1 << kCluster) - 1;
  Ring ring;
  for (int tile = first_tile; tile < last_tile; ++tile) {
    const int row_of_half = tile * kTileColumns + static_cast<int>(rank) * kBoxRows;
    for (int step = 0; step < sweep.steps; ++step, ring.advance()) {
      Stage& stage = shared.stages[ring.stage];
      uint64_t* const full = &shared.full[ring.stage];
      // The first round finds every stage free: the phase before the first counts as complete.
      hopper::barrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
      hopper::barrier_expect(full, kRowsBytes + kColumnsBytes);
      hopper::copy_box(stage.rows, rows, full, step * kTileDim, first_row);
      hopper::copy_box_to_all(stage.columns + rank * (kColumnsBytes / kCluster), columns, full,
                              step * kTileDim, row_of_half, kBoth);
    }
  }
}

// Says to both blocks of the cluster that this warpgroup is done with a stage.
__device__ inline void release(Shared& shared, int stage) {
  if (threadIdx.x % 128 < kCluster) {
    hopper::barrier_arrive(&shared.empty[stage], threadIdx.x % 128);
  }
}

// The product of a warpgroup's 64 rows and one tile of columns. Two warpgroups that begin together
// also end together and leave the tensor cores idle while both take exponentials, so the second
// begins a tile when the first has begun the fourth step of it. The first cannot arrive twice in
// between: from four steps up, its next fourth step needs stages that the second must free.
__device__ inline void multiply(float (&sums)[128], Shared& shared, Ring& ring, int group,
                                int steps) {
  const bool in_turn = steps >= kStages;
  if (in_turn && group > 0) hopper::block_wait(128 * kGroups);
  int previous = -1;
  for (int step = 0; step < steps; ++step, ring.advance()) {
    const Stage& stage = shared.stages[ring.stage];
    hopper::barrier_wait(&shared.full[ring.stage], ring.parity);
    const uint64_t a = hopper::matrix_descriptor(stage.rows + group * kGroupRows * kTileDim * 2);
    const uint64_t b = hopper::matrix_descriptor(stage.columns);
    hopper::products_begin();
#pragma unroll
    for (int k = 0; k < kTileDim / 16; ++k) {  // 16 of `dim` are 32 bytes, two units of 16
      hopper::product_64x256x16(sums, a + 2 * k, b + 2 * k, step > 0 || k > 0);
    }
    hopper::products_commit();
    if (in_turn && group == 0 && step == kStages - 1) hopper::block_arrive(128 * kGroups);
    if (previous >= 0) {  // one stage's products stay in flight
      hopper::products_wait<1>();
      release(shared, previous);
    }
    previous = ring.stage;
  }
  hopper::products_end(sums);
  release(shared, previous);
}

// Whether all labels of a cluster's rows say that nobody wants them; both blocks find the same.
__device__ inline bool nothing_wanted(const int64_t* labels, int64_t first_row, int64_t num_rows,
                                      int64_t skip) {
  bool wanted = false;
  for (int64_t k = threadIdx.x; k < kCluster * kTileRows; k += kThreads) {
    if (first_row + k < num_rows) wanted |= labels[first_row + k] != skip;
  }
  return __syncthreads_or(wanted) == 0;
}

}  // namespace codeact::cuda

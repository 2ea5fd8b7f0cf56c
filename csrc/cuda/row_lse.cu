// Log-sum-exp of a product's rows on Hopper, the product in registers only (arXiv:2411.09009 has
// the idea, arXiv:1805.02867 the running sum).
//
// A block owns 128 rows and sweeps a share of the columns in tiles of 256. One warp copies tiles
// of 64 of `dim` into a ring of four stages; two warpgroups of 64 rows each multiply. One runs
// up to four stages ahead of the other, so that one's exponentials fall under the other's
// products. Two blocks of a cluster sweep the same columns: each fetches half of a tile
// and sends it to both, which halves what columns cost in traffic from L2. A thread keeps a
// maximum and a sum of its own columns of two rows; threads meet at the end only.

#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "cuda/cuda_check.h"
#include "cuda/hopper.h"
#include "cuda/row_lse.h"
#include "cuda/row_lse_pipeline.h"
#include "cuda/row_lse_running.h"
#include "cuda/tensor_map.h"

namespace codeact::cuda {
namespace {

// Rows of a wave that stay in L2 (50 MiB) while columns stream through it.
constexpr int64_t kRowsInL2 = int64_t{24} << 20;

template <bool kPlain>
__device__ inline void consume(Shared& shared, const int64_t* labels, const Sweep& sweep,
                               const Transform& logits, int64_t first_row, int first_tile,
                               int last_tile, int split, float* partials) {
  const int group = threadIdx.x / 128 - 1;
  const int lane = threadIdx.x % 32;
  const int64_t row = first_row + group * kGroupRows + threadIdx.x % 128 / 32 * 16 + lane / 4;
  int label[2];
  Running running[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int64_t given = row + 8 * h < sweep.num_rows ? labels[row + 8 * h] : -1;
    label[h] = given >= 0 && given < sweep.num_columns ? static_cast<int>(given) : -1;
  }
  float sums[128];
  Ring ring;
  for (int tile = first_tile; tile < last_tile; ++tile) {
    multiply(sums, shared, ring, group, sweep.steps);
    const int first_column = tile * kTileColumns;
    to_logits<kPlain>(sums, first_column, logits, sweep.num_columns);
#pragma unroll
    for (int h = 0; h < 2; ++h) add_tile(running[h], sums, 2 * h, label[h] - first_column);
  }
  const int64_t plane = sweep.splits * sweep.num_rows;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    merge_quad(running[h]);
    if (lane % 4 == 0 && row + 8 * h < sweep.num_rows) {
      float* const place = partials + split * sweep.num_rows + row + 8 * h;
      place[0] = running[h].max;
      place[plane] = running[h].sum;
      place[2 * plane] = running[h].label;
    }
  }
}

template <bool kPlain>
__global__ void __launch_bounds__(kThreads, 1)
    row_lse_kernel(const __grid_constant__ CUtensorMap rows,
                   const __grid_constant__ CUtensorMap columns, const int64_t* labels,
                   const Sweep sweep, const Transform logits, int64_t skip, float* partials) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char memory[];
  const uint32_t address = hopper::shared_address(memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory + (1024 - address % 1024) % 1024);
  // Clusters of one wave share rows and split the columns: splits are neighbours in the grid.
  const int cluster = blockIdx.x / kCluster;
  const int split = cluster % sweep.splits;
  const int64_t cluster_row = static_cast<int64_t>(cluster / sweep.splits) * kCluster * kTileRows;
  const int first_tile = static_cast<int64_t>(sweep.tiles) * split / sweep.splits;
  const int last_tile = static_cast<int64_t>(sweep.tiles) * (split + 1) / sweep.splits;
  const int64_t first_row = cluster_row + hopper::cluster_rank() * kTileRows;
  if (nothing_wanted(labels, cluster_row, sweep.num_rows, skip)) return;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      hopper::barrier_init(&shared.full[stage], 1);
      hopper::barrier_init(&shared.empty[stage], kGroups * kCluster);
    }
    hopper::fence_barrier_init();
  }
  hopper::cluster_sync();
  if (threadIdx.x < 128) {
    hopper::give_registers<24>();
    if (threadIdx.x == 0) {
      produce(shared, &rows, &columns, sweep, static_cast<int>(first_row), first_tile, last_tile);
    }
  } else {
    hopper::take_registers<240>();
    consume<kPlain>(shared, labels, sweep, logits, first_row, first_tile, last_tile, split,
                    partials);
  }
  hopper::cluster_sync();  // a block's memory must outlive what the other one sends to it
#else
  __trap();  // built without sm_90a, it would leave lse as it was and say nothing
#endif
}

// One thread a row: the splits' shares in their order, so that the sum has the same bits each time.
__global__ void finish_kernel(const float* partials, int64_t num_rows, int splits, float* lse,
                              float* label_logits) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= num_rows) return;
  const int64_t plane = splits * num_rows;
  Running total;
  for (int split = 0; split < splits; ++split) {
    const float* const place = partials + split * num_rows + row;
    merge(total, place[0], place[plane], place[2 * plane]);
  }
  lse[row] = total.max + logf(total.sum);
  label_logits[row] = total.label;
}

int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// Splits of the columns: at least as many as fill the device with the rows that stay in L2, and of
// those and the next few the number that makes the longest run of tiles shortest.
int64_t best_splits(int64_t clusters, int64_t row_clusters, int64_t in_l2, int64_t tiles) {
  constexpr int64_t kTried = 8;
  constexpr int64_t kStart = 1;  // what a block costs beside its tiles, in tiles
  const int64_t fewest = std::min(tiles, clusters / std::min({row_clusters, in_l2, clusters}));
  int64_t best = fewest, least = std::numeric_limits<int64_t>::max();
  for (int64_t splits = fewest; splits < fewest + kTried && splits <= tiles; ++splits) {
    const int64_t waves = ceil_div(row_clusters * splits, clusters);
    const int64_t cost = waves * (ceil_div(tiles, splits) + kStart);
    if (cost < least) {
      least = cost;
      best = splits;
    }
  }
  return best;
}

Sweep plan(const RowLseShape& shape) {
  int device = 0, processors = 0, major = 0;
  check(cudaGetDevice(&device), "row_lse device");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "row_lse device");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "row_lse device");
  if (major != 9) {
    throw std::runtime_error("row_lse needs compute capability 9.0, this device has " +
                             std::to_string(major) + ".x");
  }
  const int64_t clusters = processors / kCluster;
  const int64_t row_clusters = std::max<int64_t>(1, ceil_div(shape.num_rows, kCluster * kTileRows));
  const int64_t in_l2 = std::max<int64_t>(1, kRowsInL2 / (shape.dim * 2 * kCluster * kTileRows));
  const int64_t tiles = ceil_div(shape.num_columns, kTileColumns);
  return {shape.num_rows, static_cast<int>(shape.num_columns),
          static_cast<int>(ceil_div(shape.dim, kTileDim)), static_cast<int>(tiles),
          static_cast<int>(best_splits(clusters, row_clusters, in_l2, tiles))};
}

template <bool kPlain>
void launch(const CUtensorMap& rows, const CUtensorMap& columns, const int64_t* labels,
            const Sweep& sweep, const Transform& logits, int64_t skip, float* partials,
            cudaStream_t stream) {
  check(cudaFuncSetAttribute(row_lse_kernel<kPlain>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kSharedBytes),
        "row_lse shared memory");
  const int64_t row_clusters = ceil_div(sweep.num_rows, kCluster * kTileRows);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(row_clusters * sweep.splits * kCluster);
  config.blockDim = kThreads;
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, row_lse_kernel<kPlain>, rows, columns, labels, sweep, logits,
                           skip, partials),
        "row_lse launch");
}

}  // namespace

int64_t row_lse_workspace(const RowLseShape& shape) {
  return 3 * shape.num_rows * plan(shape).splits;
}

void row_lse(const void* rows, const void* columns, const int64_t* labels, const RowLseShape& shape,
             const Logits& logits, int64_t skip, float* workspace, float* lse, float* label_logits,
             void* stream) {
  if (shape.num_rows == 0) return;
  const Sweep sweep = plan(shape);
  const auto on = static_cast<cudaStream_t>(stream);
  const CUtensorMap row_map =
      bfloat16_map(rows, shape.num_rows, shape.dim, shape.row_stride, kBoxRows, kTileDim);
  const CUtensorMap column_map =
      bfloat16_map(columns, shape.num_columns, shape.dim, shape.column_stride, kBoxRows, kTileDim);
  const bool plain = logits.bias == nullptr && logits.scale == 1.0f && logits.softcap == 0.0f &&
                     logits.temperature == 1.0f;
  const auto run = plain ? launch<true> : launch<false>;
  const Transform transform = {logits.bias, logits.scale, logits.softcap,
                               logits.softcap == 0.0f ? 0.0f : 2.0f * kLog2e / logits.softcap,
                               1.0f / logits.temperature};
  run(row_map, column_map, labels, sweep, transform, skip, workspace, on);
  constexpr int kFinish = 256;
  const auto blocks = static_cast<unsigned>(ceil_div(shape.num_rows, kFinish));
  finish_kernel<<<blocks, kFinish, 0, on>>>(workspace, shape.num_rows, sweep.splits, lse,
                                            label_logits);
  check(cudaGetLastError(), "row_lse finish launch");
}

}  // namespace codeact::cuda

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/cuda_check.h"
#include "cuda/gather_pack.h"

namespace codeact::cuda {
namespace {

// The largest block: a sequence is worked through a block at a time, with one barrier for each.
constexpr int kThreads = 1024;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

// One lane a warp: a warp sums the counts of all warps with one instruction.
static_assert(kWarps == kWarp);

// Where the scored tokens of a tile go: how many stand before this thread's in the tile, and how
// many there are. All threads call it, each with a `counts` that two calls ago used last: the
// barrier of the call between them separates its readers from its writers.
struct Place {
  int before;
  int total;
};

__device__ Place place_in_tile(bool is_scored, int* counts) {
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const unsigned scored = __ballot_sync(kAllLanes, is_scored);
  if (lane == 0) counts[warp] = __popc(scored);
  __syncthreads();
  const int count = counts[lane];
  const int in_earlier_warps = __reduce_add_sync(kAllLanes, lane < warp ? count : 0);
  const int in_earlier_lanes = __popc(scored & ((1u << lane) - 1));
  return {in_earlier_warps + in_earlier_lanes, __reduce_add_sync(kAllLanes, count)};
}

// One block a sequence.
__global__ void __launch_bounds__(kThreads)
    gather_pack_kernel(const int32_t* input_ids, const int32_t* labels, const int64_t* starts,
                       const int64_t* cu_tokens, const int64_t* cu_rows, int64_t ignore_index,
                       int64_t* out_ids, int64_t* position_ids, int32_t* cu_seqlens, int64_t* rows,
                       int64_t* targets) {
  __shared__ int counts[2][kWarps];
  const int64_t seq = blockIdx.x;
  const int64_t first = cu_tokens[seq];
  const int64_t seqlen = cu_tokens[seq + 1] - first;
  const int64_t end_row = cu_rows[seq + 1];
  int64_t next_row = cu_rows[seq];
  if (threadIdx.x == 0) {
    cu_seqlens[seq + 1] = static_cast<int32_t>(first + seqlen);
    if (seq == 0) cu_seqlens[0] = 0;
  }
  const int32_t* const seq_ids = input_ids + starts[seq];
  const int32_t* const seq_labels = labels + starts[seq];
  for (int64_t tile = 0, parity = 0; tile < seqlen; tile += kThreads, parity ^= 1) {
    const int64_t position = tile + threadIdx.x;
    int64_t label = ignore_index;  // past the end, so that every thread meets at the barrier
    if (position < seqlen) {
      out_ids[first + position] = seq_ids[position];
      position_ids[first + position] = position;
      if (position > 0) label = seq_labels[position];
    }
    const bool is_scored = label != ignore_index;
    const Place place = place_in_tile(is_scored, counts[parity]);
    const int64_t row = next_row + place.before;
    if (is_scored && row < end_row) {
      rows[row] = first + position - 1;
      targets[row] = label;
    }
    next_row += place.total;
  }
}

}  // namespace

void gather_pack(const int32_t* input_ids, const int32_t* labels, const int64_t* starts,
                 const int64_t* cu_tokens, const int64_t* cu_rows, int64_t num_seqs,
                 int64_t ignore_index, int64_t* out_ids, int64_t* position_ids, int32_t* cu_seqlens,
                 int64_t* rows, int64_t* targets, void* stream) {
  if (num_seqs == 0) return;  // a grid of zero blocks is an error
  gather_pack_kernel<<<static_cast<unsigned>(num_seqs), kThreads, 0,
                       static_cast<cudaStream_t>(stream)>>>(
      input_ids, labels, starts, cu_tokens, cu_rows, ignore_index, out_ids, position_ids,
      cu_seqlens, rows, targets);
  check(cudaGetLastError(), "gather_pack launch");
}

}  // namespace codeact::cuda

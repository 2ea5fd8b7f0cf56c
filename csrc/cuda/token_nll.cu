#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/cuda_check.h"
#include "cuda/token_nll.h"

namespace codeact::cuda {
namespace {

// 512 threads with one 16-byte load each in flight, times four blocks on a multiprocessor, cover
// the latency of Hopper's memory (about 15 KiB in flight a multiprocessor).
constexpr int kThreads = 512;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr int kLoadBytes = 16;
constexpr float kLog2e = 1.4426950408889634f;

// Running maximum, and the sum of exp(z - max) so far (Milakov & Gimelshein, arXiv:1805.02867).
struct LogSum {
  float max;
  float sum;
};

__device__ LogSum empty() { return {-INFINITY, 0.0f}; }

// exp(z - max). The difference comes first: log2(e) * z alone would cost a logit of 1e4 its last
// three digits.
__device__ float exp_below(float z, float max) { return exp2f((z - max) * kLog2e); }

// While every logit is -inf the maximum is too, and -inf - (-inf) would be NaN.
__device__ float finite_shift(float max) { return max == -INFINITY ? 0.0f : max; }

__device__ LogSum merge(LogSum a, LogSum b) {
  const float max = fmaxf(a.max, b.max);
  const float shift = finite_shift(max);
  return {max, a.sum * exp_below(a.max, shift) + b.sum * exp_below(b.max, shift)};
}

// One rescaling for `N` logits: exp2f, not memory, is the tighter limit with one each.
template <int N, typename T>
__device__ LogSum add(LogSum total, const T* values) {
  float z[N];
  float max = total.max;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    z[k] = static_cast<float>(values[k]);
    max = fmaxf(max, z[k]);
  }
  const float shift = finite_shift(max);
  float sum = total.sum * exp_below(total.max, shift);
#pragma unroll
  for (int k = 0; k < N; ++k) sum += exp_below(z[k], shift);
  return {max, sum};
}

template <typename T>
__device__ LogSum reduce_row(const T* row, int64_t vocab_size) {
  constexpr int kVector = kLoadBytes / sizeof(T);
  // A row of odd stride starts anywhere: single loads up to the first 16-byte boundary.
  const auto misaligned = reinterpret_cast<uintptr_t>(row) % kLoadBytes;
  const int64_t lead = misaligned ? static_cast<int64_t>((kLoadBytes - misaligned) / sizeof(T)) : 0;
  const int64_t head = lead < vocab_size ? lead : vocab_size;
  const int64_t num_vectors = (vocab_size - head) / kVector;

  LogSum total = empty();
  if (threadIdx.x < head) total = add<1>(total, row + threadIdx.x);
  const auto* vectors = reinterpret_cast<const uint4*>(row + head);
#pragma unroll 4
  for (int64_t v = threadIdx.x; v < num_vectors; v += kThreads) {
    const uint4 bits = vectors[v];
    total = add<kVector>(total, reinterpret_cast<const T*>(&bits));
  }
  const int64_t rest = head + num_vectors * kVector + threadIdx.x;
  if (rest < vocab_size) total = add<1>(total, row + rest);
  return total;
}

__device__ LogSum reduce_warp(LogSum total) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    LogSum other;
    other.max = __shfl_xor_sync(0xffffffffu, total.max, offset);
    other.sum = __shfl_xor_sync(0xffffffffu, total.sum, offset);
    total = merge(total, other);
  }
  return total;
}

// One block a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    token_nll_kernel(const T* logits, const int64_t* targets, float* nll, int64_t vocab_size,
                     int64_t logits_stride, int64_t ignore_index) {
  const int64_t token = blockIdx.x;
  const int64_t target = targets[token];
  if (target == ignore_index || target < 0 || target >= vocab_size) {
    if (threadIdx.x == 0) nll[token] = target == ignore_index ? 0.0f : NAN;
    return;  // the row is never read
  }
  const T* row = logits + token * logits_stride;
  __shared__ LogSum of_warp[kWarps];
  LogSum total = reduce_warp(reduce_row(row, vocab_size));
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = total;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  total = reduce_warp(threadIdx.x < kWarps ? of_warp[threadIdx.x] : empty());
  if (threadIdx.x == 0) {
    nll[token] = logf(total.sum) + (total.max - static_cast<float>(row[target]));
  }
}

template <typename T>
void launch(const void* logits, const int64_t* targets, float* nll, int64_t num_tokens,
            int64_t vocab_size, int64_t logits_stride, int64_t ignore_index, cudaStream_t stream) {
  token_nll_kernel<<<static_cast<unsigned>(num_tokens), kThreads, 0, stream>>>(
      static_cast<const T*>(logits), targets, nll, vocab_size, logits_stride, ignore_index);
}

}  // namespace

void token_nll(const void* logits, const int64_t* targets, float* nll, int64_t num_tokens,
               int64_t vocab_size, int64_t logits_stride, DType dtype, int64_t ignore_index,
               void* stream) {
  if (num_tokens == 0) return;  // a grid of zero blocks is an error
  const auto run = dtype == DType::kFloat32   ? launch<float>
                   : dtype == DType::kFloat16 ? launch<__half>
                                              : launch<__nv_bfloat16>;
  run(logits, targets, nll, num_tokens, vocab_size, logits_stride, ignore_index,
      static_cast<cudaStream_t>(stream));
  check(cudaGetLastError(), "token_nll launch");
}

}  // namespace codeact::cuda

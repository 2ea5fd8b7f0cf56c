#pragma once

// The instructions of sm_90a that C++ has no name for: barriers in shared memory, bulk tensor
// copies, and products by a warpgroup. Names and rules are those of the PTX ISA.

#include <cuda.h>

#include <cstdint>

namespace codeact::cuda::hopper {

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ inline uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// All threads of all blocks of the cluster; what one wrote before, the others read after.
__device__ inline void cluster_sync() {
  __syncwarp();  // `aligned` needs warps whole, and one thread may come from work of its own
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ inline void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}

// Makes initialised barriers known to the copy engine and to the other block of the cluster.
__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// One arrival, and `bytes` more that copies will bring before the phase is complete.
__device__ inline void barrier_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

// Arrives at the barrier that lies at the same place in block `rank` of the cluster. It orders
// nothing beyond this block: whoever releases memory that only finished products have read needs
// no more, and a release to the whole cluster costs a fence of the device.
__device__ inline void barrier_arrive(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}

// Waits until the phase of this parity is complete.
__device__ inline void barrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "waiting:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra waiting;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// A box of a 2-D tensor from (column, row) into shared memory; rows outside come as zeros and
// count as bytes all the same.
__device__ inline void copy_box(void* target, const CUtensorMap* map, uint64_t* barrier, int column,
                                int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(target)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}

// The same into every block of `mask`, at the same place and barrier in each.
__device__ inline void copy_box_to_all(void* target, const CUtensorMap* map, uint64_t* barrier,
                                       int column, int row, uint16_t mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(target)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row), "h"(mask)
      : "memory");
}

// Rows of 64 bfloat16 (128 bytes) in the 128-byte swizzle, as the copies above leave them: groups
// of eight rows lie 1024 bytes apart.
__device__ inline uint64_t matrix_descriptor(const void* tile) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kGroupStride = uint64_t{1024 >> 4} << 32;
  constexpr uint64_t kLeadingUnused = uint64_t{1} << 16;
  return kSwizzle128 | kGroupStride | kLeadingUnused |
         ((static_cast<uint64_t>(shared_address(tile)) & 0x3ffff) >> 4);
}

__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Waits for all products. To the compiler a product wrote its sums when it began: the empty
// instructions keep it from reading them before they are there.
template <int kCount>
__device__ inline void products_end(float (&sums)[kCount]) {
  products_wait<0>();
#pragma unroll
  for (int k = 0; k < kCount; ++k) asm volatile("" : "+f"(sums[k])::"memory");
}

// Barrier 1 of the block: some of `threads` arrive and go on, the others wait until all are there.
__device__ inline void block_arrive(int threads) {
  asm volatile("bar.arrive 1, %0;" ::"r"(threads) : "memory");
}
__device__ inline void block_wait(int threads) {
  asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
}

template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// 2 to the power of x, off by two units in the last place; below 2^-126 it is 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x, off by one unit in the last place; beyond 2^126 it is 0.
__device__ inline float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#define CODEACT_F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define CODEACT_F16(d, i) \
  CODEACT_F4(d, i), CODEACT_F4(d, i + 4), CODEACT_F4(d, i + 8), CODEACT_F4(d, i + 12)
#define CODEACT_F64(d, i) \
  CODEACT_F16(d, i), CODEACT_F16(d, i + 16), CODEACT_F16(d, i + 32), CODEACT_F16(d, i + 48)

// sum (64 x 256, float32) = a (64 x 16) times b (256 x 16) transposed, plus sum if `accumulate`.
// Thread t of the warpgroup holds, of row t / 32 * 16 + t % 32 / 4 + 8 * h, the columns
// 8 * j + t % 4 * 2 + {0, 1} as sum[4 * j + 2 * h + {0, 1}].
__device__ inline void product_64x256x16(float (&sum)[128], uint64_t a, uint64_t b,
                                         int accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
      "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
      "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
      "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
      "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127},"
      " %128, %129, p, 1, 1, 0, 0;\n"
      "}\n"
      : CODEACT_F64(sum, 0), CODEACT_F64(sum, 64)
      : "l"(a), "l"(b), "r"(accumulate));
}

#undef CODEACT_F64
#undef CODEACT_F16
#undef CODEACT_F4

}  // namespace codeact::cuda::hopper

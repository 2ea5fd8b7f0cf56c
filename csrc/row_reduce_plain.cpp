// The reductions without the instructions of any one processor.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "half.h"
#include "row_kernels.h"
// After what they use.
#include "row_math_simd.h"
#include "row_reduce_simd.h"
// After row_reduce_simd.h.
#include "row_max_simd.h"
#include "row_squares_simd.h"
// After all of them.
#include "row_softmax_simd.h"

namespace codeact {
namespace {

// GCC's and Clang's own vectors of 16 bytes, which SSE2 and NEON have.
struct Plain {
  static constexpr int kWidth = 4;
  typedef float V __attribute__((vector_size(16)));
  typedef uint32_t Bits __attribute__((vector_size(16)));

  static V load(const float* from) {
    V a;
    std::memcpy(&a, from, sizeof(a));
    return a;
  }
  static V load(const simd::Half* from) {
    return V{from_half(from[0].bits), from_half(from[1].bits), from_half(from[2].bits),
             from_half(from[3].bits)};
  }
  static V load(const simd::BFloat16* from) {
    return V{from_bfloat16(from[0].bits), from_bfloat16(from[1].bits), from_bfloat16(from[2].bits),
             from_bfloat16(from[3].bits)};
  }
  static void store(float* to, V a) { std::memcpy(to, &a, sizeof(a)); }
  static void store(simd::Half* to, V a) {
    for (int i = 0; i < kWidth; ++i) to[i].bits = to_half(a[i]);
  }
  static void store(simd::BFloat16* to, V a) {
    for (int i = 0; i < kWidth; ++i) to[i].bits = to_bfloat16(a[i]);
  }

  static V set(float value) { return V{value, value, value, value}; }
  static V add(V a, V b) { return a + b; }
  static V sub(V a, V b) { return a - b; }
  static V mul(V a, V b) { return a * b; }
  static V div(V a, V b) { return a / b; }
  static V fma(V a, V b, V c) { return a * b + c; }  // std::fma may be a call; two roundings do
  static V max(V a, V b) { return a > b ? a : b; }
  static V abs(V a) { return (V)((Bits)a & 0x7fffffffu); }
  static V with_sign_of(V sign, V magnitude) {
    return (V)(((Bits)sign & 0x80000000u) | (Bits)abs(magnitude));
  }
  static V exponent_from_low_bits(V a) { return (V)((Bits)a << 23); }
  static V first(int64_t count, V a, V otherwise) {
    if (count >= kWidth) return a;
    return Bits{0, 1, 2, 3} < static_cast<uint32_t>(count) ? a : otherwise;
  }
  static uint32_t equal(V a, V b) {
    const Bits same = (Bits)(a == b);
    return (same[0] & 1u) | (same[1] & 2u) | (same[2] & 4u) | (same[3] & 8u);
  }
};

constexpr RowKernels kKernels = simd::kernels_of<Plain>();

}  // namespace

const RowKernels* plain_row_kernels() { return &kKernels; }

}  // namespace codeact

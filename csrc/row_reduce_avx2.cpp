// The reductions with AVX2, FMA and F16C: Intel since Haswell, AMD since Zen.

#include "row_kernels.h"

#if defined(__x86_64__) || defined(__i386__)

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// By pragma, not by a flag of the build: every file of csrc compiles with the same command.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

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

struct Avx2 {
  static constexpr int kWidth = 8;
  using V = __m256;

  static V load(const float* from) { return _mm256_loadu_ps(from); }
  static V load(const simd::Half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static V load(const simd::BFloat16* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static void store(float* to, V a) { _mm256_storeu_ps(to, a); }
  static void store(simd::Half* to, V a) {
    const __m128i bits = _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bits);
  }
  // To nearest, ties to even: half a step less one is added, and one more where the result is odd.
  static void store(simd::BFloat16* to, V a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const __m256i chosen = _mm256_blendv_epi8(rounded, quiet, is_nan);
    // Packs each half of the register by itself: quarters 0 and 2 hold the eight.
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(chosen, chosen), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
  }

  static V set(float value) { return _mm256_set1_ps(value); }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V sub(V a, V b) { return _mm256_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V div(V a, V b) { return _mm256_div_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }  // b where either is NaN
  static V abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static V with_sign_of(V sign, V magnitude) {
    return _mm256_or_ps(_mm256_and_ps(_mm256_set1_ps(-0.0f), sign), abs(magnitude));
  }
  static V exponent_from_low_bits(V a) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23));
  }
  static V first(int64_t count, V a, V otherwise) {
    if (count >= kWidth) return a;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i kept = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
    return _mm256_blendv_ps(otherwise, a, _mm256_castsi256_ps(kept));
  }
  static uint32_t equal(V a, V b) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)));
  }
};

constexpr RowKernels kKernels = simd::kernels_of<Avx2>();

}  // namespace

const RowKernels* avx2_row_kernels() { return &kKernels; }

}  // namespace codeact

#ifdef __clang__
#pragma clang attribute pop
#endif

#else

const codeact::RowKernels* codeact::avx2_row_kernels() { return nullptr; }

#endif

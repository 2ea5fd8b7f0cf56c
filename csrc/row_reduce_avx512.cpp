// The reductions with AVX-512F: Intel's servers since Skylake, AMD since Zen 4.

#include "row_kernels.h"

#if defined(__x86_64__) || defined(__i386__)

// GCC 12 warns of registers that its own header leaves undefined on purpose (GCC bug 105593).
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// By pragma, not by a flag of the build: every file of csrc compiles with the same command.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,fma,f16c")
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

struct Avx512 {
  static constexpr int kWidth = 16;
  using V = __m512;

  static V load(const float* from) { return _mm512_loadu_ps(from); }
  static V load(const simd::Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static V load(const simd::BFloat16* from) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static void store(float* to, V a) { _mm512_storeu_ps(to, a); }
  static void store(simd::Half* to, V a) {
    const __m256i bits = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
  }
  // To nearest, ties to even: half a step less one is added, and one more where the result is odd.
  static void store(simd::BFloat16* to, V a) {
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_set1_epi32(0x40);
    const __m512i chosen = _mm512_mask_or_epi32(rounded, is_nan, high, quiet);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(chosen));
  }

  static V set(float value) { return _mm512_set1_ps(value); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V div(V a, V b) { return _mm512_div_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }  // b where either is NaN
  static V abs(V a) { return _mm512_abs_ps(a); }
  static V with_sign_of(V sign, V magnitude) {
    const __m512i sign_bit = _mm512_set1_epi32(INT32_MIN);
    const __m512i of_sign = _mm512_and_si512(sign_bit, _mm512_castps_si512(sign));
    return _mm512_castsi512_ps(_mm512_or_si512(of_sign, _mm512_castps_si512(abs(magnitude))));
  }
  static V exponent_from_low_bits(V a) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
  }
  static V first(int64_t count, V a, V otherwise) {
    if (count >= kWidth) return a;
    return _mm512_mask_mov_ps(otherwise, static_cast<__mmask16>((1u << count) - 1), a);
  }
  static uint32_t equal(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
};

constexpr RowKernels kKernels = simd::kernels_of<Avx512>();

}  // namespace

const RowKernels* avx512_row_kernels() { return &kKernels; }

}  // namespace codeact

#ifdef __clang__
#pragma clang attribute pop
#endif

#else

const codeact::RowKernels* codeact::avx512_row_kernels() { return nullptr; }

#endif

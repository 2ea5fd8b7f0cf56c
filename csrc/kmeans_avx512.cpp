// The steps of k-means with AVX-512F.

#include "kmeans_kernels.h"

#if defined(__x86_64__) || defined(__i386__)

#include <immintrin.h>

// By pragma, not by a flag of the build: every file of csrc compiles with the same command.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f")
#endif

// After what it uses.
#include "kmeans_simd.h"

namespace codeact {
namespace {

struct Avx512 {
  static constexpr int kWidth = 16;
  static constexpr int kRows = 12;
  static constexpr int kDoubles = 8;
  using V = __m512;

  static V load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, V a) { _mm512_storeu_ps(to, a); }
  static V set(float value) { return _mm512_set1_ps(value); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static void add_doubles(const float* row, double rounder, double sign, double* sum) {
    const __m512d by = _mm512_set1_pd(rounder);
    const __m512d values = _mm512_cvtps_pd(_mm256_loadu_ps(row));
    const __m512d rounded = _mm512_sub_pd(_mm512_add_pd(values, by), by);
    _mm512_storeu_pd(sum, _mm512_fmadd_pd(_mm512_set1_pd(sign), rounded, _mm512_loadu_pd(sum)));
  }
};

constexpr KMeansKernels kKernels = kmeans_simd::kernels_of<Avx512>();

}  // namespace

const KMeansKernels* avx512_kmeans_kernels() { return &kKernels; }

}  // namespace codeact

#ifdef __clang__
#pragma clang attribute pop
#endif

#else

const codeact::KMeansKernels* codeact::avx512_kmeans_kernels() { return nullptr; }

#endif

// The steps of k-means with AVX2 and FMA: Intel since Haswell, AMD since Zen.

#include "kmeans_kernels.h"

#if defined(__x86_64__) || defined(__i386__)

#include <immintrin.h>

// By pragma, not by a flag of the build: every file of csrc compiles with the same command.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

// After what it uses.
#include "kmeans_simd.h"

namespace codeact {
namespace {

struct Avx2 {
  static constexpr int kWidth = 8;
  static constexpr int kRows = 6;
  static constexpr int kDoubles = 4;
  using V = __m256;

  static V load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, V a) { _mm256_storeu_ps(to, a); }
  static V set(float value) { return _mm256_set1_ps(value); }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static void add_doubles(const float* row, double rounder, double sign, double* sum) {
    const __m256d by = _mm256_set1_pd(rounder);
    const __m256d values = _mm256_cvtps_pd(_mm_loadu_ps(row));
    const __m256d rounded = _mm256_sub_pd(_mm256_add_pd(values, by), by);
    _mm256_storeu_pd(sum, _mm256_fmadd_pd(_mm256_set1_pd(sign), rounded, _mm256_loadu_pd(sum)));
  }
};

constexpr KMeansKernels kKernels = kmeans_simd::kernels_of<Avx2>();

}  // namespace

const KMeansKernels* avx2_kmeans_kernels() { return &kKernels; }

}  // namespace codeact

#ifdef __clang__
#pragma clang attribute pop
#endif

#else

const codeact::KMeansKernels* codeact::avx2_kmeans_kernels() { return nullptr; }

#endif

// The steps of k-means without the instructions of any one processor.

#include <cstring>

#include "kmeans_kernels.h"
// After what it uses.
#include "kmeans_simd.h"

namespace codeact {
namespace {

// GCC's and Clang's own vectors of 16 bytes, which SSE2 and NEON have.
struct Plain {
  static constexpr int kWidth = 4;
  static constexpr int kRows = 3;
  static constexpr int kDoubles = 1;
  typedef float V __attribute__((vector_size(16)));

  static V load(const float* from) {
    V a;
    std::memcpy(&a, from, sizeof(a));
    return a;
  }
  static void store(float* to, V a) { std::memcpy(to, &a, sizeof(a)); }
  static V set(float value) { return V{value, value, value, value}; }
  static V add(V a, V b) { return a + b; }
  static V fma(V a, V b, V c) { return a * b + c; }
  static void add_doubles(const float* row, double rounder, double sign, double* sum) {
    *sum += sign * ((static_cast<double>(*row) + rounder) - rounder);
  }
};

constexpr KMeansKernels kKernels = kmeans_simd::kernels_of<Plain>();

}  // namespace

const KMeansKernels* plain_kmeans_kernels() { return &kKernels; }

}  // namespace codeact

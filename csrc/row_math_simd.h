#pragma once

// Vector arithmetic on a set of instructions S, which row_reduce_{plain,avx2,avx512}.cpp define and
// compile this for. Each includes the standard headers first and then says which instructions the
// rest may use. So all of it is in an unnamed namespace, and no template of the standard library is
// called: of an inline function that several files hold the linker keeps one, and that might be the
// one compiled for AVX-512.

namespace codeact::simd {
namespace {

#define CODEACT_INLINED __attribute__((always_inline))

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

constexpr float kInf = __builtin_inff();

// The first `count` lanes from memory, the others 0.
template <class S, class T>
inline typename S::V load(const T* from, int64_t count) {
  if (count >= S::kWidth) return S::load(from);
  T padded[S::kWidth] = {};
  memcpy(padded, from, static_cast<size_t>(count) * sizeof(T));
  return S::load(padded);
}

template <class S, class T>
inline void store(T* to, typename S::V values, int64_t count) {
  if (count >= S::kWidth) return S::store(to, values);
  T padded[S::kWidth];
  S::store(padded, values);
  memcpy(to, padded, static_cast<size_t>(count) * sizeof(T));
}

template <class S>
inline float first_lane(typename S::V values) {
  float lanes[S::kWidth];
  S::store(lanes, values);
  return lanes[0];
}

template <class S>
inline float largest_lane(typename S::V values) {
  float lanes[S::kWidth];
  S::store(lanes, values);
  for (int lane = 1; lane < S::kWidth; ++lane) {
    if (lanes[lane] > lanes[0]) lanes[0] = lanes[lane];
  }
  return lanes[0];
}

// In double: the lanes' own sums are the coarser part.
template <class S>
inline double sum_of_lanes(typename S::V values) {
  float lanes[S::kWidth];
  S::store(lanes, values);
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

// Sums and maxima are kept in this many vectors, which hides the latency of the addition and, with
// the width, sets how many columns go into one float32 sum.
constexpr int kAccumulators = 4;

// Calls body(accumulator, column, count) for each vector of columns; count is the width until the
// last, which may be less.
template <class S, class Body>
inline CODEACT_INLINED void for_vectors(int64_t num_cols, Body body) {
  int64_t col = 0;
  for (; col + kAccumulators * S::kWidth <= num_cols; col += kAccumulators * S::kWidth) {
    for (int k = 0; k < kAccumulators; ++k) body(k, col + k * S::kWidth, int64_t{S::kWidth});
  }
  for (; col < num_cols; col += S::kWidth) {
    body(0, col, num_cols - col < S::kWidth ? num_cols - col : int64_t{S::kWidth});
  }
}

// exp(x) = power * (1 + fraction), for x up to 88; below -87.7 the power is 0.
template <class S>
struct Exponential {
  typename S::V fraction, power;

  explicit inline CODEACT_INLINED Exponential(typename S::V x) {
    // 1.5 * 2^23 makes an addition round to an integer; 127 is the bias of a float's exponent, so
    // that the sum's low bits are the exponent of the power itself.
    const float magic = 12582912.0f + 127.0f;
    x = S::max(S::set(-87.9f), x);  // NaN stays
    const typename S::V shifted = S::fma(x, S::set(1.44269504f), S::set(magic));
    const typename S::V n = S::sub(shifted, S::set(magic));
    // log(2) in two parts, the first of nine bits: n times it is exact without a fused product too.
    typename S::V r = S::fma(n, S::set(-0.693359375f), x);
    r = S::fma(n, S::set(2.12194440e-4f), r);
    // Minimax for exp(r) - 1 - r on |r| <= log(2) / 2, to 3.2e-9 of exp(r).
    typename S::V q = S::set(0.00138139f);
    q = S::fma(q, r, S::set(0.00836906f));
    q = S::fma(q, r, S::set(0.04166842f));
    q = S::fma(q, r, S::set(0.16666518f));
    q = S::fma(q, r, S::set(0.49999993f));
    fraction = S::fma(S::mul(r, r), q, r);
    power = S::exponent_from_low_bits(shifted);
  }

  inline CODEACT_INLINED typename S::V value() const { return S::fma(fraction, power, power); }

  // exp(x) - 1, with all its digits near 0.
  inline CODEACT_INLINED typename S::V less_one() const {
    return S::fma(fraction, power, S::sub(power, S::set(1.0f)));
  }
};

template <class S>
inline CODEACT_INLINED typename S::V exp(typename S::V x) {
  return Exponential<S>(x).value();
}

// tanh(x) and 1 - tanh(x)^2, from exp(-2 |x|), so that neither loses digits at either end.
template <class S>
struct Tanh {
  typename S::V value, slope;

  explicit inline CODEACT_INLINED Tanh(typename S::V x) {
    const Exponential<S> decay(S::mul(S::abs(x), S::set(-2.0f)));
    const typename S::V less_one = decay.less_one();
    const typename S::V denominator = S::add(less_one, S::set(2.0f));
    value = S::with_sign_of(x, S::div(less_one, denominator));
    slope = S::div(S::mul(S::set(4.0f), decay.value()), S::mul(denominator, denominator));
  }
};

}  // namespace
}  // namespace codeact::simd

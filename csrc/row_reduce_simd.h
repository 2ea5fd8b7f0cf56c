#pragma once

// The reductions over a tile, for any set of instructions; row_math_simd.h has what binds it.

namespace codeact::simd {
namespace {

// Products to logits, as LogitRule says.
template <class S, bool kBias, bool kCap>
struct Rule {
  using V = typename S::V;

  explicit Rule(const LogitRule& rule)
      : bias(rule.bias),
        scale(S::set(rule.scale)),
        over_temperature(S::set(1.0f / rule.temperature)),
        cap(S::set(rule.softcap / rule.temperature)),
        over_cap(S::set(kCap ? 1.0f / rule.softcap : 0.0f)) {}

  CODEACT_INLINED V scaled(V product) const { return S::mul(product, scale); }

  // u, before the cap and the temperature.
  CODEACT_INLINED V raw(V product, int64_t col, int64_t count) const {
    if constexpr (kBias) {
      return S::fma(product, scale, simd::load<S>(bias + col, count));
    } else {
      return scaled(product);
    }
  }

  CODEACT_INLINED V logit(V raw) const {
    if constexpr (kCap) {
      return S::mul(Tanh<S>(S::mul(raw, over_cap)).value, cap);
    } else {
      return S::mul(raw, over_temperature);
    }
  }

  // The derivative of the logit by u.
  CODEACT_INLINED V slope(V raw) const {
    if constexpr (kCap) {
      return S::mul(Tanh<S>(S::mul(raw, over_cap)).slope, over_temperature);
    } else {
      return over_temperature;
    }
  }

  template <class T>
  V raw_at(const T* row, int64_t col) const {
    return raw(simd::load<S>(row + col, 1), col, 1);
  }

  const float* bias;
  V scale, over_temperature, cap, over_cap;
};

// Products that are logits already: what most models have, 15 % faster than multiplying by 1.
template <class S>
struct Identity {
  using V = typename S::V;

  CODEACT_INLINED V scaled(V product) const { return product; }
  CODEACT_INLINED V raw(V product, int64_t, int64_t) const { return product; }
  CODEACT_INLINED V logit(V raw) const { return raw; }
  CODEACT_INLINED V slope(V) const { return S::set(1.0f); }

  template <class T>
  V raw_at(const T* row, int64_t col) const {
    return simd::load<S>(row + col, 1);
  }
};

// call(rule) with what the rule has and lacks known at compile time.
template <class S, class Call>
inline void with_rule(const LogitRule& rule, Call call) {
  const bool is_linear = rule.softcap == 0.0f && rule.temperature == 1.0f;
  if (is_linear && rule.bias == nullptr && rule.scale == 1.0f) {
    call(Identity<S>());
  } else if (rule.softcap != 0.0f) {
    rule.bias != nullptr ? call(Rule<S, true, true>(rule)) : call(Rule<S, false, true>(rule));
  } else {
    rule.bias != nullptr ? call(Rule<S, true, false>(rule)) : call(Rule<S, false, false>(rule));
  }
}

// Running sums of a row.
struct Sums {
  float maximum = -kInf;
  double sum = 0;
  double weighted = 0;  // of weight * exp(z - maximum)

  // exp takes differences to it: of a row of -inf alone, none may be NaN.
  float shift() const { return maximum == -kInf ? 0.0f : maximum; }
};

struct NoWeight {
  static constexpr bool kUsed = false;
};

// z itself. A logit of -inf has the probability 0, and counts 0.
template <class S>
struct LogitWeight {
  static constexpr bool kUsed = true;
  CODEACT_INLINED typename S::V operator()(typename S::V, typename S::V logit, int64_t,
                                           int64_t) const {
    return S::max(S::set(-3.40282347e38f), logit);
  }
};

template <class S, class R>
struct TangentWeight {
  static constexpr bool kUsed = true;
  CODEACT_INLINED typename S::V operator()(typename S::V raw, typename S::V, int64_t col,
                                           int64_t count) const {
    using V = typename S::V;
    V tangent = S::set(0.0f);
    if (row != nullptr) tangent = rule.scaled(simd::load<S>(row + col, count));
    if (bias != nullptr) tangent = S::add(tangent, simd::load<S>(bias + col, count));
    return S::mul(tangent, rule.slope(raw));
  }

  const R& rule;
  const float* row;
  const float* bias;
};

// 16 KiB of float32: what the pass for the maximum reads is still in L1 for the second pass.
constexpr int64_t kBlockCols = 4096;

template <class S, class R, class W, class T>
inline void add_block(const R& rule, const W& weight, const T* row, int64_t first_col,
                      int64_t num_cols, Sums* sums) {
  using V = typename S::V;
  const V minus_inf = S::set(-kInf);
  V top[kAccumulators], sum[kAccumulators], weighted[kAccumulators];
  for (int k = 0; k < kAccumulators; ++k) {
    top[k] = minus_inf;
    sum[k] = weighted[k] = S::set(0.0f);
  }
  // The cap keeps the order, so the largest u is the largest logit. NaN is passed over: it makes
  // the sum NaN.
  for_vectors<S>(num_cols, [&](int k, int64_t i, int64_t count) CODEACT_INLINED {
    const int64_t col = first_col + i;
    const V raw = rule.raw(simd::load<S>(row + col, count), col, count);
    top[k] = S::max(S::first(count, raw, minus_inf), top[k]);
  });
  for (int k = 1; k < kAccumulators; ++k) top[0] = S::max(top[0], top[k]);
  const float largest = first_lane<S>(rule.logit(S::set(largest_lane<S>(top[0]))));
  const float before = sums->maximum;
  if (largest > before) sums->maximum = largest;
  const V shift = S::set(sums->shift());
  for_vectors<S>(num_cols, [&](int k, int64_t i, int64_t count) CODEACT_INLINED {
    const int64_t col = first_col + i;
    const V raw = rule.raw(simd::load<S>(row + col, count), col, count);
    const V logit = S::first(count, rule.logit(raw), minus_inf);
    const V p = simd::exp<S>(S::sub(logit, shift));
    sum[k] = S::add(sum[k], p);
    if constexpr (W::kUsed) weighted[k] = S::fma(p, weight(raw, logit, col, count), weighted[k]);
  });
  for (int k = 1; k < kAccumulators; ++k) {
    sum[0] = S::add(sum[0], sum[k]);
    weighted[0] = S::add(weighted[0], weighted[k]);
  }
  const double rescale = ::exp(static_cast<double>(before) - sums->shift());
  sums->sum = sums->sum * rescale + sum_of_lanes<S>(sum[0]);
  sums->weighted = sums->weighted * rescale + sum_of_lanes<S>(weighted[0]);
}

template <class S, class R, class W, class T>
inline void add_columns(const R& rule, const W& weight, const T* row, int64_t num_cols,
                        Sums* sums) {
  for (int64_t col = 0; col < num_cols; col += kBlockCols) {
    const int64_t left = num_cols - col;
    add_block<S>(rule, weight, row, col, left < kBlockCols ? left : kBlockCols, sums);
  }
}

// Adds a row of the tile to the caller's state, whose `weighted` may be null.
template <class S, class R, class W>
inline void add_row(const LseRows& job, const R& rule, const W& weight, int64_t row,
                    float* weighted) {
  Sums sums{job.maximum[row], job.sum[row], weighted == nullptr ? 0.0f : weighted[row]};
  const float* const products = job.tile.products + row * job.tile.stride;
  add_columns<S>(rule, weight, products, job.tile.num_cols, &sums);
  job.maximum[row] = sums.maximum;
  job.sum[row] = static_cast<float>(sums.sum);
  if (weighted != nullptr) weighted[row] = static_cast<float>(sums.weighted);
}

// The column of the tile that a row's label is, or -1.
inline int64_t label_col(const LseRows& job, int64_t row) {
  if (job.labels == nullptr) return -1;
  const int64_t label = job.labels[row];
  // Compared before the subtraction, which a label such as -2^63 would overflow.
  if (label < job.first_col || label - job.first_col >= job.tile.num_cols) return -1;
  return label - job.first_col;
}

template <class S>
void lse_rows(const LseRows& job, int64_t first, int64_t last) {
  with_rule<S>(job.rule, [&](const auto& rule) {
    for (int64_t row = first; row < last; ++row) {
      if (job.expected != nullptr) {
        add_row<S>(job, rule, LogitWeight<S>(), row, job.expected);
      } else {
        add_row<S>(job, rule, NoWeight(), row, nullptr);
      }
      const int64_t col = label_col(job, row);
      if (col < 0) continue;
      const float* const products = job.tile.products + row * job.tile.stride;
      job.label[row] = first_lane<S>(rule.logit(rule.raw_at(products, col)));
    }
  });
}

template <class S>
void lse_tangent_rows(const LseTangentRows& job, int64_t first, int64_t last) {
  const LseRows& primal = job.primal;
  with_rule<S>(primal.rule, [&](const auto& rule) {
    using R = std::decay_t<decltype(rule)>;
    for (int64_t row = first; row < last; ++row) {
      const int64_t start = row * primal.tile.stride;
      const TangentWeight<S, R> weight{rule, job.tangent == nullptr ? nullptr : job.tangent + start,
                                       job.bias_tangent};
      add_row<S>(primal, rule, weight, row, job.weighted);
      const int64_t col = label_col(primal, row);
      if (col < 0) continue;
      const typename S::V raw = rule.raw_at(primal.tile.products + start, col);
      const typename S::V logit = rule.logit(raw);
      primal.label[row] = first_lane<S>(logit);
      job.label_tangent[row] = first_lane<S>(weight(raw, logit, col, 1));
    }
  });
}

}  // namespace
}  // namespace codeact::simd

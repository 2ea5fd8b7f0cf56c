#pragma once

// The loss of whole rows of logits and its gradient, for any set of instructions.

namespace codeact::simd {
namespace {

template <class Call>
inline void with_dtype(DType dtype, Call call) {
  switch (dtype) {
    case DType::kFloat32:
      return call(float{});
    case DType::kFloat16:
      return call(Half{});
    case DType::kBFloat16:
      return call(BFloat16{});
  }
}

// lse - label, in double: the difference of two numbers as large as the logits.
template <class S, class R, class T>
inline double nll_of(const R& rule, const T* row, const Sums& sums, int64_t label) {
  const double logit = first_lane<S>(rule.logit(rule.raw_at(row, label)));
  return ::log(sums.sum) + (sums.maximum - logit);
}

template <class S>
void nll_rows(const NllRows& job, int64_t first, int64_t last) {
  const LogitRows& rows = job.rows;
  const Identity<S> rule;
  with_dtype(rows.dtype, [&](auto element) {
    using T = decltype(element);
    for (int64_t i = first; i < last; ++i) {
      const int64_t label = rows.labels[i];
      if (label == rows.ignore_index) {
        job.nll[i] = 0.0f;
      } else if (label < 0 || label >= rows.num_cols) {
        job.nll[i] = __builtin_nanf("");
      } else {
        const T* const row = static_cast<const T*>(rows.logits) + i * rows.stride;
        Sums sums;
        add_columns<S>(rule, NoWeight(), row, rows.num_cols, &sums);
        job.nll[i] = static_cast<float>(nll_of<S>(rule, row, sums, label));
      }
    }
  });
}

template <class S, class T>
inline void fill(T* row, float value, int64_t num_cols) {
  for_vectors<S>(num_cols, [&](int, int64_t col, int64_t count)
                               CODEACT_INLINED { store<S>(row + col, S::set(value), count); });
}

// The gradient of one row, which may lie where the logits do: the sums are made before any is
// overwritten, and so is the label's own.
template <class S, class R, class T>
inline void differentiate(const R& rule, const T* row, int64_t num_cols, int64_t label,
                          float weight, T* gradient, float* nll) {
  using V = typename S::V;
  Sums sums;
  add_columns<S>(rule, NoWeight(), row, num_cols, &sums);
  const double loss = nll_of<S>(rule, row, sums, label);
  if (nll != nullptr) *nll = static_cast<float>(loss);
  const V shift = S::set(sums.shift());
  const V factor = S::set(static_cast<float>(weight / sums.sum));
  // p - 1 of the label is exp(-loss) - 1, which keeps its digits where the loss is nearly 0.
  const V at_label = S::mul(S::set(static_cast<float>(weight * ::expm1(-loss))),
                            rule.slope(rule.raw_at(row, label)));
  for_vectors<S>(num_cols, [&](int, int64_t col, int64_t count) CODEACT_INLINED {
    const V raw = rule.raw(simd::load<S>(row + col, count), col, count);
    const V p = simd::exp<S>(S::sub(rule.logit(raw), shift));
    store<S>(gradient + col, S::mul(S::mul(p, factor), rule.slope(raw)), count);
  });
  store<S>(gradient + label, at_label, 1);
}

template <class S>
void softmax_gradient_rows(const SoftmaxGradientRows& job, int64_t first, int64_t last) {
  const LogitRows& rows = job.rows;
  with_rule<S>(job.rule, [&](const auto& rule) {
    with_dtype(rows.dtype, [&](auto element) {
      using T = decltype(element);
      for (int64_t i = first; i < last; ++i) {
        const int64_t label = rows.labels[i];
        T* const gradient = static_cast<T*>(job.gradient) + i * job.gradient_stride;
        float* const nll = job.nll == nullptr ? nullptr : job.nll + i;
        if (label != rows.ignore_index && 0 <= label && label < rows.num_cols) {
          const T* const row = static_cast<const T*>(rows.logits) + i * rows.stride;
          const float weight = job.row_weights == nullptr ? 1.0f : job.row_weights[i];
          differentiate<S>(rule, row, rows.num_cols, label, weight, gradient, nll);
          continue;
        }
        const float value = label == rows.ignore_index ? 0.0f : __builtin_nanf("");
        fill<S>(gradient, value, rows.num_cols);
        if (nll != nullptr) *nll = value;
      }
    });
  });
}

template <class S>
constexpr RowKernels kernels_of() {
  return {&lse_rows<S>, &lse_tangent_rows<S>,     &max_rows<S>, &square_lse<S>, &square_max<S>,
          &nll_rows<S>, &softmax_gradient_rows<S>};
}

}  // namespace
}  // namespace codeact::simd

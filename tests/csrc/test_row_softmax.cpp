#include <algorithm>
#include <cstring>

#include "half.h"
#include "rows.h"

namespace {

using codeact::DType;
using codeact::Level;
using codeact::LogitRule;

using Halves = std::vector<uint16_t>;

// Against arithmetic in double: the value of every pattern, and its way back.
void test_half_conversions() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const int exponent = half >> 10 & 31;
    const int mantissa = half & 1023;
    const float value = codeact::from_half(half);
    if (exponent == 31) {
      EXPECT(mantissa == 0 ? std::isinf(value) : std::isnan(value));
    } else {
      const double scale = exponent == 0 ? mantissa : mantissa + 1024;
      EXPECT(std::fabs(value) == std::ldexp(scale, std::max(exponent, 1) - 25));
    }
    EXPECT(std::signbit(value) == (half >> 15 != 0));
    if (!std::isnan(value)) EXPECT(codeact::to_half(value) == half);
    const float wide = codeact::from_bfloat16(half);
    if (!std::isnan(wide)) EXPECT(codeact::to_bfloat16(wide) == half);
  }
  // Half way between two: the even one.
  EXPECT(codeact::to_half(1 + 0x1p-11f) == 0x3c00 && codeact::to_half(1 + 0x3p-11f) == 0x3c02);
  EXPECT(codeact::to_half(0x1p-25f) == 0 && codeact::to_half(0x3p-25f) == 2);
  EXPECT(codeact::to_half(65519) == 0x7bff && codeact::to_half(65520) == 0x7c00);
  EXPECT(codeact::to_bfloat16(1 + 0x1p-8f) == 0x3f80);
  EXPECT(codeact::to_bfloat16(1 + 0x3p-8f) == 0x3f82);
  EXPECT(std::isnan(codeact::from_half(codeact::to_half(kNan))));
  EXPECT(std::isnan(codeact::from_bfloat16(codeact::to_bfloat16(kNan))));
}

template <typename T>
T rounded(DType dtype, float value) {
  if constexpr (sizeof(T) == 4)
    return value;
  else
    return dtype == DType::kFloat16 ? codeact::to_half(value) : codeact::to_bfloat16(value);
}

template <typename T>
float widened(DType dtype, T value) {
  if constexpr (sizeof(T) == 4)
    return value;
  else
    return dtype == DType::kFloat16 ? codeact::from_half(value) : codeact::from_bfloat16(value);
}

// The rows of a case, their labels and weights, and the values they have in their dtype.
template <typename T>
struct Case {
  Case(DType dtype_, int64_t num_cols_) : dtype(dtype_), num_cols(num_cols_) {
    labels = {0, num_cols - 1, num_cols / 2, -100, num_cols, kLeast};
    std::mt19937 random(static_cast<uint32_t>(num_cols));
    for (const float value : random_floats(&random, num_rows() * num_cols, 3)) {
      logits.push_back(rounded<T>(dtype, value));
      exact.push_back(widened(dtype, logits.back()));
    }
  }

  int64_t num_rows() const { return static_cast<int64_t>(labels.size()); }
  bool has_label(int64_t row) const { return 0 <= labels[row] && labels[row] < num_cols; }

  codeact::LogitRows rows() const {
    return {logits.data(), dtype, num_rows(), num_cols, num_cols, labels.data(), -100};
  }

  double nll_of(int64_t row, const LogitRule& rule) const {
    const float* const at = &exact[row * num_cols];
    return lse_of(rule, at, num_cols) - logit_of(rule, raw_of(rule, at[labels[row]], labels[row]));
  }

  // `gradient` is where the row's begins.
  void check_gradient(int64_t row, const LogitRule& rule, const T* gradient) const {
    const double step = dtype == DType::kFloat32 ? 3e-6 : dtype == DType::kFloat16 ? 5e-4 : 4e-3;
    const float* const at = &exact[row * num_cols];
    const double lse = lse_of(rule, at, num_cols);
    for (int64_t col = 0; col < num_cols; ++col) {
      const double raw = raw_of(rule, at[col], col);
      const double p = std::exp(logit_of(rule, raw) - lse);
      const double slope = (p - (col == labels[row])) * slope_of(rule, raw) * weights[row];
      EXPECT(is_near(widened(dtype, gradient[col]), slope, step * std::fabs(slope) + 1e-6));
    }
  }

  DType dtype;
  int64_t num_cols;
  Labels labels;
  Floats weights{1, -2, 0.25f, 3, 1, 1};
  std::vector<T> logits;
  Floats exact;
};

// nll_rows and softmax_gradient_rows against double, with a column between the rows.
template <typename T>
void test_rows(Level level, DType dtype, int64_t num_cols, const LogitRule& rule) {
  const Case<T> given(dtype, num_cols);
  const int64_t num_rows = given.num_rows();
  const int64_t stride = num_cols + 1;
  Floats nll(num_rows), loss(num_rows);
  codeact::nll_rows({given.rows(), nll.data()}, 1, level);
  std::vector<T> gradient(num_rows * stride, T{7});
  codeact::softmax_gradient_rows(
      {given.rows(), rule, given.weights.data(), loss.data(), gradient.data(), stride}, 1, level);
  for (int64_t row = 0; row < num_rows; ++row) {
    const T* const at = &gradient[row * stride];
    EXPECT(at[num_cols] == T{7});
    if (given.has_label(row)) {
      EXPECT(is_near(loss[row], given.nll_of(row, rule), 1e-5));
      EXPECT(is_near(nll[row], given.nll_of(row, {nullptr, 1, 0, 1}), 2e-6));
      given.check_gradient(row, rule, at);
      continue;
    }
    const bool is_ignored = given.labels[row] == -100;
    EXPECT(is_ignored ? nll[row] == 0 && loss[row] == 0
                      : std::isnan(nll[row]) && std::isnan(loss[row]));
    for (int64_t col = 0; col < num_cols; ++col) {
      EXPECT(is_ignored ? at[col] == T{0} : std::isnan(widened(dtype, at[col])));
    }
  }
}

// The same bits where the gradient takes the place of the logits.
template <typename T>
void test_in_place(Level level, DType dtype, int64_t num_cols, const LogitRule& rule) {
  Case<T> given(dtype, num_cols);
  std::vector<T> gradient(given.logits.size());
  for (T* const out : {gradient.data(), given.logits.data()}) {
    codeact::softmax_gradient_rows(
        {given.rows(), rule, given.weights.data(), nullptr, out, num_cols}, 1, level);
  }
  EXPECT(std::memcmp(gradient.data(), given.logits.data(), gradient.size() * sizeof(T)) == 0);
}

template <typename T>
void test_dtype(Level level, DType dtype, int64_t num_cols, const LogitRule& rule) {
  test_rows<T>(level, dtype, num_cols, rule);
  test_in_place<T>(level, dtype, num_cols, rule);
}

void test_whole_rows(Level level) {
  std::mt19937 random(1);
  const Floats bias = random_floats(&random, 4200, 1);
  for (const int64_t num_cols : {1, 2, 7, 16, 33, 64, 131, 4111}) {
    for (const LogitRule& rule : {LogitRule{nullptr, 1, 0, 1}, LogitRule{bias.data(), 0.5f, 0, 2},
                                  LogitRule{bias.data(), 1, 4, 0.8f}}) {
      test_dtype<float>(level, DType::kFloat32, num_cols, rule);
      test_dtype<uint16_t>(level, DType::kFloat16, num_cols, rule);
      test_dtype<uint16_t>(level, DType::kBFloat16, num_cols, rule);
    }
  }
}

// With 16 equal logits p is 1 / 16, so that weight / 16 is what gets rounded to the dtype: compared
// bit by bit, at ties, below the normal numbers and beyond the largest.
void test_rounding(Level level) {
  std::mt19937 random(2);
  Floats weights{0,
                 1 + 0x1p-8f,
                 1 + 0x3p-8f,
                 1 + 0x1p-11f,
                 1 + 0x3p-11f,
                 0x1p-21f,
                 0x3p-21f,
                 65519.0f * 16,
                 65520.0f * 16,
                 3e38f,
                 kInf,
                 kNan,
                 codeact::float_of(0x7fffffff),
                 -1 - 0x1p-8f};
  for (int i = 0; i < 2000; ++i) {
    const float digits = std::ldexp(static_cast<float>(random() >> 8), -24);
    weights.push_back(std::ldexp(digits, static_cast<int>(random() % 48) - 30));
  }
  const auto num_rows = static_cast<int64_t>(weights.size());
  const Labels labels(num_rows, 15);
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    Halves logits(num_rows * 16, 0);
    const codeact::LogitRows rows{logits.data(), dtype, num_rows, 16, 16, labels.data(), -100};
    codeact::softmax_gradient_rows(
        {rows, {nullptr, 1, 0, 1}, weights.data(), nullptr, logits.data(), 16}, 1, level);
    for (int64_t i = 0; i < num_rows * 16; ++i) {
      if (i % 16 == 15) continue;  // the label
      const float weight = weights[i / 16] / 16;
      if (std::isnan(weight)) {
        EXPECT(std::isnan(widened(dtype, logits[i])));
      } else {
        EXPECT(logits[i] == rounded<uint16_t>(dtype, weight));
      }
    }
  }
}

// One float32 sum over all columns would lose these: 300,000 equal ones, then one that is smaller.
void test_many_columns(Level level) {
  Floats logits(300'000, 1.0f);
  const Labels labels{7};
  float nll = 0;
  const auto num_cols = static_cast<int64_t>(logits.size());
  codeact::nll_rows(
      {{logits.data(), DType::kFloat32, 1, num_cols, num_cols, labels.data(), -100}, &nll}, 1,
      level);
  EXPECT(is_near(nll, std::log(300'000.0), 1e-6));
}

void test_broken_rows(Level level) {
  for (const float value : {kNan, codeact::float_of(0x7fffffff), kInf}) {
    Floats logits(40, 0.5f);
    logits[33] = value;
    const Labels labels{3};
    float nll = 0;
    const codeact::LogitRows rows{logits.data(), DType::kFloat32, 1, 40, 40, labels.data(), -100};
    codeact::nll_rows({rows, &nll}, 1, level);
    EXPECT(std::isnan(nll));
    codeact::softmax_gradient_rows({rows, {nullptr, 1, 0, 1}, nullptr, &nll, logits.data(), 40}, 1,
                                   level);
    EXPECT(std::isnan(nll) && std::isnan(logits[0]) && std::isnan(logits[3]));
  }
}

}  // namespace

void test_row_softmax() {
  test_half_conversions();
  for (const Level level : usable_levels()) {
    test_whole_rows(level);
    test_rounding(level);
    test_many_columns(level);
    test_broken_rows(level);
  }
}

#include <algorithm>

#include "rows.h"

namespace {

using codeact::Level;
using codeact::LogitRule;

constexpr LogitRule kPlainLogits{nullptr, 1, 0, 1};

// The state of rows, and what adds tiles to it.
struct Rows {
  explicit Rows(int64_t num_rows, Labels labels_ = {})
      : labels(std::move(labels_)),
        maximum(num_rows, -kInf),
        sum(num_rows, 0),
        expected(num_rows, 0),
        label(num_rows, kNan),
        label_tangent(num_rows, kNan) {}

  codeact::LseRows job(const float* tile, int64_t num_cols, int64_t stride, const LogitRule& rule,
                       int64_t first_col) {
    return {{tile, static_cast<int64_t>(sum.size()), num_cols, stride},
            rule,
            labels.empty() ? nullptr : labels.data(),
            first_col,
            maximum.data(),
            sum.data(),
            label.data(),
            nullptr};
  }

  // One row after the other, whole, without gaps.
  void add(const Floats& tile, const LogitRule& rule, Level level, int num_threads = 1) {
    const auto num_cols = static_cast<int64_t>(tile.size() / sum.size());
    codeact::LseRows lse = job(tile.data(), num_cols, num_cols, rule, 0);
    lse.expected = expected.data();
    codeact::lse_rows(lse, num_threads, level);
  }

  Labels labels;
  Floats maximum, sum, expected, label, label_tangent;
};

// Against double: with the maximum set before, the sum of one column is exp(z).
void test_exp(Level level) {
  constexpr int kSteps = 20'000;
  Rows rows(kSteps);
  rows.maximum.assign(kSteps, 0);
  Floats tile;
  for (int i = 0; i < kSteps; ++i) tile.push_back(-100.0f * i / kSteps);
  rows.add(tile, kPlainLogits, level);
  for (int i = 0; i < kSteps; ++i) {
    const double truth = std::exp(static_cast<double>(tile[i]));
    // The smallest normal float is 1.2e-38; what is below may be 0.
    EXPECT(is_near(rows.sum[i], truth, truth < 1.2e-38 ? 1.2e-38 : 2e-7 * truth));
  }
  EXPECT(rows.sum[0] == 1.0f && rows.sum[kSteps - 1] == 0.0f);
}

// A matrix, its tangents and a label for every edge, with NaN between the rows.
struct Matrix {
  Matrix(int64_t num_cols_, int64_t tile_cols, const LogitRule& rule_, bool with_bias)
      : num_cols(num_cols_),
        labels{0, num_cols - 1, tile_cols, tile_cols - 1, -100, num_cols, kLeast},
        rule(rule_) {
    std::mt19937 random(static_cast<uint32_t>(num_cols));
    const int64_t size = static_cast<int64_t>(labels.size()) * stride() - kGap;
    products = random_floats(&random, size, 5);
    for (int64_t end = num_cols; end < size; end += stride()) {
      std::fill_n(products.begin() + end, kGap, kNan);
    }
    tangents = random_floats(&random, size, 1);
    bias = random_floats(&random, num_cols, 1);
    bias_tangent = random_floats(&random, num_cols, 1);
    if (with_bias) rule.bias = bias.data();
  }

  int64_t stride() const { return num_cols + kGap; }

  // The rule and the tangent of the bias for the tile that starts at a column.
  LogitRule rule_at(int64_t col) const {
    LogitRule of_tile = rule;
    if (rule.bias != nullptr) of_tile.bias += col;
    return of_tile;
  }
  const float* bias_tangent_at(int64_t col) const {
    return rule.bias == nullptr ? nullptr : bias_tangent.data() + col;
  }

  double tangent_of(int64_t row, int64_t col) const {
    const double scaled = static_cast<double>(rule.scale) * tangents[row * stride() + col];
    const double whole = scaled + (rule.bias == nullptr ? 0.0 : bias_tangent[col]);
    return whole * slope_of(rule, raw_of(rule, products[row * stride() + col], col));
  }

  static constexpr int64_t kGap = 3;
  int64_t num_cols;
  Labels labels;
  LogitRule rule;
  Floats products, tangents, bias, bias_tangent;
};

void add_tiles(const Matrix& matrix, int64_t tile_cols, Level level, Rows* plain, Rows* tangent) {
  for (int64_t col = 0; col < matrix.num_cols; col += tile_cols) {
    const int64_t count = std::min(tile_cols, matrix.num_cols - col);
    const float* const tile = matrix.products.data() + col;
    codeact::LseRows job = plain->job(tile, count, matrix.stride(), matrix.rule_at(col), col);
    job.expected = plain->expected.data();
    codeact::lse_rows(job, 1, level);
    codeact::lse_tangent_rows({tangent->job(tile, count, matrix.stride(), matrix.rule_at(col), col),
                               matrix.tangents.data() + col, matrix.bias_tangent_at(col),
                               tangent->expected.data(), tangent->label_tangent.data()},
                              1, level);
  }
}

void test_tiles(Level level, int64_t num_cols, int64_t tile_cols, LogitRule rule, bool with_bias) {
  const Matrix matrix(num_cols, tile_cols, rule, with_bias);
  const auto num_rows = static_cast<int64_t>(matrix.labels.size());
  Rows plain(num_rows, matrix.labels), tangent(num_rows, matrix.labels);
  add_tiles(matrix, tile_cols, level, &plain, &tangent);
  EXPECT(plain.maximum == tangent.maximum && plain.sum == tangent.sum);
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* const products = &matrix.products[row * matrix.stride()];
    const double lse = lse_of(matrix.rule, products, num_cols);
    double expected = 0, weighted = 0;
    bool has_label = false;
    for (int64_t col = 0; col < num_cols; ++col) {
      const double logit = logit_of(matrix.rule, raw_of(matrix.rule, products[col], col));
      expected += std::exp(logit - lse) * logit;
      weighted += std::exp(logit - lse) * matrix.tangent_of(row, col);
      if (matrix.labels[row] != col) continue;
      has_label = true;
      EXPECT(is_near(plain.label[row], logit, 1e-5));
      EXPECT(tangent.label[row] == plain.label[row]);
      EXPECT(is_near(tangent.label_tangent[row], matrix.tangent_of(row, col), 1e-5));
    }
    EXPECT(is_near(plain.maximum[row] + std::log(plain.sum[row]), lse, 1e-5));
    EXPECT(is_near(plain.expected[row] / plain.sum[row], expected, 2e-5));
    EXPECT(is_near(tangent.expected[row] / tangent.sum[row], weighted, 1e-5));
    EXPECT(std::isnan(plain.label[row]) == !has_label);
    EXPECT(std::isnan(tangent.label_tangent[row]) == !has_label);
  }
}

void test_shapes(Level level) {
  // Around the widths 4, 8 and 16, four of each, and a block of 4096.
  for (const int64_t num_cols : {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 200, 4101}) {
    for (const LogitRule& rule : {kPlainLogits, LogitRule{nullptr, -1.5f, 0, 0.5f},
                                  LogitRule{nullptr, 1, 3, 1}, LogitRule{nullptr, 2, 30, 0.7f}}) {
      const bool with_bias = num_cols % 2 == 1;
      test_tiles(level, num_cols, num_cols, rule, with_bias);
      test_tiles(level, num_cols, std::max<int64_t>(1, num_cols / 3), rule, !with_bias);
    }
  }
}

// The definition of max_rows, on whole rows.
int64_t plain_index(const float* row, const Floats& bias, int64_t num_cols, int64_t excluded) {
  int64_t best = -1;
  for (int64_t col = 0; col < num_cols; ++col) {
    const float value = row[col] + bias[col];
    if (col == excluded) continue;
    if (std::isnan(value)) return col;
    if (value > (best < 0 ? -kInf : row[best] + bias[best])) best = col;
  }
  return best;
}

void test_max(Level level, int64_t num_cols, int64_t tile_cols) {
  std::mt19937 random(static_cast<uint32_t>(num_cols));
  const int64_t num_rows = 8;
  Floats products = random_floats(&random, num_rows * num_cols, 2);
  for (float& value : products) value = std::round(value);  // so that many are equal
  const Floats bias(num_cols, 0.5f);
  std::fill_n(products.begin() + 5 * num_cols, num_cols, -kInf);
  products[6 * num_cols + num_cols - 1] = products[6 * num_cols + num_cols / 2] = kNan;
  products[7 * num_cols + num_cols / 2] = kInf;
  Labels excluded{-1, 0, num_cols - 1, tile_cols, -1, 0, -1, num_cols};
  excluded[4] = plain_index(&products[4 * num_cols], bias, num_cols, -1);
  Floats best(num_rows, -kInf);
  Labels index(num_rows, -1);
  for (int64_t col = 0; col < num_cols; col += tile_cols) {
    const int64_t count = std::min(tile_cols, num_cols - col);
    codeact::max_rows({{products.data() + col, num_rows, count, num_cols},
                       bias.data() + col,
                       excluded.data(),
                       col,
                       best.data(),
                       index.data()},
                      1, level);
  }
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* const at = &products[row * num_cols];
    const int64_t truth = plain_index(at, bias, num_cols, excluded[row]);
    EXPECT(index[row] == truth);
    const float value = truth < 0 ? -kInf : at[truth] + 0.5f;
    EXPECT(best[row] == value || (std::isnan(best[row]) && std::isnan(value)));
  }
}

void test_infinities(Level level) {
  Rows rows(5);
  const Floats nothing(5 * 20, -kInf);
  rows.add(nothing, kPlainLogits, level);
  EXPECT(rows.maximum == Floats(5, -kInf) && rows.sum == Floats(5, 0));
  EXPECT(rows.expected == Floats(5, 0));
  Floats tile(5 * 20, -kInf);
  tile[0 * 20 + 19] = tile[1 * 20 + 3] = tile[1 * 20 + 19] = 2;  // the log of 2 e^2
  tile[2 * 20 + 7] = kNan;
  tile[3 * 20 + 19] = kNan;
  tile[4 * 20 + 2] = kInf;
  rows.add(tile, kPlainLogits, level);
  rows.add(nothing, kPlainLogits, level);
  EXPECT(rows.maximum[0] == 2 && rows.sum[0] == 1 && rows.expected[0] == 2);
  EXPECT(rows.maximum[1] == 2 && rows.sum[1] == 2 && rows.expected[1] == 4);
  for (int row = 2; row < 5; ++row) EXPECT(std::isnan(rows.sum[row]));
  // Huge ones keep their digits.
  Rows huge(1);
  huge.add({1e4f, -1e4f, 1e4f, -3e38f}, kPlainLogits, level);
  EXPECT(huge.maximum[0] == 1e4f && huge.sum[0] == 2);
  // The cap makes infinities finite.
  Rows capped(1);
  capped.add({kInf, -kInf, 0}, {nullptr, 1, 5, 1}, level);
  EXPECT(is_near(capped.maximum[0] + std::log(capped.sum[0]), 5.006760443547122, 1e-6));
}

void test_no_columns_and_no_rows(Level level) {
  Rows rows(2, {0, 1});
  codeact::lse_rows(rows.job(nullptr, 0, 0, kPlainLogits, 0), 1, level);
  EXPECT(rows.maximum == Floats(2, -kInf) && rows.sum == Floats(2, 0));
  Rows none(0);
  codeact::lse_rows(none.job(nullptr, 7, 7, kPlainLogits, 0), 4, level);
}

void test_threads_do_not_count(Level level) {
  constexpr int64_t kRows = 301, kCols = 3511;  // above the 2^20 elements that threads need
  std::mt19937 random(9);
  const Floats tile = random_floats(&random, kRows * kCols, 4);
  Rows alone(kRows), together(kRows);
  alone.add(tile, kPlainLogits, level);
  together.add(tile, kPlainLogits, level, 5);
  EXPECT(alone.maximum == together.maximum && alone.sum == together.sum);
  EXPECT(alone.expected == together.expected && alone.sum[300] > 0);
}

void test_refusals() {
  Rows rows(1);
  const auto run = [&](float cap, float temperature) {
    rows.add({1, 2}, {nullptr, 1, cap, temperature}, Level::kPlain);
  };
  EXPECT(refuses([=] { run(-1, 1); }, "softcap must not be negative, got -1"));
  EXPECT(refuses([=] { run(0, 0); }, "temperature must be positive, got 0"));
  EXPECT(refuses([=] { run(kNan, 1); }, "softcap must not be negative, got nan"));
  EXPECT(codeact::usable(codeact::best_level()));
  for (const Level level : {Level::kAvx2, Level::kAvx512}) {
    if (codeact::usable(level)) continue;
    EXPECT(refuses([&] { rows.add({1, 2}, kPlainLogits, level); }, "lacks the instructions"));
  }
}

}  // namespace

void test_row_reduce() {
  for (const Level level : usable_levels()) {
    test_exp(level);
    test_shapes(level);
    for (const int64_t num_cols : {1, 2, 4, 5, 8, 16, 17, 33, 64, 65, 200, 1000}) {
      test_max(level, num_cols, num_cols);
      test_max(level, num_cols, std::max<int64_t>(1, num_cols / 3));
    }
    test_infinities(level);
    test_no_columns_and_no_rows(level);
    test_threads_do_not_count(level);
  }
  test_refusals();
}

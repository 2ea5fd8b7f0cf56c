#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "expect.h"
#include "neighbours.h"

namespace {

using codeact::Level;

constexpr float kInf = __builtin_inff();

// Products of points as a tile of floats with a gap after each row, and squares of lengths.
struct Products {
  Products(int64_t num_rows_, int64_t num_cols_, unsigned seed)
      : num_rows(num_rows_), num_cols(num_cols_), stride(num_cols_ + 3) {
    std::mt19937 random(seed);
    // Few values, so that there are ties.
    std::uniform_int_distribution<int> value(-20, 20);
    for (int64_t i = 0; i < num_rows * stride; ++i) {
      values.push_back(i % stride < num_cols ? 0.5f * value(random) : -1e30f);
    }
    for (int64_t i = 0; i < num_rows; ++i) row_squares.push_back(value(random) + 30.0f);
    for (int64_t i = 0; i < num_cols; ++i) col_squares.push_back(value(random) + 30.0f);
  }

  // The columns [first, first + count), whose place in the whole matrix is 100 further on.
  codeact::DistanceTile tile(int64_t first, int64_t count) const {
    return {{values.data() + first, num_rows, count, stride},
            row_squares.data(),
            col_squares.data() + first,
            100 + first};
  }

  float squared(int64_t row, int64_t col) const {
    return row_squares[row] + col_squares[col] - 2 * values[row * stride + col];
  }

  int64_t num_rows, num_cols, stride;
  std::vector<float> values, row_squares, col_squares;
};

// A sorted row of (value, column): the lowest of equal columns first.
using Sorted = std::vector<std::pair<float, int64_t>>;

void test_nearest(Level level, int64_t k, int num_threads) {
  const Products products(7, 1301, 1);
  std::vector<int64_t> excluded(7, -1);
  excluded[2] = 100;
  excluded[4] = 100 + 1300;
  excluded[5] = 5;  // of no column here
  std::vector<float> squared(7 * k, kInf);
  std::vector<int64_t> index(7 * k, -1);
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 600}, {600, 1}, {601, 700}}) {
    codeact::nearest_rows(
        {products.tile(first, count), excluded.data(), k, squared.data(), index.data()},
        num_threads, level);
  }
  for (int64_t row = 0; row < 7; ++row) {
    Sorted all;
    for (int64_t col = 0; col < products.num_cols; ++col) {
      if (excluded[row] != 100 + col) all.emplace_back(products.squared(row, col), 100 + col);
    }
    std::sort(all.begin(), all.end());
    for (int64_t i = 0; i < k; ++i) {
      const bool is_there = i < static_cast<int64_t>(all.size());
      EXPECT(squared[row * k + i] == (is_there ? all[i].first : kInf));
      EXPECT(index[row * k + i] == (is_there ? all[i].second : -1));
    }
  }
}

void test_reach(Level level, int num_components, int num_threads) {
  const Products products(9, 1100, 2);
  std::mt19937 random(3);
  std::vector<float> floors;
  std::vector<int32_t> rows, cols;
  for (int i = 0; i < 1100; ++i) floors.push_back(static_cast<float>(random() % 40));
  for (int i = 0; i < 9; ++i) rows.push_back(static_cast<int32_t>(random() % num_components));
  for (int i = 0; i < 1100; ++i) cols.push_back(static_cast<int32_t>(random() % num_components));
  if (num_components == 1) cols[1099] = 1;  // one column that counts, the last
  std::vector<float> best(9, kInf), second(9, kInf);
  std::vector<int64_t> index(9, -1);
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 513}, {513, 31}, {544, 556}}) {
    codeact::reach_rows({products.tile(first, count), floors.data() + first, rows.data(),
                         cols.data() + first, best.data(), index.data(), second.data()},
                        num_threads, level);
  }
  for (int64_t row = 0; row < 9; ++row) {
    Sorted all;
    for (int64_t col = 0; col < 1100; ++col) {
      if (cols[col] == rows[row]) continue;
      all.emplace_back(std::max(products.squared(row, col), floors[col]), 100 + col);
    }
    std::sort(all.begin(), all.end());
    EXPECT(best[row] == all[0].first);
    EXPECT(index[row] == all[0].second);
    EXPECT(second[row] == (all.size() > 1 ? all[1].first : kInf));
  }
}

void test_pairs(Level level, int64_t dim, int num_threads) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  const int64_t stride = dim + 1, num_points = 20, num_pairs = 5000;
  std::vector<float> points(num_points * stride);
  for (float& value : points) value = normal(random);
  std::vector<int64_t> left, right;
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    left.push_back(random() % num_points);
    right.push_back(random() % num_points);
  }
  std::vector<double> squared(num_pairs), swapped(num_pairs);
  const codeact::Pairs job{points.data(), dim,       stride,        left.data(),
                           right.data(),  num_pairs, squared.data()};
  codeact::squared_distances(job, num_threads, level);
  codeact::squared_distances(
      {points.data(), dim, stride, right.data(), left.data(), num_pairs, swapped.data()}, 1, level);
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    double truth = 0;
    for (int64_t i = 0; i < dim; ++i) {
      truth += std::pow(
          double{points[left[pair] * stride + i]} - double{points[right[pair] * stride + i]}, 2);
    }
    EXPECT(std::abs(squared[pair] - truth) <= 1e-13 * truth);
    EXPECT(squared[pair] == swapped[pair]);
  }
}

}  // namespace

void test_neighbours() {
  for (const Level level : {Level::kPlain, Level::kAvx2, Level::kAvx512}) {
    if (!codeact::usable(level)) {
      EXPECT(refuses([&] { test_nearest(level, 1, 1); }, "lacks the instructions"));
      continue;
    }
    for (const int64_t k : {1, 5, 40, 1400}) test_nearest(level, k, 1);
    for (const int num_components : {1, 2, 30}) test_reach(level, num_components, 1);
    for (const int64_t dim : {1, 15, 16, 100}) test_pairs(level, dim, 1);
    test_pairs(level, 300, 3);
  }
  test_nearest(codeact::best_level(), 5, 3);
  test_reach(codeact::best_level(), 2, 3);
  EXPECT(refuses([] { test_nearest(Level::kPlain, 0, 1); }, "k must be at least 1, got 0"));
}

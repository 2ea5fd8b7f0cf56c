#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "expect.h"
#include "kmeans.h"

namespace {

using codeact::kPanel;
using codeact::Level;
using Floats = std::vector<float>;

Floats normal(int64_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  Floats values(size);
  for (float& value : values) value = draw(random);
  return values;
}

double squared_gap(const float* a, const float* b, int64_t dim) {
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum;
}

// Centroids with what belongs to them.
struct Packed {
  Packed(Floats values, int64_t dim_) : rows(std::move(values)), dim(dim_) {
    const int64_t num_clusters = static_cast<int64_t>(rows.size()) / dim;
    const int64_t num_panels = (num_clusters + kPanel - 1) / kPanel;
    panels.assign(num_panels * dim * kPanel, 0);
    half_squares.assign(num_panels * kPanel, std::numeric_limits<float>::infinity());
    const Floats origin(dim);
    for (int64_t c = 0; c < num_clusters; ++c) {
      for (int64_t i = 0; i < dim; ++i) {
        panels[(c / kPanel * dim + i) * kPanel + c % kPanel] = rows[c * dim + i];
      }
      half_squares[c] = static_cast<float>(squared_gap(&rows[c * dim], origin.data(), dim) / 2);
      max_square = std::max(max_square, 2 * half_squares[c]);
    }
  }

  codeact::Centroids view() const {
    return {static_cast<int64_t>(rows.size()) / dim, dim, rows.data(), panels.data(),
            half_squares.data()};
  }

  Floats rows;
  int64_t dim;
  Floats panels;
  Floats half_squares;
  float max_square = 0;
};

Floats squares_of(const Floats& points, int64_t dim) {
  const Floats origin(dim);
  Floats squares(points.size() / dim);
  for (size_t row = 0; row < squares.size(); ++row) {
    squares[row] = static_cast<float>(squared_gap(&points[row * dim], origin.data(), dim));
  }
  return squares;
}

// A few iterations; every label must be right and every sum that of its rows.
void check_assign(int64_t num_rows, int64_t dim, int64_t num_clusters, Level level, int threads) {
  const Floats points = normal(num_rows * dim, 1);
  const Floats squares = squares_of(points, dim);
  Packed packed(normal(num_clusters * dim, 2), dim);
  const int64_t num_panels = (num_clusters + kPanel - 1) / kPanel;
  std::vector<int32_t> labels(num_rows, -1);
  Floats upper(num_rows), lower(num_rows * num_panels), shifts, panel_shifts;
  std::vector<double> sums(num_clusters * dim);
  std::vector<int64_t> counts(num_clusters);
  const double rounder = 1.5 * std::ldexp(1.0, 20);  // multiples of 2^-32
  for (int iteration = 0; iteration < 6; ++iteration) {
    const std::vector<int32_t> before = labels;
    const auto done = codeact::assign_rows(
        {points.data(), squares.data(), num_rows, packed.view(),
         iteration == 0 ? nullptr : shifts.data(), iteration == 0 ? nullptr : panel_shifts.data(),
         1e-6f, packed.max_square, labels.data(), upper.data(), lower.data(), rounder, sums.data(),
         counts.data()},
        threads, level);
    int64_t num_moved = 0;
    std::vector<double> expected(num_clusters * dim);
    std::vector<int64_t> sizes(num_clusters);
    for (int64_t row = 0; row < num_rows; ++row) {
      const int32_t label = labels[row];
      EXPECT(0 <= label && label < num_clusters);
      num_moved += label != before[row];
      const double own = squared_gap(&points[row * dim], &packed.rows[label * dim], dim);
      for (int64_t c = 0; c < num_clusters; ++c) {
        EXPECT(own <= squared_gap(&points[row * dim], &packed.rows[c * dim], dim) +
                          1e-5 * (squares[row] + packed.max_square));
      }
      ++sizes[label];
      for (int64_t i = 0; i < dim; ++i) {
        expected[label * dim + i] +=
            (static_cast<double>(points[row * dim + i]) + rounder) - rounder;
      }
    }
    EXPECT(done.num_moved == num_moved);
    EXPECT(done.num_panels <= num_rows * num_panels);
    EXPECT(iteration > 0 || done.num_panels == num_rows * num_panels);
    EXPECT(sums == expected);
    EXPECT(counts == sizes);
    Floats next = packed.rows;
    shifts.assign(num_clusters, 0);
    panel_shifts.assign(num_panels, 0);
    for (int64_t c = 0; c < num_clusters; ++c) {
      if (counts[c] == 0) continue;
      for (int64_t i = 0; i < dim; ++i) {
        next[c * dim + i] = static_cast<float>(sums[c * dim + i] / counts[c]);
      }
      const double moved = std::sqrt(squared_gap(&next[c * dim], &packed.rows[c * dim], dim));
      shifts[c] = static_cast<float>(moved * (1 + 1e-5));
      panel_shifts[c / kPanel] = std::max(panel_shifts[c / kPanel], shifts[c]);
    }
    packed = Packed(std::move(next), dim);
  }
}

void check_candidates(int64_t num_rows, int64_t dim, int64_t num_candidates, Level level) {
  const Floats points = normal(num_rows * dim, 3);
  const Floats squares = squares_of(points, dim);
  // The first rows, so that each is 0 from one of them.
  const Packed packed(Floats(points.begin(), points.begin() + num_candidates * dim), dim);
  const Floats nearest(num_rows, static_cast<float>(dim));
  Floats left(num_rows * kPanel);
  std::vector<double> potentials(kPanel);
  codeact::candidate_rows({points.data(), squares.data(), num_rows, packed.view(), 1e-6f,
                           nearest.data(), left.data(), potentials.data()},
                          1, level);
  for (int64_t c = 0; c < num_candidates; ++c) {
    double sum = 0;
    for (int64_t row = 0; row < num_rows; ++row) {
      const double square = squared_gap(&points[row * dim], &packed.rows[c * dim], dim);
      EXPECT(std::fabs(left[row * kPanel + c] - std::min<double>(square, dim)) < 1e-4 * dim);
      sum += left[row * kPanel + c];
    }
    EXPECT(left[c * kPanel + c] == 0);
    EXPECT(std::fabs(sum - potentials[c]) <= 1e-9 * sum);
  }
}

void test_arrange_and_distances() {
  const Floats points = normal(300 * 21, 4);
  const Floats centre = normal(21, 5);
  std::vector<int64_t> order(299);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i * 7 % 300);
  Floats arranged(order.size() * 21), squares(order.size());
  const float largest = codeact::arrange_rows(
      {points.data(), order.data(), centre.data(), 299, 21, arranged.data(), squares.data()}, 2);
  float most = 0;
  for (int64_t row = 0; row < 299; ++row) {
    for (int64_t i = 0; i < 21; ++i) {
      EXPECT(arranged[row * 21 + i] == points[order[row] * 21 + i] - centre[i]);
      most = std::max(most, std::fabs(arranged[row * 21 + i]));
    }
  }
  EXPECT(largest == most);
  const Floats expected = squares_of(arranged, 21);
  for (size_t row = 0; row < squares.size(); ++row) {
    EXPECT(std::fabs(squares[row] - expected[row]) < 1e-5f * expected[row]);
  }
  std::vector<int32_t> labels(300, 1);
  labels[5] = -1;
  Floats distances(300);
  codeact::own_distances({points.data(), points.data(), labels.data(), 300, 21, distances.data()},
                         1);
  EXPECT(distances[1] == 0);
  EXPECT(std::isnan(distances[5]));
  EXPECT(std::fabs(distances[9] - std::sqrt(squared_gap(&points[9 * 21], &points[21], 21))) < 1e-5);
}

}  // namespace

void test_kmeans() {
  for (const Level level : {Level::kPlain, Level::kAvx2, Level::kAvx512}) {
    if (!codeact::usable(level)) continue;
    for (const int64_t num_rows : {1, 2, 7, 96, 97, 230}) {
      for (const int64_t num_clusters : {1, 5, 16, 17, 50}) {
        for (const int64_t dim : {1, 8, 35}) check_assign(num_rows, dim, num_clusters, level, 1);
      }
    }
    check_assign(2000, 12, 20, level, 3);
    check_candidates(130, 33, 16, level);
    check_candidates(96, 4, 3, level);
  }
  test_arrange_and_distances();
}

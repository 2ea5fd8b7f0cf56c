#include <algorithm>

#include "rows.h"

namespace {

using codeact::Level;

// Points, and samples with NaN in what fills up their rows.
struct Clouds {
  Clouds(int64_t num_points_, int64_t num_samples_, int64_t dim_, float spread)
      : num_points(num_points_),
        num_samples(num_samples_),
        dim(dim_),
        stride((num_samples + 63) / 64 * 64),
        by_dimension(dim * stride, kNan) {
    std::mt19937 random(static_cast<uint32_t>(num_points + 100 * num_samples + dim));
    points = random_floats(&random, num_points * dim, spread);
    samples = random_floats(&random, num_samples * dim, spread);
    lay_out();
  }

  void lay_out() {
    for (int64_t j = 0; j < num_samples; ++j) {
      for (int64_t d = 0; d < dim; ++d) by_dimension[d * stride + j] = samples[j * dim + d];
    }
  }

  codeact::SquareRows rows() const {
    return {points.data(), num_points, by_dimension.data(), num_samples, stride, dim};
  }

  // -|x - y|^2 / 2 in double.
  double half_square(int64_t point, int64_t sample) const {
    double sum = 0;
    for (int64_t d = 0; d < dim; ++d) {
      const double gap = static_cast<double>(points[point * dim + d]) - samples[sample * dim + d];
      sum += gap * gap;
    }
    return -0.5 * sum;
  }

  int64_t num_points, num_samples, dim, stride;
  Floats points, samples, by_dimension;
};

struct Lse {
  Lse(const Clouds& clouds, float scale, Level level, int num_threads = 1)
      : maximum(clouds.num_points, kNan), sum(clouds.num_points, -1) {
    const auto cutoff = static_cast<float>(std::log(clouds.num_samples) + 25);
    codeact::square_lse({clouds.rows(), scale, cutoff, maximum.data(), sum.data()}, num_threads,
                        level);
  }

  Floats maximum;
  std::vector<double> sum;
};

struct Nearest {
  Nearest(const Clouds& clouds, const Labels& excluded, Level level, int num_threads = 1)
      : best(clouds.num_points, kNan), index(clouds.num_points, -7) {
    codeact::square_max(
        {clouds.rows(), excluded.empty() ? nullptr : excluded.data(), best.data(), index.data()},
        num_threads, level);
  }

  Floats best;
  Labels index;
};

void test_lse(Level level, int64_t num_points, int64_t num_samples, int64_t dim, float scale) {
  const Clouds clouds(num_points, num_samples, dim, 1);
  const Lse found(clouds, scale, level);
  for (int64_t i = 0; i < num_points; ++i) {
    double largest = -kInf, sum = 0;
    for (int64_t j = 0; j < num_samples; ++j) {
      largest = std::fmax(largest, scale * clouds.half_square(i, j));
    }
    for (int64_t j = 0; j < num_samples; ++j) {
      sum += std::exp(scale * clouds.half_square(i, j) - largest);
    }
    // A rounding of the largest term's exponent, and those of exp.
    const double allowed = 4e-7 + 4e-7 * std::fabs(largest);
    EXPECT(is_near(found.maximum[i] + std::log(found.sum[i]), largest + std::log(sum), allowed));
  }
}

// Whole coordinates: every square is exact, and many are equal.
void test_nearest(Level level, int64_t num_points, int64_t num_samples, int64_t dim) {
  Clouds clouds(num_points, num_samples, dim, 2);
  for (float& value : clouds.points) value = std::round(value);
  for (float& value : clouds.samples) value = std::round(value);
  clouds.lay_out();
  Labels excluded(num_points, -1);
  for (int64_t i = 0; i < num_points; ++i) excluded[i] = i % 3 == 0 ? -1 : i % (num_samples + 1);
  for (const bool with_excluded : {false, true}) {
    const Nearest found(clouds, with_excluded ? excluded : Labels(), level);
    for (int64_t i = 0; i < num_points; ++i) {
      int64_t truth = -1;
      for (int64_t j = 0; j < num_samples; ++j) {
        if (with_excluded && j == excluded[i]) continue;
        if (truth < 0 || clouds.half_square(i, j) > clouds.half_square(i, truth)) truth = j;
      }
      EXPECT(found.index[i] == truth);
      EXPECT(truth < 0 ? found.best[i] == -kInf : found.best[i] == clouds.half_square(i, truth));
    }
  }
}

void test_far_points(Level level) {
  Clouds clouds(5, 2000, 3, 1);
  clouds.points[0] = 3e4f;   // every sample's term is far below the smallest float
  clouds.points[3] = 1e30f;  // its squares overflow
  const Lse found(clouds, 1, level);
  EXPECT(found.maximum[0] < -4e8f && found.sum[0] >= 1);
  EXPECT(found.maximum[1] == -kInf && found.sum[1] == 0);
  EXPECT(found.sum[2] > 1);
  const Nearest nearest(clouds, {}, level);
  EXPECT(nearest.index[0] >= 0 && nearest.index[1] == -1 && nearest.best[1] == -kInf);
}

void test_threads_do_not_count(Level level) {
  const Clouds clouds(1001, 1100, 4, 1);  // above the 2^20 pairs that threads need
  const Lse alone(clouds, 9, level), together(clouds, 9, level, 3);
  EXPECT(alone.maximum == together.maximum && alone.sum == together.sum);
  const Nearest one(clouds, {}, level), three(clouds, {}, level, 3);
  EXPECT(one.best == three.best && one.index == three.index);
}

void test_refusals() {
  const Clouds clouds(1, 65, 2, 1);
  codeact::SquareRows rows = clouds.rows();
  float best;
  int64_t index;
  double sum;
  EXPECT(refuses([&] { codeact::square_lse({rows, 0, 1, &best, &sum}, 1); },
                 "scale must be positive, got 0"));
  rows.sample_stride = 127;
  EXPECT(refuses([&] { codeact::square_max({rows, nullptr, &best, &index}, 1); },
                 "sample_stride must be 65 rounded up to 64, got 127"));
}

}  // namespace

void test_row_squares() {
  for (const Level level : usable_levels()) {
    for (const int64_t num_samples : {1, 3, 63, 64, 65, 1024, 1025, 2500}) {
      for (const int64_t dim : {1, 3, 10, 32}) {
        test_lse(level, 7, num_samples, dim, 5);
        test_nearest(level, 7, num_samples, dim);
      }
    }
    test_lse(level, 131, 40, 2, 0.01f);  // several groups of points
    test_nearest(level, 131, 40, 2);
    test_far_points(level);
    test_threads_do_not_count(level);
  }
  test_refusals();
}

#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "expect.h"
#include "row_reduce.h"

using Floats = std::vector<float>;
using Labels = std::vector<int64_t>;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();

inline std::vector<codeact::Level> usable_levels() {
  std::vector<codeact::Level> levels;
  for (const auto level :
       {codeact::Level::kPlain, codeact::Level::kAvx2, codeact::Level::kAvx512}) {
    if (codeact::usable(level)) levels.push_back(level);
  }
  return levels;
}

inline Floats random_floats(std::mt19937* random, int64_t count, float scale) {
  Floats values(count);
  std::normal_distribution<float> normal(0, scale);
  for (float& value : values) value = normal(*random);
  return values;
}

inline bool is_near(double value, double truth, double tolerance) {
  if (std::isfinite(truth) && std::fabs(value - truth) <= tolerance) return true;
  std::fprintf(stderr, "%.9g is not %.9g within %.2g\n", value, truth, tolerance);
  return false;
}

// u and z of one product, in double.
inline double raw_of(const codeact::LogitRule& rule, float product, int64_t col) {
  const double bias = rule.bias == nullptr ? 0.0 : rule.bias[col];
  return static_cast<double>(rule.scale) * product + bias;
}

inline double logit_of(const codeact::LogitRule& rule, double raw) {
  const double cap = rule.softcap;
  return (cap == 0 ? raw : cap * std::tanh(raw / cap)) / rule.temperature;
}

inline double slope_of(const codeact::LogitRule& rule, double raw) {
  const double tanh = rule.softcap == 0 ? 0 : std::tanh(raw / rule.softcap);
  return (1 - tanh * tanh) / rule.temperature;
}

inline double lse_of(const codeact::LogitRule& rule, const float* row, int64_t num_cols) {
  double largest = -kInf;
  for (int64_t col = 0; col < num_cols; ++col) {
    largest = std::fmax(largest, logit_of(rule, raw_of(rule, row[col], col)));
  }
  double sum = 0;
  for (int64_t col = 0; col < num_cols; ++col) {
    sum += std::exp(logit_of(rule, raw_of(rule, row[col], col)) - largest);
  }
  return largest + std::log(sum);
}

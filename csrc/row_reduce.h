#pragma once

#include <cstdint>

#include "dtype.h"

// Reductions over rows of logits that lie in memory: a tile of a matrix product at a time, with
// the state of each row kept by the caller, or whole rows. Sums and exponentials are float32, exp
// to 2e-7 of its value; sums over more than a few thousand columns are carried on in double.
//
// A row that holds NaN or +inf gives NaN; -inf is a probability of 0, in a row of nothing else too.
// The bits of a row's result depend on the row and on the processor, not on num_threads.

namespace codeact {

// Which instructions are used; the results differ in their last bits.
enum class Level { kPlain, kAvx2, kAvx512 };

// Whether this build and this processor have the level, and the best that they have.
bool usable(Level level);
Level best_level();

// Products in row-major order; the rows start `stride` elements apart.
struct Tile {
  const float* products;
  int64_t num_rows;
  int64_t num_cols;
  int64_t stride;
};

// How a product becomes a logit: u = scale * product + bias, then z = cap(u) / temperature, where
// cap(u) is softcap * tanh(u / softcap), or u if softcap is 0.
struct LogitRule {
  const float* bias;  // of each column from the tile's first on, or null
  float scale;
  float softcap;
  float temperature;
};

// Adds a tile to the log-sum-exp of each row: sum = sum of exp(z - maximum). maximum starts at
// -inf, sum and expected at 0; in the end lse = maximum + log(sum).
struct LseRows {
  Tile tile;
  LogitRule rule;
  const int64_t* labels;  // (num_rows,) columns of the whole matrix, or null
  int64_t first_col;      // the tile's place in the whole matrix
  float* maximum;
  float* sum;
  float* label;     // z at the label, written where this tile holds it; null if labels is
  float* expected;  // sum of z * exp(z - maximum), or null
};
void lse_rows(const LseRows& job, int num_threads, Level level = best_level());

// The same beside its derivative: zd is the tangent of z for the tangent tile and bias_tangent,
// weighted = sum of zd * exp(z - maximum) from 0 on, and the tangent of lse is weighted / sum.
struct LseTangentRows {
  LseRows primal;        // `expected` is null
  const float* tangent;  // the tangents of the products, laid out like them; null is 0
  const float* bias_tangent;
  float* weighted;
  float* label_tangent;  // zd at the label, like `label`
};
void lse_tangent_rows(const LseTangentRows& job, int num_threads, Level level = best_level());

// Adds a tile to the maximum of product + bias in each row, from best = -inf and index = -1 on:
// the lowest column among equal ones, and the first NaN if there is one. `excluded` names a column
// in each row that does not count, -1 for none; index stays -1 while nothing is above -inf.
struct MaxRows {
  Tile tile;
  const float* bias;        // or null
  const int64_t* excluded;  // (num_rows,), or null
  int64_t first_col;
  float* best;
  int64_t* index;
};
void max_rows(const MaxRows& job, int num_threads, Level level = best_level());

// Rows of -|x - y|^2 / 2 over all samples y, one for each point x: for few dimensions, where
// differences cost less than a product. All coordinates are finite.
struct SquareRows {
  const float* points;  // (num_points, dim)
  int64_t num_points;
  const float* samples;  // (dim, sample_stride): all first coordinates, all second ones, ...
  int64_t num_samples;
  int64_t sample_stride;  // num_samples rounded up to 64 or more; what fills up is any number
  int64_t dim;
};

// The log-sum-exp of scale * (-|x - y|^2 / 2) is maximum + log(sum); nothing is carried over from
// call to call. Blocks of samples whose largest term is below exp(-cutoff) of the largest so far
// may be left out: with cutoff = log(num_samples) + 25 together below 2e-11 of the sum.
struct SquareLse {
  SquareRows rows;
  float scale;
  float cutoff;
  float* maximum;
  double* sum;
};
void square_lse(const SquareLse& job, int num_threads, Level level = best_level());

// The nearest sample, of equally near ones the first, and -|x - y|^2 / 2. `excluded` as in MaxRows;
// -inf and -1 where no sample counts.
struct SquareMax {
  SquareRows rows;
  const int64_t* excluded;
  float* best;
  int64_t* index;
};
void square_max(const SquareMax& job, int num_threads, Level level = best_level());

// Whole rows of logits.
struct LogitRows {
  const void* logits;
  DType dtype;
  int64_t num_rows;
  int64_t num_cols;
  int64_t stride;
  const int64_t* labels;
  int64_t ignore_index;
};

// nll = lse - logit of the label; 0 where the label is ignore_index, NaN where it is no column.
struct NllRows {
  LogitRows rows;
  float* nll;
};
void nll_rows(const NllRows& job, int num_threads, Level level = best_level());

// The derivative of each row's nll with respect to u, times row_weights, in the dtype of the
// logits; `gradient` may be the logits' own memory. Ignored rows are 0, in nll too; NaN where the
// label is no column.
struct SoftmaxGradientRows {
  LogitRows rows;
  LogitRule rule;
  const float* row_weights;  // null is 1
  float* nll;                // or null
  void* gradient;
  int64_t gradient_stride;
};
void softmax_gradient_rows(const SoftmaxGradientRows& job, int num_threads,
                           Level level = best_level());

}  // namespace codeact

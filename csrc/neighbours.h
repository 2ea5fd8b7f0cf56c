#pragma once

#include <cstdint>

#include "row_reduce.h"

// Nearest neighbours from tiles of a matrix product, with the state of each row kept by the caller,
// and the distances of single pairs. With row_squares and col_squares the squared lengths of both
// points, the squared distance is row_square + col_square - 2 * product: it cancels where points
// are close, so callers keep more columns than they want and measure those by squared_distances.
//
// All numbers are finite. What a row gets does not depend on num_threads.

namespace codeact {

// A tile of products of points, and what makes squared distances of them.
struct DistanceTile {
  Tile tile;
  const float* row_squares;  // (num_rows,), from the tile's first row on
  const float* col_squares;  // (num_cols,), from the tile's first column on
  int64_t first_col;         // the tile's place in the whole matrix
};

// Adds a tile to the k nearest columns of each row: nearest first, of equally near ones the lowest
// column. squared starts at inf, index at -1. `excluded` names a column in each row that does not
// count, -1 for none.
struct NearestRows {
  DistanceTile tile;
  const int64_t* excluded;  // (num_rows,), or null
  int64_t k;
  float* squared;  // (num_rows, k)
  int64_t* index;  // (num_rows, k)
};
void nearest_rows(const NearestRows& job, int num_threads, Level level = best_level());

// Adds a tile to the least max(squared distance, col_floor) of each row over the columns of other
// components: `best` and the lowest column that has it, and `second`, the least of all the other
// columns. best and second start at inf, index at -1.
struct ReachRows {
  DistanceTile tile;
  const float* col_floor;        // (num_cols,), from the tile's first column on
  const int32_t* row_component;  // (num_rows,)
  const int32_t* col_component;  // (num_cols,)
  float* best;
  int64_t* index;
  float* second;
};
void reach_rows(const ReachRows& job, int num_threads, Level level = best_level());

// squared[p] = |points[left[p]] - points[right[p]]|^2 in double, the same whichever is left.
struct Pairs {
  const float* points;  // (num_points, dim), rows `stride` elements apart
  int64_t dim;
  int64_t stride;
  const int64_t* left;
  const int64_t* right;
  int64_t num_pairs;
  double* squared;
};
void squared_distances(const Pairs& job, int num_threads, Level level = best_level());

}  // namespace codeact

#pragma once

#include <cstdint>

#include "row_reduce.h"

// The steps of k-means on rows of float32 that lie in memory. No matrix of rows by centroids is
// made: a row meets the centroids a panel of 16 at a time, and of each panel only its nearest
// centroid and a bound are kept.
//
// Squared distances are |x|^2 + 2 (|c|^2 / 2 - x . c) in float32; two that differ by less than
// about 1e-6 (|x|^2 + |c|^2) may be told apart wrongly. Results depend on the processor's
// instructions, not on num_threads: each row is by itself, and sums over rows are exact.

namespace codeact {

constexpr int64_t kPanel = 16;  // centroids side by side

// num_clusters x dim centroids, twice.
struct Centroids {
  int64_t num_clusters;
  int64_t dim;
  const float* rows;          // (num_clusters, dim)
  const float* panels;        // (num_panels, dim, kPanel), the last one padded
  const float* half_squares;  // (num_panels * kPanel,) |c|^2 / 2, inf where there is no centroid

  int64_t num_panels() const { return (num_clusters + kPanel - 1) / kPanel; }
};

// Gives each row its nearest centroid, the lowest of equal ones, and keeps the sums of clusters.
//
// For each row it keeps an upper bound of the distance to its own centroid, and for each panel a
// lower bound of the distance to the others in it (Hamerly, SDM 2010; with a panel as the group of
// Ding et al., ICML 2015). Centroids that move loosen both by how far they moved. A row whose upper
// bound is below all lower ones is not read; of another one, only panels with a lower bound below.
struct AssignRows {
  const float* points;   // (num_rows, dim)
  const float* squares;  // (num_rows,) |x|^2
  int64_t num_rows;
  Centroids centroids;
  const float* shifts;        // (num_clusters,) how far each centroid moved since the last call;
  const float* panel_shifts;  // (num_panels,) and the farthest of each panel. Null: no bounds yet,
                              // and all labels are -1
  float tolerance;            // relative error of |x|^2 + |c|^2 that bounds allow for
  float max_square;           // largest |c|^2
  int32_t* labels;            // (num_rows,)
  float* upper;               // (num_rows,)
  float* lower;               // (num_rows, num_panels)
  // A value is added as `(value + rounder) - rounder`: all are multiples of one power of two then,
  // and sums of them that fit 53 bits are exact in whatever order rows come and go.
  double rounder;
  double* sums;     // (num_clusters, dim), of the rows with each label
  int64_t* counts;  // (num_clusters,)
};
struct AssignCounts {
  int64_t num_moved;   // rows whose label changed
  int64_t num_panels;  // pairs of a row and a panel that were multiplied
};
AssignCounts assign_rows(const AssignRows& job, int num_threads, Level level = best_level());

// What each of up to kPanel candidates would leave of the squared distances, for k-means++.
struct CandidateRows {
  const float* points;
  const float* squares;
  int64_t num_rows;
  Centroids candidates;  // one panel
  float tolerance;       // squared distances below tolerance * (|x|^2 + |c|^2) are 0
  const float* nearest;  // (num_rows,) squared distance to the nearest centroid so far
  float* left;           // (num_rows, kPanel) the same, were the candidate one of them
  double* potentials;    // (kPanel,) the column sums of `left`
};
void candidate_rows(const CandidateRows& job, int num_threads, Level level = best_level());

// Row `order[i]` of `points` less `centre` becomes row i of `arranged`; squares[i] is its squared
// length. Returns the largest absolute value.
struct ArrangeRows {
  const float* points;  // (any, dim)
  const int64_t* order;
  const float* centre;  // (dim,)
  int64_t num_rows;
  int64_t dim;
  float* arranged;  // (num_rows, dim)
  float* squares;
};
float arrange_rows(const ArrangeRows& job, int num_threads);

// Euclidean distance of each row to the centroid of its label by direct difference, which cancels
// nothing; NaN where the label is -1.
struct OwnDistances {
  const float* points;
  const float* centroids;
  const int32_t* labels;
  int64_t num_rows;
  int64_t dim;
  float* distances;
};
void own_distances(const OwnDistances& job, int num_threads);

}  // namespace codeact

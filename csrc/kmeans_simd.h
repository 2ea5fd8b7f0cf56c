#pragma once

// The steps of k-means on a set of instructions S, which kmeans_{plain,avx2,avx512}.cpp define. All
// of it is in an unnamed namespace, and no template of the standard library is called: the linker
// might keep the one compiled for AVX-512.

namespace codeact::kmeans_simd {
namespace {

constexpr float kInf = __builtin_inff();

inline float smaller(float a, float b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }

// Products of kRows rows with the 16 columns of a panel. Sums stay in registers for all of `dim`:
// 6 x 2 of AVX2 leave 4 of 16 registers for the panel and a row's value.
template <class S, int kRows>
inline void multiply(const float* const* rows, const float* panel, int64_t dim,
                     float (*products)[kPanel]) {
  constexpr int kVectors = static_cast<int>(kPanel) / S::kWidth;
  typename S::V sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = S::set(0);
  }
  for (int64_t i = 0; i < dim; ++i, panel += kPanel) {
    typename S::V columns[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) columns[v] = S::load(panel + v * S::kWidth);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const typename S::V value = S::set(rows[r][i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = S::fma(value, columns[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) S::store(products[r] + v * S::kWidth, sums[r][v]);
  }
}

// The products of `count` listed rows, S::kRows at a time, each given to body(row, products).
template <class S, class Body>
inline void for_products(const float* points, const int64_t* listed, int64_t count,
                         const float* panel, int64_t dim, Body body) {
  float products[S::kRows][kPanel];
  const float* rows[S::kRows];
  for (int64_t start = 0; start < count; start += S::kRows) {
    const int64_t size = count - start < S::kRows ? count - start : int64_t{S::kRows};
    for (int64_t r = 0; r < S::kRows; ++r) {  // the last one again where there are no more
      rows[r] = points + listed[start + (r < size ? r : size - 1)] * dim;
    }
    if (size > 2) {
      multiply<S, S::kRows>(rows, panel, dim, products);
    } else if (size == 2) {
      multiply<S, 2>(rows, panel, dim, products);
    } else {
      multiply<S, 1>(rows, panel, dim, products);
    }
    for (int64_t r = 0; r < size; ++r) body(listed[start + r], products[r]);
  }
}

template <class S>
inline float dot(const float* a, const float* b, int64_t dim) {
  typename S::V sums[4] = {S::set(0), S::set(0), S::set(0), S::set(0)};
  int64_t i = 0;
  for (; i + 4 * S::kWidth <= dim; i += 4 * S::kWidth) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      sums[v] = S::fma(S::load(a + i + v * S::kWidth), S::load(b + i + v * S::kWidth), sums[v]);
    }
  }
  float lanes[S::kWidth];
  S::store(lanes, S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
  float sum = 0;
  for (; i < dim; ++i) sum += a[i] * b[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

// The nearest centroid of a panel, its score |c|^2 / 2 - x . c, and the second smallest score.
struct Nearest {
  float score;
  float second;
  int32_t column;
};

inline Nearest nearest_of(const float* scores) {
  Nearest found{scores[0], kInf, 0};
  for (int column = 1; column < kPanel; ++column) {
    const float score = scores[column];
    found.second = smaller(found.second, larger(found.score, score));
    found.score = smaller(found.score, score);
  }
  while (scores[found.column] != found.score) ++found.column;
  return found;
}

// Bounds and the best score of the rows of one block.
template <class S>
class Block {
 public:
  Block(const AssignRows& job, int64_t first, int64_t last)
      : job_(job), first_(first), last_(last), num_panels_(job.centroids.num_panels()) {}

  int64_t run(MovedRow* moved, int64_t* num_panels_done) {
    for (int64_t row = first_; row < last_; ++row) open(row);
    if (num_open_ == 0) return 0;
    const int64_t dim = job_.centroids.dim;
    for (int64_t panel = 0; panel < num_panels_; ++panel) {
      const int64_t count = list(panel);
      *num_panels_done += count;
      for_products<S>(job_.points, listed_, count, job_.centroids.panels + panel * kPanel * dim,
                      dim, [&](int64_t row, const float* products) { take(row, panel, products); });
    }
    int64_t num_moved = 0;
    for (int64_t i = 0; i < num_open_; ++i) {
      const int64_t row = open_[i];
      if (before_[row - first_] != job_.labels[row])
        moved[num_moved++] = {row, before_[row - first_]};
    }
    return num_moved;
  }

 private:
  float* lower(int64_t row) { return job_.lower + row * num_panels_; }
  float slack(int64_t row) const { return job_.tolerance * (job_.squares[row] + job_.max_square); }
  float upper_of(int64_t row, float score) const {
    return __builtin_sqrtf(larger(0, job_.squares[row] + 2 * score) + slack(row));
  }
  float lower_of(int64_t row, float score) const {
    return __builtin_sqrtf(larger(0, job_.squares[row] + 2 * score - slack(row)));
  }

  // Loosens the row's bounds, and opens it unless they still tell its label.
  void open(int64_t row) {
    const int32_t label = job_.labels[row];
    float* const bounds = lower(row);
    if (job_.shifts == nullptr) {
      for (int64_t panel = 0; panel < num_panels_; ++panel) bounds[panel] = 0;
      job_.upper[row] = kInf;
      best_[row - first_] = kInf;
    } else {
      float least = kInf;
      for (int64_t panel = 0; panel < num_panels_; ++panel) {
        bounds[panel] -= job_.panel_shifts[panel];
        least = smaller(least, bounds[panel]);
      }
      job_.upper[row] += job_.shifts[label];
      if (job_.upper[row] < least) return;
      const int64_t dim = job_.centroids.dim;
      const float* const centroid = job_.centroids.rows + label * dim;
      const float score =
          job_.centroids.half_squares[label] - dot<S>(job_.points + row * dim, centroid, dim);
      job_.upper[row] = upper_of(row, score);
      best_[row - first_] = score;
      if (job_.upper[row] < least) return;
    }
    before_[row - first_] = label;
    open_[num_open_++] = row;
  }

  // Open rows that need the panel.
  int64_t list(int64_t panel) {
    int64_t count = 0;
    for (int64_t i = 0; i < num_open_; ++i) {
      const int64_t row = open_[i];
      listed_[count] = row;
      count += lower(row)[panel] <= job_.upper[row];
    }
    return count;
  }

  void take(int64_t row, int64_t panel, const float* products) {
    float scores[kPanel];
    const float* const half_squares = job_.centroids.half_squares + panel * kPanel;
    for (int64_t column = 0; column < kPanel; ++column) {
      scores[column] = half_squares[column] - products[column];
    }
    const Nearest found = nearest_of(scores);
    const int32_t label = job_.labels[row];
    const int32_t nearest = static_cast<int32_t>(panel * kPanel) + found.column;
    float& best = best_[row - first_];
    const bool has_own = label >= 0 && label / kPanel == panel;
    if (has_own) best = scores[label % kPanel];  // summed in the order of the others now
    if (found.score < best) {
      // The centroid left behind is one of the others of its panel.
      if (label >= 0 && !has_own) {
        float& bound = lower(row)[label / kPanel];
        bound = smaller(bound, lower_of(row, best));
      }
      best = found.score;
      job_.labels[row] = nearest;
      lower(row)[panel] = lower_of(row, found.second);
    } else {
      lower(row)[panel] = lower_of(row, nearest == label ? found.second : found.score);
    }
    job_.upper[row] = upper_of(row, best);
  }

  const AssignRows& job_;
  const int64_t first_;
  const int64_t last_;
  const int64_t num_panels_;
  int64_t num_open_ = 0;
  int64_t open_[kBlockRows];
  int64_t listed_[kBlockRows];
  int32_t before_[kBlockRows];
  float best_[kBlockRows];
};

template <class S>
int64_t assign(const AssignRows& job, int64_t first, int64_t last, MovedRow* moved,
               int64_t* num_panels) {
  return Block<S>(job, first, last).run(moved, num_panels);
}

template <class S>
void candidates(const CandidateRows& job, int64_t first, int64_t last, double* potentials) {
  int64_t listed[kBlockRows];
  for (int64_t row = first; row < last; ++row) listed[row - first] = row;
  for (int64_t column = 0; column < kPanel; ++column) potentials[column] = 0;
  const float* const half_squares = job.candidates.half_squares;
  for_products<S>(job.points, listed, last - first, job.candidates.panels, job.candidates.dim,
                  [&](int64_t row, const float* products) {
                    float* const left = job.left + row * kPanel;
                    for (int64_t column = 0; column < kPanel; ++column) {
                      const float half = half_squares[column];
                      const float square = job.squares[row] + 2 * (half - products[column]);
                      const float least = job.tolerance * (job.squares[row] + 2 * half);
                      left[column] = smaller(job.nearest[row], square > least ? square : 0);
                      potentials[column] += left[column];
                    }
                  });
}

template <class S>
void add(const float* row, int64_t dim, double rounder, double sign, double* sum) {
  int64_t i = 0;
  for (; i + S::kDoubles <= dim; i += S::kDoubles) S::add_doubles(row + i, rounder, sign, sum + i);
  for (; i < dim; ++i) sum[i] += sign * ((static_cast<double>(row[i]) + rounder) - rounder);
}

template <class S>
constexpr KMeansKernels kernels_of() {
  return {&assign<S>, &candidates<S>, &add<S>};
}

}  // namespace
}  // namespace codeact::kmeans_simd

// Python's face of kmeans.h. Shapes and dtypes are checked here, values by ops.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "bindings.h"
#include "check.h"
#include "kmeans.h"

namespace py = pybind11;

namespace {

using codeact::check;
using codeact::kPanel;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// `size` is the number of elements it must have.
template <typename T>
T* data_of(Array<T>& array, int64_t size, const char* name) {
  check(array.size() == size, name, " must hold ", size, " elements, got ", array.size());
  return array.mutable_data();
}

int64_t rows_of(const Array<float>& matrix, const char* name) {
  check(matrix.ndim() == 2, name, " must be 2-D, got ", matrix.ndim(), "-D");
  return matrix.shape(0);
}

codeact::Centroids centroids_of(Array<float>& rows, Array<float>& panels,
                                Array<float>& half_squares) {
  codeact::Centroids centroids{rows_of(rows, "centroids"), rows.shape(1), rows.data(), nullptr,
                               nullptr};
  const int64_t padded = centroids.num_panels() * kPanel;
  centroids.panels = data_of(panels, padded * centroids.dim, "panels");
  centroids.half_squares = data_of(half_squares, padded, "half_squares");
  return centroids;
}

void check_dim(const Array<float>& points, int64_t dim) {
  check(points.shape(1) == dim, "points must have ", dim, " columns, got ", points.shape(1));
}

py::tuple assign_rows(Array<float> points, Array<float> squares, Array<float> rows,
                      Array<float> panels, Array<float> half_squares,
                      std::optional<Array<float>> shifts, std::optional<Array<float>> panel_shifts,
                      float tolerance, float max_square, Array<int32_t> labels, Array<float> upper,
                      Array<float> lower, double rounder, Array<double> sums, Array<int64_t> counts,
                      int num_threads) {
  const int64_t num_rows = rows_of(points, "points");
  const codeact::Centroids centroids = centroids_of(rows, panels, half_squares);
  const int64_t num_clusters = centroids.num_clusters;
  check_dim(points, centroids.dim);
  check(num_clusters > 0, "centroids must hold a row");
  check(shifts.has_value() == panel_shifts.has_value(), "shifts and panel_shifts go together");
  codeact::AssignRows job{points.data(),
                          data_of(squares, num_rows, "squares"),
                          num_rows,
                          centroids,
                          nullptr,
                          nullptr,
                          tolerance,
                          max_square,
                          data_of(labels, num_rows, "labels"),
                          data_of(upper, num_rows, "upper"),
                          data_of(lower, num_rows * centroids.num_panels(), "lower"),
                          rounder,
                          data_of(sums, num_clusters * centroids.dim, "sums"),
                          data_of(counts, num_clusters, "counts")};
  if (shifts.has_value()) {
    job.shifts = data_of(*shifts, num_clusters, "shifts");
    job.panel_shifts = data_of(*panel_shifts, centroids.num_panels(), "panel_shifts");
  }
  codeact::AssignCounts done{};
  {
    py::gil_scoped_release release;
    done = codeact::assign_rows(job, num_threads);
  }
  return py::make_tuple(done.num_moved, done.num_panels);
}

void candidate_rows(Array<float> points, Array<float> squares, Array<float> rows,
                    Array<float> panels, Array<float> half_squares, float tolerance,
                    Array<float> nearest, Array<float> left, Array<double> potentials,
                    int num_threads) {
  const int64_t num_rows = rows_of(points, "points");
  const codeact::Centroids candidates = centroids_of(rows, panels, half_squares);
  check_dim(points, candidates.dim);
  const codeact::CandidateRows job{points.data(),
                                   data_of(squares, num_rows, "squares"),
                                   num_rows,
                                   candidates,
                                   tolerance,
                                   data_of(nearest, num_rows, "nearest"),
                                   data_of(left, num_rows * kPanel, "left"),
                                   data_of(potentials, kPanel, "potentials")};
  py::gil_scoped_release release;
  codeact::candidate_rows(job, num_threads);
}

float arrange_rows(Array<float> points, Array<int64_t> order, Array<float> centre,
                   Array<float> arranged, Array<float> squares, int num_threads) {
  const int64_t dim = centre.size();
  rows_of(points, "points");
  check_dim(points, dim);
  const int64_t* const from = order.data();
  for (int64_t i = 0; i < order.size(); ++i) {
    check(0 <= from[i] && from[i] < points.shape(0), "order must name rows of points, got ",
          from[i]);
  }
  const codeact::ArrangeRows job{points.data(),
                                 from,
                                 centre.data(),
                                 order.size(),
                                 dim,
                                 data_of(arranged, order.size() * dim, "arranged"),
                                 data_of(squares, order.size(), "squares")};
  py::gil_scoped_release release;
  return codeact::arrange_rows(job, num_threads);
}

void own_distances(Array<float> points, Array<float> centroids, Array<int32_t> labels,
                   Array<float> distances, int num_threads) {
  const int64_t num_rows = rows_of(points, "points");
  const int64_t num_clusters = rows_of(centroids, "centroids");
  check_dim(points, centroids.shape(1));
  check(labels.size() == num_rows, "labels must hold ", num_rows, " elements, got ", labels.size());
  const int32_t* const own = labels.data();
  for (int64_t i = 0; i < num_rows; ++i) {
    check(own[i] < num_clusters, "labels must be below ", num_clusters, ", got ", own[i]);
  }
  const codeact::OwnDistances job{
      points.data(), centroids.data(), own,
      num_rows,      points.shape(1),  data_of(distances, num_rows, "distances")};
  py::gil_scoped_release release;
  codeact::own_distances(job, num_threads);
}

}  // namespace

void def_clustering(py::module_& m) {
  using py::arg;
  m.def("kmeans_assign", &assign_rows, arg("points").noconvert(), arg("squares").noconvert(),
        arg("centroids").noconvert(), arg("panels").noconvert(), arg("half_squares").noconvert(),
        arg("shifts").noconvert(), arg("panel_shifts").noconvert(), arg("tolerance"),
        arg("max_square"), arg("labels").noconvert(), arg("upper").noconvert(),
        arg("lower").noconvert(), arg("rounder"), arg("sums").noconvert(),
        arg("counts").noconvert(), arg("num_threads"));
  m.def("kmeans_candidates", &candidate_rows, arg("points").noconvert(), arg("squares").noconvert(),
        arg("candidates").noconvert(), arg("panels").noconvert(), arg("half_squares").noconvert(),
        arg("tolerance"), arg("nearest").noconvert(), arg("left").noconvert(),
        arg("potentials").noconvert(), arg("num_threads"));
  m.def("kmeans_arrange", &arrange_rows, arg("points").noconvert(), arg("order").noconvert(),
        arg("centre").noconvert(), arg("arranged").noconvert(), arg("squares").noconvert(),
        arg("num_threads"));
  m.def("kmeans_distances", &own_distances, arg("points").noconvert(), arg("centroids").noconvert(),
        arg("labels").noconvert(), arg("distances").noconvert(), arg("num_threads"));
}

// Nearest neighbours for codeact.ops, which hands over addresses, checked there.

#include "bindings.h"
#include "neighbours.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

codeact::DistanceTile distance_tile(Address tile, int64_t num_rows, int64_t num_cols,
                                    int64_t stride, Address row_squares, Address col_squares,
                                    int64_t first_col) {
  return {{at<float>(tile), num_rows, num_cols, stride},
          at<float>(row_squares),
          at<float>(col_squares),
          first_col};
}

void nearest_rows(Address tile, int64_t num_rows, int64_t num_cols, int64_t stride,
                  Address row_squares, Address col_squares, int64_t first_col, Address excluded,
                  int64_t k, Address squared, Address index, int num_threads) {
  const auto distances =
      distance_tile(tile, num_rows, num_cols, stride, row_squares, col_squares, first_col);
  codeact::nearest_rows(
      {distances, at<int64_t>(excluded), k, at<float>(squared), at<int64_t>(index)}, num_threads);
}

void reach_rows(Address tile, int64_t num_rows, int64_t num_cols, int64_t stride,
                Address row_squares, Address col_squares, int64_t first_col, Address col_floor,
                Address row_component, Address col_component, Address best, Address index,
                Address second, int num_threads) {
  const auto distances =
      distance_tile(tile, num_rows, num_cols, stride, row_squares, col_squares, first_col);
  codeact::reach_rows(
      {distances, at<float>(col_floor), at<int32_t>(row_component), at<int32_t>(col_component),
       at<float>(best), at<int64_t>(index), at<float>(second)},
      num_threads);
}

void squared_distances(Address points, int64_t dim, int64_t stride, Address left, Address right,
                       int64_t num_pairs, Address squared, int num_threads) {
  codeact::squared_distances({at<float>(points), dim, stride, at<int64_t>(left), at<int64_t>(right),
                              num_pairs, at<double>(squared)},
                             num_threads);
}

}  // namespace

void def_neighbours(py::module_& m) {
  using py::arg;
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  m.def("nearest_rows", &nearest_rows, Unlocked(), arg("tile"), arg("num_rows"), arg("num_cols"),
        arg("stride"), arg("row_squares"), arg("col_squares"), arg("first_col"), arg("excluded"),
        arg("k"), arg("squared"), arg("index"), arg("num_threads"));
  m.def("reach_rows", &reach_rows, Unlocked(), arg("tile"), arg("num_rows"), arg("num_cols"),
        arg("stride"), arg("row_squares"), arg("col_squares"), arg("first_col"), arg("col_floor"),
        arg("row_component"), arg("col_component"), arg("best"), arg("index"), arg("second"),
        arg("num_threads"));
  m.def("squared_distances", &squared_distances, Unlocked(), arg("points"), arg("dim"),
        arg("stride"), arg("left"), arg("right"), arg("num_pairs"), arg("squared"),
        arg("num_threads"));
}

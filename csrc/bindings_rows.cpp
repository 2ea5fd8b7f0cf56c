// Python's face of row_reduce.h: memory crosses as addresses, and ops has checked what is there.

#include <cstdint>
#include <string>

#include "bindings.h"
#include "check.h"
#include "row_reduce.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

void lse_rows(Address tile, int64_t num_rows, int64_t num_cols, int64_t stride, Address bias,
              float scale, float softcap, float temperature, Address labels, int64_t first_col,
              Address maximum, Address sum, Address label, Address expected, int num_threads) {
  codeact::lse_rows({{at<float>(tile), num_rows, num_cols, stride},
                     {at<float>(bias), scale, softcap, temperature},
                     at<int64_t>(labels),
                     first_col,
                     at<float>(maximum),
                     at<float>(sum),
                     at<float>(label),
                     at<float>(expected)},
                    num_threads);
}

void lse_tangent_rows(Address tile, Address tangent_tile, int64_t num_rows, int64_t num_cols,
                      int64_t stride, Address bias, Address bias_tangent, float scale,
                      float softcap, float temperature, Address labels, int64_t first_col,
                      Address maximum, Address sum, Address label, Address weighted,
                      Address label_tangent, int num_threads) {
  codeact::lse_tangent_rows({{{at<float>(tile), num_rows, num_cols, stride},
                              {at<float>(bias), scale, softcap, temperature},
                              at<int64_t>(labels),
                              first_col,
                              at<float>(maximum),
                              at<float>(sum),
                              at<float>(label),
                              nullptr},
                             at<float>(tangent_tile),
                             at<float>(bias_tangent),
                             at<float>(weighted),
                             at<float>(label_tangent)},
                            num_threads);
}

void max_rows(Address tile, int64_t num_rows, int64_t num_cols, int64_t stride, Address bias,
              Address excluded, int64_t first_col, Address best, Address index, int num_threads) {
  codeact::max_rows({{at<float>(tile), num_rows, num_cols, stride},
                     at<float>(bias),
                     at<int64_t>(excluded),
                     first_col,
                     at<float>(best),
                     at<int64_t>(index)},
                    num_threads);
}

codeact::SquareRows square_rows(Address points, int64_t num_points, Address samples,
                                int64_t num_samples, int64_t sample_stride, int64_t dim) {
  return {at<float>(points), num_points, at<float>(samples), num_samples, sample_stride, dim};
}

void square_lse(Address points, int64_t num_points, Address samples, int64_t num_samples,
                int64_t sample_stride, int64_t dim, float scale, float cutoff, Address maximum,
                Address sum, int num_threads) {
  codeact::square_lse({square_rows(points, num_points, samples, num_samples, sample_stride, dim),
                       scale, cutoff, at<float>(maximum), at<double>(sum)},
                      num_threads);
}

void square_max(Address points, int64_t num_points, Address samples, int64_t num_samples,
                int64_t sample_stride, int64_t dim, Address excluded, Address best, Address index,
                int num_threads) {
  codeact::square_max({square_rows(points, num_points, samples, num_samples, sample_stride, dim),
                       at<int64_t>(excluded), at<float>(best), at<int64_t>(index)},
                      num_threads);
}

void nll_rows(Address logits, const std::string& dtype, int64_t num_rows, int64_t num_cols,
              int64_t stride, Address labels, int64_t ignore_index, Address nll, int num_threads) {
  codeact::nll_rows({{at<void>(logits), dtype_named(dtype), num_rows, num_cols, stride,
                      at<int64_t>(labels), ignore_index},
                     at<float>(nll)},
                    num_threads);
}

void softmax_gradient_rows(Address logits, const std::string& dtype, int64_t num_rows,
                           int64_t num_cols, int64_t stride, Address bias, float scale,
                           float softcap, float temperature, Address labels, int64_t ignore_index,
                           Address row_weights, Address nll, Address gradient,
                           int64_t gradient_stride, int num_threads) {
  codeact::softmax_gradient_rows({{at<void>(logits), dtype_named(dtype), num_rows, num_cols, stride,
                                   at<int64_t>(labels), ignore_index},
                                  {at<float>(bias), scale, softcap, temperature},
                                  at<float>(row_weights),
                                  at<float>(nll),
                                  at<void>(gradient),
                                  gradient_stride},
                                 num_threads);
}

}  // namespace

void def_row_reductions(py::module_& m) {
  using py::arg;
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  m.def("lse_rows", &lse_rows, Unlocked(), arg("tile"), arg("num_rows"), arg("num_cols"),
        arg("stride"), arg("bias"), arg("scale"), arg("softcap"), arg("temperature"), arg("labels"),
        arg("first_col"), arg("maximum"), arg("sum"), arg("label"), arg("expected"),
        arg("num_threads"));
  m.def("lse_tangent_rows", &lse_tangent_rows, Unlocked(), arg("tile"), arg("tangent_tile"),
        arg("num_rows"), arg("num_cols"), arg("stride"), arg("bias"), arg("bias_tangent"),
        arg("scale"), arg("softcap"), arg("temperature"), arg("labels"), arg("first_col"),
        arg("maximum"), arg("sum"), arg("label"), arg("weighted"), arg("label_tangent"),
        arg("num_threads"));
  m.def("max_rows", &max_rows, Unlocked(), arg("tile"), arg("num_rows"), arg("num_cols"),
        arg("stride"), arg("bias"), arg("excluded"), arg("first_col"), arg("best"), arg("index"),
        arg("num_threads"));
  m.def("square_lse", &square_lse, Unlocked(), arg("points"), arg("num_points"), arg("samples"),
        arg("num_samples"), arg("sample_stride"), arg("dim"), arg("scale"), arg("cutoff"),
        arg("maximum"), arg("sum"), arg("num_threads"));
  m.def("square_max", &square_max, Unlocked(), arg("points"), arg("num_points"), arg("samples"),
        arg("num_samples"), arg("sample_stride"), arg("dim"), arg("excluded"), arg("best"),
        arg("index"), arg("num_threads"));
  m.def("nll_rows", &nll_rows, Unlocked(), arg("logits"), arg("dtype"), arg("num_rows"),
        arg("num_cols"), arg("stride"), arg("labels"), arg("ignore_index"), arg("nll"),
        arg("num_threads"));
  m.def("softmax_gradient_rows", &softmax_gradient_rows, Unlocked(), arg("logits"), arg("dtype"),
        arg("num_rows"), arg("num_cols"), arg("stride"), arg("bias"), arg("scale"), arg("softcap"),
        arg("temperature"), arg("labels"), arg("ignore_index"), arg("row_weights"), arg("nll"),
        arg("gradient"), arg("gradient_stride"), arg("num_threads"));
}

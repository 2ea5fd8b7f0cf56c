// Python's face of csrc/cuda: device memory and streams cross as addresses, and ops has checked
// them.

#include <cstdint>
#include <limits>
#include <string>

#include "bindings.h"
#include "check.h"
#include "cuda/device.h"
#include "cuda/gather_pack.h"
#include "cuda/row_lse.h"
#include "cuda/token_nll.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

// A grid has at most this many blocks.
void check_count(int64_t value, const char* name) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  codeact::check(0 <= value && value <= kMost, name, " must be from 0 to ", kMost, ", got ", value);
}

void token_nll(Address logits, Address targets, Address nll, int64_t num_tokens, int64_t vocab_size,
               int64_t logits_stride, const std::string& dtype, int64_t ignore_index,
               Address stream) {
  check_count(num_tokens, "num_tokens");
  const codeact::DType logits_dtype = dtype_named(dtype);
  py::gil_scoped_release release;
  codeact::cuda::token_nll(at<void>(logits), at<int64_t>(targets), at<float>(nll), num_tokens,
                           vocab_size, logits_stride, logits_dtype, ignore_index, at<void>(stream));
}

void gather_pack(Address input_ids, Address labels, Address starts, Address cu_tokens,
                 Address cu_rows, int64_t num_seqs, int64_t ignore_index, Address out_ids,
                 Address position_ids, Address cu_seqlens, Address rows, Address targets,
                 Address stream) {
  check_count(num_seqs, "num_seqs");
  py::gil_scoped_release release;
  codeact::cuda::gather_pack(
      at<int32_t>(input_ids), at<int32_t>(labels), at<int64_t>(starts), at<int64_t>(cu_tokens),
      at<int64_t>(cu_rows), num_seqs, ignore_index, at<int64_t>(out_ids), at<int64_t>(position_ids),
      at<int32_t>(cu_seqlens), at<int64_t>(rows), at<int64_t>(targets), at<void>(stream));
}

codeact::cuda::RowLseShape checked(int64_t num_rows, int64_t num_columns, int64_t dim,
                                   int64_t row_stride, int64_t column_stride) {
  check_count(num_rows, "num_rows");
  check_count(num_columns, "num_columns");
  codeact::check(num_columns >= 1 && dim >= 1, "columns must be at least (1, 1), got (",
                 num_columns, ", ", dim, ")");
  return {num_rows, num_columns, dim, row_stride, column_stride};
}

int64_t row_lse_workspace(int64_t num_rows, int64_t num_columns, int64_t dim, int64_t row_stride,
                          int64_t column_stride) {
  return codeact::cuda::row_lse_workspace(
      checked(num_rows, num_columns, dim, row_stride, column_stride));
}

void row_lse(Address rows, Address columns, Address labels, int64_t num_rows, int64_t num_columns,
             int64_t dim, int64_t row_stride, int64_t column_stride, Address bias, float scale,
             float softcap, float temperature, int64_t skip, Address workspace, Address lse,
             Address label_logits, Address stream) {
  const auto shape = checked(num_rows, num_columns, dim, row_stride, column_stride);
  py::gil_scoped_release release;
  codeact::cuda::row_lse(at<void>(rows), at<void>(columns), at<int64_t>(labels), shape,
                         {at<float>(bias), scale, softcap, temperature}, skip, at<float>(workspace),
                         at<float>(lse), at<float>(label_logits), at<void>(stream));
}

}  // namespace

void def_cuda(py::module_& m) {
  m.def("cuda_usable", &codeact::cuda::usable);
  m.def("gather_pack", &gather_pack, py::arg("input_ids"), py::arg("labels"), py::arg("starts"),
        py::arg("cu_tokens"), py::arg("cu_rows"), py::arg("num_seqs"), py::arg("ignore_index"),
        py::arg("out_ids"), py::arg("position_ids"), py::arg("cu_seqlens"), py::arg("rows"),
        py::arg("targets"), py::arg("stream"));
  m.def("token_nll", &token_nll, py::arg("logits"), py::arg("targets"), py::arg("nll"),
        py::arg("num_tokens"), py::arg("vocab_size"), py::arg("logits_stride"), py::arg("dtype"),
        py::arg("ignore_index"), py::arg("stream"));
  m.def("row_lse_workspace", &row_lse_workspace, py::arg("num_rows"), py::arg("num_columns"),
        py::arg("dim"), py::arg("row_stride"), py::arg("column_stride"));
  m.def("row_lse", &row_lse, py::arg("rows"), py::arg("columns"), py::arg("labels"),
        py::arg("num_rows"), py::arg("num_columns"), py::arg("dim"), py::arg("row_stride"),
        py::arg("column_stride"), py::arg("bias"), py::arg("scale"), py::arg("softcap"),
        py::arg("temperature"), py::arg("skip"), py::arg("workspace"), py::arg("lse"),
        py::arg("label_logits"), py::arg("stream"));
}

// Python's face of csrc: shapes and dtypes in, the GIL out of the way, arrays back.

#include "bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "check.h"
#include "gather.h"
#include "huge_pages.h"
#include "packing.h"
#include "shuffle.h"
#include "windows.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

// A vector as an array that owns it: no copy.
template <typename T>
Array<T> wrap(codeact::HugeVector<T>&& values) {
  auto* const owned = new codeact::HugeVector<T>(std::move(values));
  py::capsule free(owned,
                   [](void* pointer) { delete static_cast<codeact::HugeVector<T>*>(pointer); });
  return Array<T>(static_cast<py::ssize_t>(owned->size()), owned->data(), free);
}

// The number of items of a 1-D array that int32 can index.
template <typename T>
int32_t length_of(const Array<T>& array, const char* name) {
  codeact::check(array.ndim() == 1, name, " must be 1-D, got ", array.ndim(), "-D");
  codeact::check(array.size() <= kInt32Max, name, " must hold at most ", kInt32Max, " items, got ",
                 array.size());
  return static_cast<int32_t>(array.size());
}

int32_t int32_from(int64_t least, int64_t value, const char* name) {
  codeact::check(least <= value && value <= kInt32Max, name, " must be from ", least, " to ",
                 kInt32Max, ", got ", value);
  return static_cast<int32_t>(value);
}

py::tuple pack_best_fit(const Array<int32_t>& seqlens, int64_t capacity) {
  const int32_t num_seqs = length_of(seqlens, "seqlens");
  const int32_t size = int32_from(1, capacity, "capacity");
  Array<int32_t> order(num_seqs);
  int32_t* const order_data = order.mutable_data();
  codeact::HugeVector<int64_t> offsets;
  {
    py::gil_scoped_release release;
    offsets = codeact::pack_best_fit(seqlens.data(), num_seqs, size, order_data);
  }
  return py::make_tuple(std::move(order), wrap(std::move(offsets)));
}

Array<int64_t> pack_next_fit(const Array<int32_t>& seqlens, int64_t capacity) {
  const int32_t num_seqs = length_of(seqlens, "seqlens");
  const int32_t size = int32_from(1, capacity, "capacity");
  codeact::HugeVector<int64_t> offsets;
  {
    py::gil_scoped_release release;
    offsets = codeact::pack_next_fit(seqlens.data(), num_seqs, size);
  }
  return wrap(std::move(offsets));
}

py::tuple pack_window(const Array<int32_t>& seqlens, const Array<int32_t>& ages, int64_t capacity,
                      int64_t max_carry, bool close_all) {
  const int32_t num_seqs = length_of(seqlens, "seqlens");
  codeact::check(length_of(ages, "ages") == num_seqs, "ages must be as many as seqlens, got ",
                 ages.size(), " and ", num_seqs);
  const int32_t size = int32_from(1, capacity, "capacity");
  const int32_t carry = int32_from(0, max_carry, "max_carry");
  Array<int32_t> order(num_seqs);
  int32_t* const order_data = order.mutable_data();
  codeact::Window window;
  {
    py::gil_scoped_release release;
    window = codeact::pack_window(seqlens.data(), ages.data(), num_seqs, size, carry, close_all,
                                  order_data);
  }
  return py::make_tuple(std::move(order), wrap(std::move(window.offsets)), window.num_closed);
}

py::tuple pack_windows(const Array<int32_t>& seqlens, int64_t capacity, int64_t window,
                       int64_t tail) {
  const int32_t num_seqs = length_of(seqlens, "seqlens");
  const int32_t size = int32_from(1, capacity, "capacity");
  const int32_t window_size = int32_from(1, window, "window");
  const int32_t tail_size = int32_from(0, tail, "tail");
  Array<int32_t> order(num_seqs);
  int32_t* const order_data = order.mutable_data();
  codeact::HugeVector<int64_t> offsets;
  {
    py::gil_scoped_release release;
    offsets =
        codeact::pack_windows(seqlens.data(), num_seqs, size, window_size, tail_size, order_data);
  }
  return py::make_tuple(std::move(order), wrap(std::move(offsets)));
}

Array<int32_t> shuffled(int64_t num_items, uint64_t seed, uint64_t epoch) {
  const int32_t size = int32_from(0, num_items, "num_items");
  Array<int32_t> permutation(size);
  int32_t* const data = permutation.mutable_data();
  {
    py::gil_scoped_release release;
    codeact::shuffled(size, seed, epoch, data);
  }
  return permutation;
}

// `given`, or a new array, of `size` items; a given one is checked.
template <typename T>
Array<T> output(std::optional<Array<T>>& given, int64_t size, const char* name) {
  if (!given) return Array<T>(static_cast<py::ssize_t>(size));
  codeact::check(given->ndim() == 1 && given->size() == size, name, " must be 1-D with ", size,
                 " items, got ", given->ndim(), "-D with ", given->size());
  return *given;
}

template <typename T>
Array<int64_t> gather_tokens(const Array<T>& values, const Array<int64_t>& starts,
                             const Array<int64_t>& stops, std::optional<Array<int64_t>> out) {
  codeact::check(values.ndim() == 1, "values must be 1-D, got ", values.ndim(), "-D");
  const int32_t num_segments = length_of(starts, "starts");
  codeact::check(length_of(stops, "stops") == num_segments, "stops must be as many as starts, got ",
                 stops.size(), " and ", num_segments);
  const int64_t total =
      codeact::checked_total(starts.data(), stops.data(), num_segments, values.size());
  Array<int64_t> gathered = output(out, total, "out");
  int64_t* const data = gathered.mutable_data();
  {
    py::gil_scoped_release release;
    codeact::gather_tokens(values.data(), starts.data(), stops.data(), num_segments, data);
  }
  return gathered;
}

py::tuple pack_layout(const Array<int32_t>& seqlens, std::optional<Array<int64_t>> position_ids,
                      std::optional<Array<int32_t>> seq_idx,
                      std::optional<Array<int32_t>> cu_seqlens) {
  const int32_t num_seqs = length_of(seqlens, "seqlens");
  const int32_t num_tokens = codeact::checked_sum(seqlens.data(), num_seqs, kInt32Max);
  Array<int64_t> positions = output(position_ids, num_tokens, "position_ids");
  Array<int32_t> seqs = output(seq_idx, num_tokens, "seq_idx");
  Array<int32_t> sums = output(cu_seqlens, int64_t{num_seqs} + 1, "cu_seqlens");
  int64_t* const positions_data = positions.mutable_data();
  int32_t* const seqs_data = seqs.mutable_data();
  int32_t* const sums_data = sums.mutable_data();
  {
    py::gil_scoped_release release;
    codeact::pack_layout(seqlens.data(), num_seqs, positions_data, seqs_data, sums_data);
  }
  return py::make_tuple(std::move(positions), std::move(seqs), std::move(sums));
}

// One overload a dtype of `values`.
template <typename... Ts>
void def_gather_tokens(py::module_& m) {
  (m.def("gather_tokens", &gather_tokens<Ts>, py::arg("values").noconvert(),
         py::arg("starts").noconvert(), py::arg("stops").noconvert(),
         py::arg("out").noconvert() = py::none()),
   ...);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native parts of CodeACT; called by codeact.ops, which checks and documents them.";
  m.def("pack_best_fit", &pack_best_fit, py::arg("seqlens").noconvert(), py::arg("capacity"));
  m.def("pack_next_fit", &pack_next_fit, py::arg("seqlens").noconvert(), py::arg("capacity"));
  m.def("pack_window", &pack_window, py::arg("seqlens").noconvert(), py::arg("ages").noconvert(),
        py::arg("capacity"), py::arg("max_carry"), py::arg("close_all"));
  m.def("pack_windows", &pack_windows, py::arg("seqlens").noconvert(), py::arg("capacity"),
        py::arg("window"), py::arg("tail"));
  m.def("shuffled", &shuffled, py::arg("num_items"), py::arg("seed"), py::arg("epoch"));
  def_gather_tokens<int16_t, uint16_t, int32_t, uint32_t, int64_t>(m);
  m.def("pack_layout", &pack_layout, py::arg("seqlens").noconvert(),
        py::arg("position_ids").noconvert() = py::none(),
        py::arg("seq_idx").noconvert() = py::none(),
        py::arg("cu_seqlens").noconvert() = py::none());
  def_row_reductions(m);
  def_clustering(m);
  def_neighbours(m);
  def_text(m);
#ifdef CODEACT_WITH_CUDA
  m.attr("built_with_cuda") = true;
  def_cuda(m);
#else
  m.attr("built_with_cuda") = false;
  m.def("cuda_usable", [] { return false; });
#endif
}

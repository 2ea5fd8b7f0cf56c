// Python's face of csrc: shapes and dtypes in, the GIL out of the way, arrays back.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "packing.h"

#ifdef CODEACT_WITH_CUDA
#include "cuda/device.h"
#include "cuda/token_nll.h"
#endif

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

py::tuple pack_best_fit(const Array<int32_t>& seqlens, int64_t capacity) {
  codeact::check(seqlens.ndim() == 1, "seqlens must be 1-D, got ", seqlens.ndim(), "-D");
  codeact::check(seqlens.size() <= kInt32Max, "seqlens must hold at most ", kInt32Max,
                 " lengths, got ", seqlens.size());
  codeact::check(0 < capacity && capacity <= kInt32Max, "capacity must be from 1 to ", kInt32Max,
                 ", got ", capacity);
  Array<int32_t> order(seqlens.size());
  int32_t* const order_data = order.mutable_data();
  std::vector<int64_t> offsets;
  {
    py::gil_scoped_release release;
    offsets = codeact::pack_best_fit(seqlens.data(), static_cast<int32_t>(seqlens.size()),
                                     static_cast<int32_t>(capacity), order_data);
  }
  return py::make_tuple(std::move(order),
                        Array<int64_t>(static_cast<py::ssize_t>(offsets.size()), offsets.data()));
}

#ifdef CODEACT_WITH_CUDA

// A device address as Python has it: tensor.data_ptr(), stream.cuda_stream.
template <typename T>
T* at(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

codeact::cuda::DType dtype_named(const std::string& name) {
  if (name == "float32") return codeact::cuda::DType::kFloat32;
  if (name == "float16") return codeact::cuda::DType::kFloat16;
  codeact::check(name == "bfloat16", "dtype must be float32, float16 or bfloat16, got ", name);
  return codeact::cuda::DType::kBFloat16;
}

void token_nll(std::uintptr_t logits, std::uintptr_t targets, std::uintptr_t nll,
               int64_t num_tokens, int64_t vocab_size, int64_t logits_stride,
               const std::string& dtype, int64_t ignore_index, std::uintptr_t stream) {
  codeact::check(0 <= num_tokens && num_tokens <= kInt32Max, "num_tokens must be from 0 to ",
                 kInt32Max, ", got ", num_tokens);
  const codeact::cuda::DType logits_dtype = dtype_named(dtype);
  py::gil_scoped_release release;
  codeact::cuda::token_nll(at<void>(logits), at<int64_t>(targets), at<float>(nll), num_tokens,
                           vocab_size, logits_stride, logits_dtype, ignore_index, at<void>(stream));
}

constexpr bool kBuiltWithCuda = true;
bool cuda_usable() { return codeact::cuda::usable(); }

#else

constexpr bool kBuiltWithCuda = false;
bool cuda_usable() { return false; }

#endif

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native parts of CodeACT; called by codeact.ops, which checks and documents them.";
  m.attr("built_with_cuda") = kBuiltWithCuda;
  m.def("cuda_usable", &cuda_usable);
  m.def("pack_best_fit", &pack_best_fit, py::arg("seqlens").noconvert(), py::arg("capacity"));
#ifdef CODEACT_WITH_CUDA
  m.def("token_nll", &token_nll, py::arg("logits"), py::arg("targets"), py::arg("nll"),
        py::arg("num_tokens"), py::arg("vocab_size"), py::arg("logits_stride"), py::arg("dtype"),
        py::arg("ignore_index"), py::arg("stream"));
#endif
}

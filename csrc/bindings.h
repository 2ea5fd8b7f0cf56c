#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "check.h"
#include "dtype.h"

// What the files of bindings share.

// An address as Python has it: tensor.data_ptr(), stream.cuda_stream. 0 is null.
template <typename T>
T* at(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

inline codeact::DType dtype_named(const std::string& name) {
  if (name == "float32") return codeact::DType::kFloat32;
  if (name == "float16") return codeact::DType::kFloat16;
  codeact::check(name == "bfloat16", "dtype must be float32, float16 or bfloat16, got ", name);
  return codeact::DType::kBFloat16;
}

// Adds the row reductions to the module.
void def_row_reductions(pybind11::module_& m);

// Adds k-means.
void def_clustering(pybind11::module_& m);

// Adds nearest neighbours and spanning trees.
void def_neighbours(pybind11::module_& m);

// Adds the search for many strings at once.
void def_text(pybind11::module_& m);

// Adds what runs on a GPU; only in a build with CUDA.
void def_cuda(pybind11::module_& m);

#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace codeact::cuda {

// Throws std::runtime_error (RuntimeError in Python), as in
// "token_nll launch failed: no CUDA-capable device is detected".
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + " failed: " + cudaGetErrorString(status));
}

}  // namespace codeact::cuda

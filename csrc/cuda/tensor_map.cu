#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "cuda/cuda_check.h"
#include "cuda/tensor_map.h"

namespace codeact::cuda {
namespace {

// Out of the driver that is there: the module does not link libcuda.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                         cudaEnableDefault, &found),
        "cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess) {
    throw std::runtime_error("tensor maps need a driver of CUDA 12.0 or newer");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

}  // namespace

CUtensorMap bfloat16_map(const void* data, int64_t num_rows, int64_t num_columns, int64_t stride,
                         int box_rows, int box_columns) {
  constexpr int64_t kElementBytes = 2;
  if (reinterpret_cast<uintptr_t>(data) % 16 != 0 || stride * kElementBytes % 16 != 0) {
    throw std::invalid_argument("tensor maps need rows that start on multiples of 16 bytes");
  }
  CUtensorMap map;
  const cuuint64_t size[] = {static_cast<cuuint64_t>(num_columns),
                             static_cast<cuuint64_t>(num_rows)};
  const cuuint64_t stride_bytes[] = {static_cast<cuuint64_t>(stride * kElementBytes)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_columns),
                            static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t element_strides[] = {1, 1};
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = encoder();
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), size, stride_bytes,
             box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw std::runtime_error("cuTensorMapEncodeTiled failed: status " + std::to_string(status));
  }
  return map;
}

}  // namespace codeact::cuda

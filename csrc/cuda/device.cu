#include <cuda_runtime_api.h>

#include "cuda/device.h"

namespace codeact::cuda {

bool usable() noexcept {
  int driver = 0;
  int num_devices = 0;
  const bool works = cudaDriverGetVersion(&driver) == cudaSuccess &&
                     driver / 1000 >= CUDART_VERSION / 1000 &&
                     cudaGetDeviceCount(&num_devices) == cudaSuccess && num_devices > 0;
  cudaGetLastError();  // a failed question must not show up at the next launch
  return works;
}

}  // namespace codeact::cuda

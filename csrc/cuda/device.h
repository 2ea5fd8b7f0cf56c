#pragma once

namespace codeact::cuda {

// Whether a launch can work here: a driver of this CUDA series or a later one, and a device. The
// runtime is linked statically, so an older driver may serve PyTorch and still refuse us; minor
// versions of one series serve each other.
bool usable() noexcept;

}  // namespace codeact::cuda

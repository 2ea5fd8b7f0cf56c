#pragma once

namespace codeact {

// What a float in memory is; computed with as float32.
enum class DType { kFloat32, kFloat16, kBFloat16 };

}  // namespace codeact

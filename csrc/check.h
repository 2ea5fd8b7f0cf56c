#pragma once

#include <sstream>
#include <stdexcept>

namespace codeact {

// Throws std::invalid_argument (ValueError in Python) with the parts streamed into one line.
template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

}  // namespace codeact

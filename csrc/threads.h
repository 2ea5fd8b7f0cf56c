#pragma once

#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace codeact {

// Calls work() on num_threads threads, this one among them, and waits for all; on fewer where the
// machine gives no more. `work` takes its share from a counter that all see, so that those there
// are do everything. What one of them throws is thrown here, once all have ended.
template <typename Work>
void on_threads(int num_threads, Work work) {
  std::exception_ptr thrown;
  std::mutex throwing;
  const auto run = [&] {
    try {
      work();
    } catch (...) {
      const std::lock_guard<std::mutex> held(throwing);
      if (thrown == nullptr) thrown = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  if (num_threads > 1) others.reserve(num_threads - 1);
  try {
    while (static_cast<int>(others.size()) < num_threads - 1) others.emplace_back(run);
  } catch (const std::system_error&) {  // no more threads
  }
  run();
  for (std::thread& other : others) other.join();
  if (thrown != nullptr) std::rethrow_exception(thrown);
}

}  // namespace codeact

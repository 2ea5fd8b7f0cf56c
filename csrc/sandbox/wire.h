// Messages between the library and its launcher: a few byte strings, each after its length.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace codeact::sandbox {

// A message is a 4-byte length of all that follows, then fields of a 4-byte length and their
// bytes. Lengths are little-endian.
using Message = std::vector<std::string>;

// False at the end of input, and when the bytes are no message.
bool read_message(int fd, Message* message);

// False when the reader has gone.
bool write_message(int fd, const Message& message);

// "name value" lines. Numbers are whole; a name that is not there counts as `otherwise`.
class Settings {
 public:
  explicit Settings(const std::string& text);
  int64_t number(const std::string& name, int64_t otherwise) const;
  std::string text(const std::string& name) const;

 private:
  std::map<std::string, std::string> values_;
};

// Parts between separators; a separator at the end begins no further one.
std::vector<std::string> split(const std::string& text, char separator);

// Writes everything, whatever interrupts. False when it cannot.
bool write_all(int fd, const char* bytes, size_t size);

}  // namespace codeact::sandbox

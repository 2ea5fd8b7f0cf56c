#include "sandbox/wire.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace codeact::sandbox {
namespace {

bool read_all(int fd, char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t count = read(fd, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

uint32_t length_at(const char* bytes) {
  const auto* octets = reinterpret_cast<const unsigned char*>(bytes);
  return octets[0] | octets[1] << 8 | octets[2] << 16 | static_cast<uint32_t>(octets[3]) << 24;
}

std::string length_bytes(size_t length) {
  std::string bytes(4, '\0');
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<char>(length >> (8 * i) & 0xff);
  return bytes;
}

}  // namespace

bool write_all(int fd, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t count = write(fd, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

bool read_message(int fd, Message* message) {
  char prefix[4];
  if (!read_all(fd, prefix, 4)) return false;
  std::string body(length_at(prefix), '\0');
  if (!read_all(fd, body.data(), body.size())) return false;
  message->clear();
  for (size_t at = 0; at < body.size();) {
    if (body.size() - at < 4) return false;
    const size_t length = length_at(&body[at]);
    at += 4;
    if (body.size() - at < length) return false;
    message->push_back(body.substr(at, length));
    at += length;
  }
  return true;
}

bool write_message(int fd, const Message& message) {
  std::string body;
  for (const std::string& field : message) body += length_bytes(field.size()) + field;
  const std::string prefix = length_bytes(body.size());
  return write_all(fd, prefix.data(), prefix.size()) && write_all(fd, body.data(), body.size());
}

Settings::Settings(const std::string& text) {
  for (const std::string& line : split(text, '\n')) {
    const size_t space = line.find(' ');
    if (space != std::string::npos) values_[line.substr(0, space)] = line.substr(space + 1);
  }
}

int64_t Settings::number(const std::string& name, int64_t otherwise) const {
  const auto found = values_.find(name);
  return found == values_.end() ? otherwise : std::strtoll(found->second.c_str(), nullptr, 10);
}

std::string Settings::text(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? "" : found->second;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

}  // namespace codeact::sandbox

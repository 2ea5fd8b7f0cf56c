#include "sandbox/pipes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "sandbox/wire.h"

namespace codeact::sandbox {
namespace {

constexpr int kParking = 512;  // ends wait up here until they take their numbers in the child
constexpr size_t kChunk = 1 << 16;

int park(int fd) {
  const int parked = fcntl(fd, F_DUPFD_CLOEXEC, kParking);
  close(fd);
  return parked;
}

uint32_t frame_length(const std::string& bytes, size_t at) {
  uint32_t length = 0;
  for (int i = 3; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(bytes[at + i]);
  return length;
}

}  // namespace

Pipe::Pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return;
  read_end = park(ends[0]);
  write_end = park(ends[1]);
}

Pipe::~Pipe() {
  close_end(&read_end);
  close_end(&write_end);
}

void Pipe::close_end(int* end) {
  if (*end >= 0) close(*end);
  *end = -1;
}

int memory_file(const std::string& content) {
  const int written =
      static_cast<int>(syscall(SYS_memfd_create, "input", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  write_all(written, content.data(), content.size());
  // Else the candidate could open it again for writing: memory that no limit of ours sees.
  fcntl(written, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", written);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  close(written);
  return park(fd);
}

bool Output::take() {
  char chunk[kChunk];
  const ssize_t count = read(pipe.read_end, chunk, sizeof chunk);
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  if (count <= 0) {
    Pipe::close_end(&pipe.read_end);
    return false;
  }
  bytes.append(chunk, static_cast<size_t>(count));
  if (bytes.size() > cap) {
    bytes.resize(cap);
    over = true;
  }
  return true;
}

void Output::take_the_rest() {
  if (pipe.read_end < 0) return;
  fcntl(pipe.read_end, F_SETFL, O_NONBLOCK);
  for (size_t before = bytes.size() + 1; !over && before != bytes.size();) {
    before = bytes.size();
    if (!take()) break;
  }
}

void FrameCounter::walk(const std::string& bytes) {
  while (bytes.size() - at >= 4) {
    const size_t end = at + 4 + frame_length(bytes, at);
    if (end > bytes.size()) return;
    at = end;
    ++count;
  }
}

Feeder::Feeder(const std::string& frames, Pipe* pipe) : frames_(frames), pipe_(pipe) {
  fcntl(pipe_->write_end, F_SETFL, O_NONBLOCK);
  for (size_t end = 0; frames_.size() - end >= 4;) {
    end = std::min(end + 4 + frame_length(frames_, end), frames_.size());
    ends_.push_back(end);
  }
  answered(0);
}

void Feeder::answered(int64_t frames) {
  const size_t open = std::min(static_cast<size_t>(frames) + 1, ends_.size());
  open_ = open == 0 ? 0 : ends_[open - 1];
  if (open_ == sent_ && sent_ == frames_.size()) Pipe::close_end(&pipe_->write_end);
}

void Feeder::send() {
  const ssize_t count = write(pipe_->write_end, frames_.data() + sent_, open_ - sent_);
  if (count > 0) sent_ += static_cast<size_t>(count);
  const bool is_gone = count < 0 && errno != EAGAIN && errno != EINTR;
  if (is_gone || sent_ == frames_.size()) Pipe::close_end(&pipe_->write_end);
}

}  // namespace codeact::sandbox

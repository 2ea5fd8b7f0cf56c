// The ends of a candidate's pipes, as the launcher holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace codeact::sandbox {

// Both ends of a pipe, close-on-exec, with high numbers: the low ones are the candidate's.
struct Pipe {
  int read_end = -1, write_end = -1;

  Pipe();
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe();
  static void close_end(int* end);
};

// A file in memory with this content, open for reading at its start, numbered like the pipes.
int memory_file(const std::string& content);

// What the candidate writes to one descriptor, up to a cap.
struct Output {
  Pipe pipe;
  std::string bytes;
  size_t cap = 0;
  bool over = false;

  // Reads what is there, waiting when there is nothing. False at the end.
  bool take();
  // Reads what is left when nobody writes any more, without waiting.
  void take_the_rest();
};

// How far whole frames reach in bytes that grow. A frame is 4 bytes of length and a payload.
struct FrameCounter {
  size_t at = 0;
  int64_t count = 0;

  void walk(const std::string& bytes);
};

// Frames to the candidate: the first at once, each other when the one before it is answered.
class Feeder {
 public:
  Feeder(const std::string& frames, Pipe* pipe);
  void answered(int64_t frames);
  bool has_more() const { return pipe_->write_end >= 0 && sent_ < open_; }
  void send();

 private:
  const std::string& frames_;
  Pipe* pipe_;
  std::vector<size_t> ends_;  // of each frame
  size_t open_ = 0, sent_ = 0;
};

}  // namespace codeact::sandbox

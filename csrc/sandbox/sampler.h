// Memory of a running process, read along its own CPU time and along wall time.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <string>

namespace codeact::sandbox {

int64_t now_ns();  // of a clock that only goes forward
int64_t nanoseconds(const timespec& time);

// An open statm of a process in /proc, and the resident memory that it tells: 0 when the process is
// gone.
int open_statm(const std::string& pid);
int64_t resident_bytes(int statm);

// CPU time of the children that a process has waited for, in the kernel's ticks of 10 ms; its own
// clock does not count them.
int64_t waited_cpu_ns(const std::string& pid);

class Sampler {
 public:
  explicit Sampler(pid_t pid);
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  ~Sampler();

  int64_t cpu_ns() const;  // of all its threads so far
  int64_t resident() const { return resident_bytes(statm_); }
  int64_t elapsed_ns() const { return now_ns() - start_ns_; }

  // One reading; then, at the end, what was used since the last one.
  void sample();
  void finish(int64_t cpu_ns) { advance(last_bytes_, cpu_ns, now_ns()); }

  // Integrals by trapezoids; before the first reading, its height.
  int64_t samples() const { return samples_; }
  double byte_seconds() const { return byte_ns_ / 1e9; }
  double byte_wall_seconds() const { return byte_wall_ns_ / 1e9; }

 private:
  void advance(int64_t bytes, int64_t cpu_ns, int64_t wall_ns);

  int statm_;
  clockid_t clock_{};
  bool has_clock_;
  int64_t start_ns_, last_wall_ns_, last_cpu_ns_ = 0, last_bytes_ = 0, samples_ = 0;
  double byte_ns_ = 0, byte_wall_ns_ = 0;
};

}  // namespace codeact::sandbox

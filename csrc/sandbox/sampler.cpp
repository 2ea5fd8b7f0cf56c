#include "sandbox/sampler.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace codeact::sandbox {

int64_t nanoseconds(const timespec& time) { return time.tv_sec * 1'000'000'000LL + time.tv_nsec; }

int64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return nanoseconds(time);
}

int open_statm(const std::string& pid) {
  return open(("/proc/" + pid + "/statm").c_str(), O_RDONLY | O_CLOEXEC);
}

int64_t resident_bytes(int statm) {
  char text[128];
  const ssize_t count = pread(statm, text, sizeof text - 1, 0);
  if (count <= 0) return 0;
  text[count] = '\0';
  long long total = 0, resident = 0;
  std::sscanf(text, "%lld %lld", &total, &resident);
  static const int64_t page = sysconf(_SC_PAGESIZE);
  return resident * page;
}

int64_t waited_cpu_ns(const std::string& pid) {
  const int stat = open(("/proc/" + pid + "/stat").c_str(), O_RDONLY | O_CLOEXEC);
  if (stat < 0) return 0;
  char text[1024];
  const ssize_t count = read(stat, text, sizeof text - 1);
  close(stat);
  text[std::max<ssize_t>(count, 0)] = '\0';
  const char* after_name = std::strrchr(text, ')');  // the name may hold anything
  long long user = 0, system = 0;
  if (after_name != nullptr) {
    // Fields 3 to 15 of proc_pid_stat(5), then cutime and cstime.
    std::sscanf(after_name + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lld %lld",
                &user, &system);
  }
  static const int64_t ticks = sysconf(_SC_CLK_TCK);
  return (user + system) * (1'000'000'000 / ticks);
}

Sampler::Sampler(pid_t pid)
    : statm_(open_statm(std::to_string(pid))), start_ns_(now_ns()), last_wall_ns_(start_ns_) {
  // The clock of another process: exact, all threads, one cheap call. /proc has it in ticks only.
  has_clock_ = clock_getcpuclockid(pid, &clock_) == 0;
}

Sampler::~Sampler() { close(statm_); }

int64_t Sampler::cpu_ns() const {
  timespec time;
  return has_clock_ && clock_gettime(clock_, &time) == 0 ? nanoseconds(time) : last_cpu_ns_;
}

void Sampler::sample() {
  const int64_t bytes = resident();
  if (bytes == 0) return;  // it has just ended
  advance(bytes, cpu_ns(), now_ns());
  ++samples_;
}

void Sampler::advance(int64_t bytes, int64_t cpu_ns, int64_t wall_ns) {
  const double height = samples_ == 0 ? bytes : (bytes + last_bytes_) / 2.0;
  byte_ns_ += height * static_cast<double>(std::max<int64_t>(0, cpu_ns - last_cpu_ns_));
  byte_wall_ns_ += height * static_cast<double>(wall_ns - last_wall_ns_);
  last_bytes_ = bytes;
  last_cpu_ns_ = std::max(cpu_ns, last_cpu_ns_);
  last_wall_ns_ = wall_ns;
}

}  // namespace codeact::sandbox

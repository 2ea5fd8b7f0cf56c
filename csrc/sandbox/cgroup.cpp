#include "sandbox/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

namespace codeact::sandbox {
namespace {

constexpr int kRemovalMs = 2000;  // an inode bomb of 300 MB took 0.8 s to be reaped

bool write_file(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t written = write(fd, text.data(), text.size());
  const int error = errno;
  close(fd);
  errno = error;
  return written == static_cast<ssize_t>(text.size());
}

std::string read_file(const std::string& path) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[4096];
  for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, got);
  close(fd);
  return text;
}

int64_t read_number(const std::string& path) {
  const std::string text = read_file(path);
  return text.empty() ? -1 : strtoll(text.c_str(), nullptr, 10);
}

// Of the line "key number" in a file of such lines.
int64_t read_entry(const std::string& path, const std::string& key) {
  const std::string text = "\n" + read_file(path);
  const size_t at = text.find("\n" + key + " ");
  if (at == std::string::npos) return -1;
  return strtoll(text.c_str() + at + key.size() + 2, nullptr, 10);
}

void kill_listed(const std::string& procs) {
  const std::string text = read_file(procs);
  const char* at = text.c_str();
  while (*at != '\0') {
    char* end = nullptr;
    const long pid = strtol(at, &end, 10);
    if (end == at) break;
    // 0 is a process of another pid namespace: as a target it would mean this very group.
    if (pid > 1) ::kill(static_cast<pid_t>(pid), SIGKILL);
    at = *end == '\n' ? end + 1 : end;
  }
}

}  // namespace

RunCgroup::RunCgroup(const CgroupBases& bases, const std::string& name, int64_t memory_bytes,
                     int64_t pids) {
  add(bases.memory, name, &memory_);
  add(bases.pids, name, &pids_);
  add(bases.cpuacct, name, &cpuacct_);
  add(bases.unified, name, &unified_);
  if (!memory_.empty()) {
    limit(memory_, "memory.limit_in_bytes", memory_bytes);
    // Memory and swap together; a kernel without swap accounting has no such file.
    limit(memory_, "memory.memsw.limit_in_bytes", memory_bytes, false);
  }
  if (!pids_.empty()) limit(pids_, "pids.max", pids);
  if (!unified_.empty()) {
    limit(unified_, "memory.max", memory_bytes);
    limit(unified_, "memory.swap.max", 0, false);
    limit(unified_, "pids.max", pids);
  }
}

RunCgroup::~RunCgroup() {
  int waited_ms = 0;
  for (int pause_ms = 1; !folders_.empty(); pause_ms = pause_ms < 16 ? 2 * pause_ms : 16) {
    while (!folders_.empty()) {
      if (rmdir(folders_.back().path.c_str()) != 0 && errno != ENOENT) break;
      folders_.pop_back();
    }
    if (folders_.empty() || waited_ms >= kRemovalMs) return;
    for (const Folder& folder : folders_) kill_listed(folder.procs);
    const timespec pause = {0, pause_ms * 1000000L};
    nanosleep(&pause, nullptr);
    waited_ms += pause_ms;
  }
}

void RunCgroup::add(const std::string& base, const std::string& name, std::string* folder) {
  if (base.empty() || !ok()) return;
  const std::string path = base + "/" + name;
  // A folder that is there already may hold another run's processes: not ours to take.
  if (mkdir(path.c_str(), 0755) != 0) {
    error_ = "mkdir " + path + ": " + strerror(errno);
    return;
  }
  *folder = path;
  folders_.push_back({path, path + "/cgroup.procs"});
}

void RunCgroup::limit(const std::string& folder, const char* file, int64_t value, bool required) {
  const std::string path = folder + "/" + file;
  if (!ok() || value <= 0 || write_file(path, std::to_string(value))) return;
  if (required || errno != ENOENT) {
    error_ = "write " + std::to_string(value) + " to " + path + ": " + strerror(errno);
  }
}

bool RunCgroup::join_self() const {
  for (const Folder& folder : folders_) {
    const int fd = open(folder.procs.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool joined = write(fd, "0", 1) == 1;  // 0 is the process that writes
    const int error = errno;
    close(fd);
    errno = error;
    if (!joined) return false;
  }
  return true;
}

CgroupUsage RunCgroup::read() const {
  CgroupUsage usage;
  if (!unified_.empty()) {
    const int64_t cpu_us = read_entry(unified_ + "/cpu.stat", "usage_usec");
    if (cpu_us >= 0) usage.cpu_ns = cpu_us * 1000;
    usage.peak_bytes = read_number(unified_ + "/memory.peak");  // Linux 5.19
    usage.oom_kills = read_entry(unified_ + "/memory.events", "oom_kill");
  }
  if (!cpuacct_.empty()) usage.cpu_ns = read_number(cpuacct_ + "/cpuacct.usage");
  if (!memory_.empty()) {
    usage.peak_bytes = read_number(memory_ + "/memory.max_usage_in_bytes");
    usage.oom_kills = read_entry(memory_ + "/memory.oom_control", "oom_kill");
  }
  return usage;
}

void RunCgroup::kill() const {
  if (!unified_.empty() && write_file(unified_ + "/cgroup.kill", "1")) return;  // Linux 5.14
  // Without it a fork could run ahead of the list: first let nothing new start.
  if (!pids_.empty()) write_file(pids_ + "/pids.max", "0");
  if (!unified_.empty()) write_file(unified_ + "/pids.max", "0");
  for (const Folder& folder : folders_) kill_listed(folder.procs);
}

}  // namespace codeact::sandbox

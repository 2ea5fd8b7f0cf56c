#include "sandbox/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <new>

#include "sandbox/cgroup.h"

extern char** environ;

namespace codeact::sandbox {
namespace {

constexpr int kHour = 3600;

int64_t number(const std::vector<std::string>& words) {
  return words.size() > 1 ? strtoll(words[1].c_str(), nullptr, 10) : 0;
}

void say(const char* what, const std::string& which) {
  printf("%s %s\n", what, which.c_str());
  fflush(stdout);
}

void show_environment() {
  for (char** variable = environ; *variable != nullptr; ++variable) say("variable", *variable);
}

bool connects(int type, const sockaddr* address, socklen_t size) {
  const int fd = socket(address->sa_family, type | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool connected = connect(fd, address, size) == 0;
  close(fd);
  return connected;
}

void try_network(const std::vector<std::string>& words) {
  sockaddr_in here{};
  here.sin_family = AF_INET;
  here.sin_port = htons(static_cast<uint16_t>(number(words)));
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connects(SOCK_STREAM, reinterpret_cast<sockaddr*>(&here), sizeof here)) {
    say("reached", "a TCP port of this machine");
  }
  sockaddr_un abstract{};
  abstract.sun_family = AF_UNIX;
  const std::string name = words.size() > 2 ? words[2] : "";
  const size_t length = name.size() < sizeof abstract.sun_path ? name.size() : 0;
  memcpy(abstract.sun_path + 1, name.data(), length);
  const size_t size = offsetof(sockaddr_un, sun_path) + 1 + length;
  if (connects(SOCK_STREAM, reinterpret_cast<sockaddr*>(&abstract), static_cast<socklen_t>(size))) {
    say("reached", "an abstract Unix socket of this machine");
  }
  // An address for documentation (RFC 5737). Connecting a datagram socket only asks for a route.
  sockaddr_in far = here;
  inet_pton(AF_INET, "192.0.2.1", &far.sin_addr);
  if (connects(SOCK_DGRAM, reinterpret_cast<sockaddr*>(&far), sizeof far)) {
    say("reached", "a route to other machines");
  }
}

void try_reading(const std::vector<std::string>& words) {
  for (size_t i = 1; i < words.size(); ++i) {
    const int fd = open(words[i].c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) continue;
    say("read", words[i]);
    close(fd);
  }
}

void try_writing(const std::vector<std::string>& words) {
  for (size_t i = 1; i < words.size(); ++i) {
    struct stat status;
    std::string path = words[i];
    const bool is_folder = stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
    if (is_folder) path += "/codeact-probe-" + std::to_string(getpid());
    const int flags = is_folder ? O_CREAT | O_EXCL : 0;
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0600);
    if (fd < 0) continue;
    say("wrote", words[i]);
    close(fd);
    if (is_folder) unlink(path.c_str());
  }
}

void leave_orphan() {
  const pid_t child = fork();
  if (child < 0) {
    say("fork", strerror(errno));
    return;
  }
  if (child > 0) {
    waitpid(child, nullptr, 0);
    return;
  }
  setsid();
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  if (fork() != 0) _exit(0);
  sleep(kHour);
  _exit(0);
}

// Doubling, as a bomb does, but counted in memory that all share: without a limit it ends.
void start_many(int64_t count) {
  void* memory = mmap(nullptr, sizeof(std::atomic<int64_t>), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  auto* started = new (memory) std::atomic<int64_t>(0);
  const pid_t first = getpid();
  while (started->fetch_add(1) < count) {
    if (fork() >= 0) continue;
    started->fetch_sub(1);
    break;
  }
  if (getpid() != first) {
    sleep(kHour);
    _exit(0);
  }
  // The others have until here to run into the limit: ending now would end them too early.
  const timespec pause{0, 50'000'000};
  nanosleep(&pause, nullptr);
  const int64_t number = started->load();
  say("started", std::to_string(number < count ? number : count));
}

int64_t cpu_us() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return time.tv_sec * 1'000'000LL + time.tv_nsec / 1000;
}

int64_t burn(int64_t microseconds) {
  volatile uint64_t state = 1;
  const int64_t start = cpu_us();
  while (cpu_us() - start < microseconds) {
    for (int i = 0; i < 1000; ++i) state = state * 6364136223846793005ULL + 1;
  }
  return cpu_us() - start;
}

bool touch(int64_t bytes) {
  void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  memset(memory, 1, static_cast<size_t>(bytes));
  return true;
}

void print_forever() {
  char line[4096];
  memset(line, 'x', sizeof line);
  while (write(STDOUT_FILENO, line, sizeof line) > 0) {
  }
}

void try_tracing() {
  const pid_t parent = getppid();
  if (parent > 0 && ptrace(PTRACE_SEIZE, parent, nullptr, nullptr) == 0) say("traced", "parent");
  const pid_t child = fork();
  if (child == 0) {
    sleep(kHour);
    _exit(0);
  }
  if (child < 0) return;
  if (ptrace(PTRACE_SEIZE, child, nullptr, nullptr) == 0) say("traced", "child");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// In the group: uses `bytes` and `burn_us`, then counts how many children it may have at once.
int use_group(int64_t bytes, int64_t burn_us, int most) {
  if (!touch(bytes)) return 0;
  burn(burn_us);
  int started = 0;
  for (; started < most; ++started) {
    const pid_t child = fork();
    if (child < 0) break;
    if (child > 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sleep(kHour);
    _exit(0);
  }
  return started;  // those left are killed with the group
}

// Empty when a process in the group is counted and bound, else what is wrong.
std::string try_group(const CgroupBases& bases) {
  constexpr int64_t kLimit = 64 << 20, kUsed = 8 << 20, kBurnUs = 5000;
  constexpr int kProcesses = 4;
  const std::string name = "codeact-" + std::to_string(getpid()) + "-probe";
  const RunCgroup group(bases, name, kLimit, kProcesses);
  if (!group.ok()) return group.error();
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return "pipe failed";
  const pid_t child = fork();
  if (child < 0) return "fork failed";
  if (child == 0) {
    if (!group.join_self()) {
      dprintf(report[1], "the group takes no process: %s", strerror(errno));
      _exit(0);
    }
    const int started = use_group(kUsed, kBurnUs, 2 * kProcesses);
    if (started != kProcesses - 1)
      dprintf(report[1], "of %d processes %d", kProcesses, started + 1);
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  close(report[1]);
  fcntl(report[0], F_SETFL, O_NONBLOCK);  // children left in the group hold the other end
  char text[256];
  const ssize_t count = read(report[0], text, sizeof text);
  close(report[0]);
  if (count > 0) return std::string(text, static_cast<size_t>(count));
  const CgroupUsage usage = group.read();
  const bool counts_cpu = !bases.cpuacct.empty() || !bases.unified.empty();
  if (counts_cpu && usage.cpu_ns < kBurnUs * 1000) {
    return "CPU time is not counted: " + std::to_string(usage.cpu_ns) + " ns";
  }
  if (usage.peak_bytes >= 0 && usage.peak_bytes < kUsed) {  // memory.peak is not there before 5.19
    return "memory is not counted: " + std::to_string(usage.peak_bytes) + " bytes";
  }
  return "";
}

int try_cgroup(const std::vector<std::string>& words) {
  CgroupBases bases;
  for (size_t i = 1; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    if (equals == std::string::npos) continue;
    const std::string name = words[i].substr(0, equals), folder = words[i].substr(equals + 1);
    if (name == "memory") bases.memory = folder;
    if (name == "pids") bases.pids = folder;
    if (name == "cpuacct") bases.cpuacct = folder;
    if (name == "unified") bases.unified = folder;
  }
  const std::string wrong = bases.any() ? try_group(bases) : "no folder";
  printf("%s\n", wrong.empty() ? "ok" : wrong.c_str());
  return 0;
}

}  // namespace

int run_probe(const std::vector<std::string>& words) {
  const std::string name = words.empty() ? "" : words[0];
  if (name == "cgroup") return try_cgroup(words);
  if (name == "environment") {
    show_environment();
  } else if (name == "network") {
    try_network(words);
  } else if (name == "read") {
    try_reading(words);
  } else if (name == "write") {
    try_writing(words);
  } else if (name == "orphan") {
    leave_orphan();
  } else if (name == "fork") {
    start_many(number(words));
  } else if (name == "burn") {
    say("burned", std::to_string(burn(number(words) * 1000)));
  } else if (name == "allocate") {
    if (!touch(number(words))) say("allocate", strerror(errno));
  } else if (name == "print") {
    print_forever();
  } else if (name == "sleep") {
    sleep(kHour);
  } else if (name == "trace") {
    try_tracing();
  } else if (name != "nothing") {
    fprintf(stderr, "no probe %s\n", name.c_str());
    return 2;
  }
  return 0;
}

}  // namespace codeact::sandbox

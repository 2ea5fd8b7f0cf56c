#include "sandbox/init.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sandbox/children.h"
#include "sandbox/external.h"
#include "sandbox/sampler.h"
#include "sandbox/seccomp.h"
#include "sandbox/wire.h"

namespace codeact::sandbox {
namespace {

constexpr int64_t kWatchNs = 5'000'000;  // between two looks at the limits
constexpr int kPidfdOpen = 434;

int64_t microseconds(const timeval& time) { return time.tv_sec * 1'000'000LL + time.tv_usec; }

// Of every process of the sandbox that has ended.
struct Usage {
  int64_t user_us = 0, system_us = 0, peak_bytes = 0;

  void add(const rusage& used) {
    user_us += microseconds(used.ru_utime);
    system_us += microseconds(used.ru_stime);
    peak_bytes = std::max<int64_t>(peak_bytes, used.ru_maxrss * 1024LL);
  }
};

// Of all processes that are running, but init, with the children that they have waited for. In
// here, /proc shows the sandbox alone.
struct Running {
  int64_t bytes = 0, cpu_ns = 0;
};

Running look_at_all(bool with_memory, bool with_children) {
  Running sum;
  DIR* processes = opendir("/proc");
  if (processes == nullptr) return sum;
  while (const dirent* entry = readdir(processes)) {
    const auto pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (pid <= 1) continue;
    clockid_t clock;
    timespec time;
    if (clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &time) == 0) {
      sum.cpu_ns += nanoseconds(time);
    }
    if (with_children) sum.cpu_ns += waited_cpu_ns(entry->d_name);
    const int statm = with_memory ? open_statm(entry->d_name) : -1;
    if (statm < 0) continue;
    sum.bytes += resident_bytes(statm);
    close(statm);
  }
  closedir(processes);
  return sum;
}

void limit(int resource, int64_t value) {
  if (value <= 0) return;
  const rlimit both{static_cast<rlim_t>(value), static_cast<rlim_t>(value)};
  setrlimit(static_cast<__rlimit_resource>(resource), &both);
}

void stay_on(int core, bool only_it) {
  cpu_set_t cores;
  if (core < 0 || sched_getaffinity(0, sizeof cores, &cores) != 0) return;
  if (only_it) {
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
  } else {
    CPU_CLR(core, &cores);
  }
  sched_setaffinity(0, sizeof cores, &cores);  // refused when nothing is left: then anywhere
}

[[noreturn]] void give_up(const char* what) {
  const std::string text =
      std::string("outcome failed\nreason ") + what + ": " + std::strerror(errno) + "\nend\n";
  write_all(kStatus, text.data(), text.size());
  _exit(127);
}

[[noreturn]] void become_command(const Settings& settings, const std::vector<std::string>& words) {
  stay_on(static_cast<int>(settings.number("core", -1)), true);
  // A second above the limit that init holds: without namespaces it looks at no children.
  limit(RLIMIT_CPU, (settings.number("cpu_ms", 0) + 999) / 1000 + 1);
  limit(RLIMIT_AS, settings.number("as_bytes", 0));
  limit(RLIMIT_FSIZE, settings.number("file_bytes", 0));
  limit(RLIMIT_NPROC, settings.number("processes", 0));
  limit(RLIMIT_STACK, settings.number("stack_bytes", 0));
  limit(RLIMIT_NOFILE, settings.number("open_files", 0));
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  std::vector<char*> command;
  for (const std::string& word : words) command.push_back(const_cast<char*>(word.c_str()));
  command.push_back(nullptr);
  for (const int ignored : {SIGPIPE, SIGINT}) signal(ignored, SIG_DFL);
  const std::string box = settings.text("box");
  std::string error;
  if (!box.empty()) {  // no namespaces around us
    if (chdir(box.c_str()) != 0) give_up(box.c_str());
    if (!restrict_to(box, split(settings.text("readable"), ':'), &error)) give_up(error.c_str());
    if (!refuse_sockets()) give_up("sockets");
  }
  // From here on the command could be watched by nobody but init, which it cannot touch.
  if (!filter_system_calls(settings.number("single_process", 0) != 0)) give_up("seccomp");
  execvp(command[0], command.data());
  give_up(command[0]);
}

// The limit that is passed, nullptr for none. `ended`: of processes that are no more.
const char* over_limit(const Settings& settings, const Sampler& sampler, const Usage& ended) {
  constexpr int64_t kNever = INT64_MAX / 2'000'000;
  if (sampler.elapsed_ns() > settings.number("wall_ms", kNever) * 1'000'000) return "wall_limit";
  const int64_t memory = settings.number("memory_bytes", 0);  // 0: a control group holds it
  const bool has_children = settings.number("single_process", 0) == 0;
  const bool alone = getpid() != 1;  // without a /proc of our own
  const Running running =
      alone ? Running{sampler.resident(), sampler.cpu_ns()} : look_at_all(memory > 0, has_children);
  const int64_t cpu_ns = running.cpu_ns + (ended.user_us + ended.system_us) * 1000;
  if (cpu_ns > settings.number("cpu_ms", kNever) * 1'000'000) return "cpu_limit";
  return memory > 0 && running.bytes > memory ? "memory_limit" : nullptr;
}

// Every process in here but init itself. Outside a namespace of our own, where -1 would mean the
// whole machine, the children of init: as a subreaper it inherits whatever they leave.
void kill_all() {
  if (getpid() == 1) {
    kill(-1, SIGKILL);
    return;
  }
  kill_children();
}

// Takes in every process that has ended; true when `pid` is one of them.
bool collect(pid_t pid, int flags, int* status, Usage* usage) {
  bool found = false;
  rusage used;
  int its_status;
  for (pid_t ended; (ended = wait4(-1, &its_status, flags, &used)) != 0;) {
    if (ended < 0 && errno == EINTR) continue;
    if (ended < 0) break;
    usage->add(used);
    if (ended == pid) {
      *status = its_status;
      found = true;
    }
  }
  return found;
}

}  // namespace

int run_init(const std::vector<std::string>& arguments) {
  // Same user as the candidate: without this it could open /proc/1/mem and /proc/1/fd.
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (getpid() != 1) setsid();  // kill(0) of the candidate must not reach the launcher
  std::string text;
  size_t at = 0;
  for (; at < arguments.size() && arguments[at] != "--"; ++at) {
    std::string line = arguments[at];
    const size_t equals = line.find('=');
    if (equals != std::string::npos) line[equals] = ' ';
    text += line + "\n";
  }
  if (at + 1 >= arguments.size()) give_up("no command");
  const Settings settings(text);
  const std::vector<std::string> words(arguments.begin() + static_cast<long>(at) + 1,
                                       arguments.end());
  fcntl(kStatus, F_SETFD, FD_CLOEXEC);
  syscall(SYS_close_range, kStatus + 1, ~0U, 0);

  const pid_t pid = fork();
  if (pid < 0) give_up("fork");
  if (pid == 0) become_command(settings, words);
  for (int fd = 0; fd <= kFramesOut; ++fd) close(fd);
  stay_on(static_cast<int>(settings.number("core", -1)), false);

  Sampler sampler(pid);
  Usage usage;
  const char* stopped = nullptr;
  int status = 0;
  const int64_t sample_ns = settings.number("sample_us", 0) * 1000;
  const int64_t step_ns = sample_ns > 0 ? std::min(sample_ns, kWatchNs) : kWatchNs;
  int64_t watched_ns = now_ns(), sampled_ns = watched_ns;
  pollfd ended{static_cast<int>(syscall(kPidfdOpen, pid, 0)), POLLIN, 0};
  while (!collect(pid, WNOHANG, &status, &usage)) {
    const timespec step{0, static_cast<long>(step_ns)};
    ppoll(&ended, 1, &step, nullptr);
    const int64_t now = now_ns();
    if (sample_ns > 0 && now - sampled_ns >= sample_ns / 2) {
      sampler.sample();
      sampled_ns = now;
    }
    if (stopped == nullptr && now - watched_ns >= kWatchNs) {
      stopped = over_limit(settings, sampler, usage);
      watched_ns = now;
      if (stopped != nullptr) kill_all();
    }
  }
  const int64_t wall_ns = sampler.elapsed_ns();
  sampler.finish((usage.user_us + usage.system_us) * 1000);
  int ignored = 0;
  siginfo_t left;
  // In a namespace one round ends all; outside, orphans of the killed come in round by round.
  while (waitid(P_ALL, 0, &left, WEXITED | WNOHANG | WNOWAIT) == 0) {
    kill_all();
    usleep(getpid() == 1 ? 0 : 500);
    collect(-1, getpid() == 1 ? 0 : WNOHANG, &ignored, &usage);
  }

  const bool exited = WIFEXITED(status);
  const int code = exited ? WEXITSTATUS(status) : WTERMSIG(status);
  const char* outcome = exited ? "exited" : code == SIGXCPU ? "cpu_limit" : "signalled";
  char line[512];
  const int size = std::snprintf(
      line, sizeof line,
      "outcome %s\ncode %d\nuser_us %lld\nsystem_us %lld\nwall_us %lld\npeak_bytes %lld\n"
      "byte_seconds %.9g\nbyte_wall_seconds %.9g\nsamples %lld\nend\n",
      stopped != nullptr ? stopped : outcome, code, static_cast<long long>(usage.user_us),
      static_cast<long long>(usage.system_us), static_cast<long long>(wall_ns / 1000),
      static_cast<long long>(usage.peak_bytes), sampler.byte_seconds(), sampler.byte_wall_seconds(),
      static_cast<long long>(sampler.samples()));
  write_all(kStatus, line, static_cast<size_t>(size));
  return 0;
}

}  // namespace codeact::sandbox

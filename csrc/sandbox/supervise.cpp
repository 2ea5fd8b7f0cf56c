#include "sandbox/supervise.h"

#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <memory>
#include <utility>

#include "sandbox/children.h"
#include "sandbox/init.h"
#include "sandbox/pipes.h"

namespace codeact::sandbox {
namespace {

constexpr size_t kStatusCap = 1 << 16;

int64_t now_ms() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000LL + time.tv_nsec / 1'000'000;
}

// Runs bwrap, or init itself, in the forked child.
[[noreturn]] void become_sandbox(const Place& place, const Request& request,
                                 const RunCgroup* cgroup,
                                 const std::vector<std::pair<int, int>>& ends) {
  if (cgroup != nullptr && !cgroup->join_self()) {
    std::perror("cgroup");
    _exit(126);
  }
  for (const auto& [parked, number] : ends) dup2(parked, number);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (place.uid >= 0) {
    const auto id = static_cast<uid_t>(place.uid);
    if (setgroups(0, nullptr) != 0 || setresgid(id, id, id) != 0 || setresuid(id, id, id) != 0) {
      std::perror("setresuid");
      _exit(126);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user clears it
  }
  std::vector<char*> words;
  for (const std::string& word : request.command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execvp(words[0], words.data());
  std::perror(words[0]);
  _exit(126);
}

// Ends and takes in everything that descends from this launcher, which is a subreaper. A run that
// starts before the last one is gone finds no room for its namespaces.
void reap_all(pid_t pid, RunCgroup* cgroup) {
  const int64_t deadline = now_ms() + 10'000;
  kill(pid, SIGKILL);
  if (cgroup != nullptr) cgroup->kill();
  for (;;) {
    const pid_t ended = waitpid(-1, nullptr, WNOHANG);
    if (ended < 0 && errno == ECHILD) return;
    if (ended != 0) continue;
    if (now_ms() > deadline) return;
    kill_children();  // without a namespace, those of an init that was killed are ours now
    usleep(200);
  }
}

// Keeps this process, and what it starts, on the core where it is. The processes of a run work in
// turn, and in a virtual machine each turn on another core waits for that core to be woken.
class StayHere {
 public:
  explicit StayHere(bool wanted) {
    const int core = wanted ? sched_getcpu() : -1;
    if (core < 0 || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(core, &here);
    stays_ = sched_setaffinity(0, sizeof here, &here) == 0;
  }
  ~StayHere() {
    if (stays_) sched_setaffinity(0, sizeof before_, &before_);
  }

 private:
  cpu_set_t before_;
  bool stays_ = false;
};

class Runner {
 public:
  Runner(const Place& place, const Request& request)
      : place_(place), request_(request), feeder_(request.frames, &frames_in_) {
    out_.cap = err_.cap = static_cast<size_t>(request.settings.number("output_bytes", 1 << 20));
    frames_.cap = static_cast<size_t>(request.settings.number("answer_bytes", 1 << 24));
    status_.cap = kStatusCap;
    if (const CgroupBases& bases = place.cgroups;
        !(bases.memory.empty() && bases.unified.empty())) {
      static int64_t number = 0;  // of this launcher
      const std::string name =
          "codeact-" + std::to_string(getpid()) + "-" + std::to_string(++number);
      cgroup_ = std::make_unique<RunCgroup>(bases, name, request.settings.number("memory_bytes", 0),
                                            request.settings.number("processes", 0) + 8);
    }
  }

  Message run() {
    if (cgroup_ != nullptr && !cgroup_->ok()) {
      return {"outcome failed\nreason " + cgroup_->error() + "\n", "", "", ""};
    }
    const StayHere stay(request_.settings.number("one_core", 0) != 0);
    start();
    watch();
    reap_all(pid_, cgroup_.get());
    for (Output* output : {&out_, &err_, &frames_}) output->take_the_rest();
    std::string text = status_.bytes;
    if (text.find("end\n") == std::string::npos) text = "";
    if (!stopped_.empty()) text += "stopped " + stopped_ + "\n";
    if (out_.over || err_.over || frames_.over) text += "over_cap 1\n";
    if (cgroup_ != nullptr) {
      const CgroupUsage usage = cgroup_->read();
      text += "cgroup_cpu_us " + std::to_string(usage.cpu_ns / 1000) + "\noom_kills " +
              std::to_string(usage.oom_kills) + "\n";
    }
    return {text, out_.bytes, err_.bytes, frames_.bytes};
  }

 private:
  void start() {
    std::vector<int> parked = {memory_file(request_.input)};
    std::vector<std::pair<int, int>> ends = {{parked[0], 0},
                                             {out_.pipe.write_end, 1},
                                             {err_.pipe.write_end, 2},
                                             {frames_in_.read_end, kFramesIn},
                                             {frames_.pipe.write_end, kFramesOut},
                                             {status_.pipe.write_end, kStatus}};
    for (const std::string& file : request_.files) {
      parked.push_back(memory_file(file));
      ends.emplace_back(parked.back(), kFirstFile + static_cast<int>(parked.size()) - 2);
    }
    pid_ = fork();
    if (pid_ == 0) become_sandbox(place_, request_, cgroup_.get(), ends);
    for (const int fd : parked) close(fd);
    Pipe::close_end(&frames_in_.read_end);
    for (Output* output : {&out_, &err_, &frames_, &status_}) {
      Pipe::close_end(&output->pipe.write_end);
    }
  }

  // Until init has reported or is gone, a limit is passed, or nobody waits for the answer any more.
  void watch() {
    const Settings& settings = request_.settings;
    const int64_t deadline =
        now_ms() + settings.number("wall_ms", 10'000) + settings.number("grace_ms", 2'000);
    while (status_.pipe.read_end >= 0 && status_.bytes.find("end\n") == std::string::npos) {
      const int64_t left = deadline - now_ms();
      if (left <= 0) {
        stopped_ = "wall_limit";
        return;
      }
      pollfd ends[6] = {{status_.pipe.read_end, POLLIN, 0},
                        {out_.pipe.read_end, POLLIN, 0},
                        {err_.pipe.read_end, POLLIN, 0},
                        {frames_.pipe.read_end, POLLIN, 0},
                        {feeder_.has_more() ? frames_in_.write_end : -1, POLLOUT, 0},
                        {STDIN_FILENO, 0, 0}};
      if (poll(ends, 6, static_cast<int>(std::min<int64_t>(left, 1000))) < 0 && errno != EINTR)
        return;
      Output* outputs[4] = {&status_, &out_, &err_, &frames_};
      for (int i = 0; i < 4; ++i) {
        if (ends[i].revents != 0) outputs[i]->take();
      }
      if (ends[3].revents != 0) {
        counter_.walk(frames_.bytes);
        feeder_.answered(counter_.count);
      }
      if (ends[4].revents != 0) feeder_.send();
      if (ends[5].revents & (POLLHUP | POLLERR)) {
        stopped_ = "abandoned";
        return;
      }
      if (out_.over || err_.over || frames_.over) {
        stopped_ = "output_limit";
        return;
      }
    }
  }

  const Place& place_;
  const Request& request_;
  Output out_, err_, frames_, status_;
  Pipe frames_in_;
  Feeder feeder_;
  FrameCounter counter_;
  std::unique_ptr<RunCgroup> cgroup_;
  std::string stopped_;
  pid_t pid_ = -1;
};

}  // namespace

Message supervise(const Place& place, const Request& request) {
  return Runner(place, request).run();
}

}  // namespace codeact::sandbox

#include "sandbox/serve.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <utility>

#include "sandbox/supervise.h"
#include "sandbox/wire.h"

namespace codeact::sandbox {
namespace {

bool write_file(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool written = write_all(fd, text.data(), text.size());
  close(fd);
  return written;
}

// A plain user may do so in a user namespace alone, here one that maps this user to itself.
bool leave_network_as_plain_user() {
  const std::string uid = std::to_string(geteuid()), gid = std::to_string(getegid());
  return unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 && write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/uid_map", uid + " " + uid + " 1") &&
         write_file("/proc/self/gid_map", gid + " " + gid + " 1");
}

// Moves this launcher, and with it all it starts, to a network namespace without any interface up.
// One for all runs: making and ending one for each takes a third of a run's own cost, and longer by
// the clock, since the kernel ends them one at a time.
bool leave_network() {
  if (geteuid() == 0) return unshare(CLONE_NEWNET) == 0;
  // A child tries first: some systems allow the namespace and refuse the map (AppArmor), and from
  // where that would leave this process, bwrap could not start at all.
  const pid_t trial = fork();
  if (trial == 0) _exit(leave_network_as_plain_user() ? 0 : 1);
  int status = 1;
  return trial > 0 && waitpid(trial, &status, 0) == trial && status == 0 &&
         leave_network_as_plain_user();
}

// Makes the toolchains reachable for the other user. Not possible in every container.
bool stage(const Place& place) {
  if (place.stage.empty() || unshare(CLONE_NEWNS) != 0) return false;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  const char* folder = place.stage.c_str();
  if (mount("tmpfs", folder, "tmpfs", MS_NODEV | MS_NOSUID, "mode=755,size=1m") != 0) return false;
  for (size_t i = 0; i < place.sources.size(); ++i) {
    const std::string target = place.stage + "/" + std::to_string(i);
    struct stat about;
    if (stat(place.sources[i].c_str(), &about) != 0) return false;
    if (S_ISDIR(about.st_mode)) {
      mkdir(target.c_str(), 0755);
    } else {
      close(open(target.c_str(), O_CREAT | O_WRONLY, 0755));
    }
    if (mount(place.sources[i].c_str(), target.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
      return false;
    }
  }
  return true;
}

// The folder goes here and not in the library alone, which may have been killed.
void remove_stage(const Place& place) {
  if (place.stage.empty()) return;
  umount2(place.stage.c_str(), MNT_DETACH);
  rmdir(place.stage.c_str());
}

void answer_requests(const Place& place) {
  for (Message message; read_message(STDIN_FILENO, &message);) {
    if (message.size() < 4) return;
    const Request request{Settings(message[0]),
                          split(message[1], '\0'),
                          std::move(message[2]),
                          std::move(message[3]),
                          {message.begin() + 4, message.end()}};
    if (!write_message(STDOUT_FILENO, supervise(place, request))) return;
  }
}

Place read_place(const std::vector<std::string>& arguments) {
  Place place;
  for (const std::string& argument : arguments) {
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (name == "uid") place.uid = std::strtoll(value.c_str(), nullptr, 10);
    if (name == "stage") place.stage = value;
    if (name == "source") place.sources.push_back(value);
    if (name == "memory") place.cgroups.memory = value;
    if (name == "pids") place.cgroups.pids = value;
    if (name == "cpuacct") place.cgroups.cpuacct = value;
    if (name == "unified") place.cgroups.unified = value;
  }
  return place;
}

}  // namespace

int serve(const std::vector<std::string>& arguments) {
  const Place place = read_place(arguments);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, SIG_IGN);  // Ctrl-C reaches the library too, which then closes our input
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  // Before the mounts: a plain user may make both in a user namespace alone, and stages nothing.
  const std::string network = leave_network() ? "network 0\n" : "network 1\n";
  prctl(PR_SET_DUMPABLE, 0);  // only now: it closes /proc/self/uid_map to a plain user
  const std::string staged = stage(place) ? "staged 1\n" : "staged 0\n";
  if (write_message(STDOUT_FILENO, {network + staged})) answer_requests(place);
  remove_stage(place);
  return 0;
}

}  // namespace codeact::sandbox

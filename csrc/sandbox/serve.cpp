#include "sandbox/serve.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <utility>

#include "sandbox/supervise.h"
#include "sandbox/wire.h"

namespace codeact::sandbox {
namespace {

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
  prctl(PR_SET_DUMPABLE, 0);
  if (!write_message(STDOUT_FILENO, {stage(place) ? "staged 1\n" : "staged 0\n"})) return 1;
  for (Message message; read_message(STDIN_FILENO, &message);) {
    if (message.size() < 4) return 1;
    const Request request{Settings(message[0]),
                          split(message[1], '\0'),
                          std::move(message[2]),
                          std::move(message[3]),
                          {message.begin() + 4, message.end()}};
    if (!write_message(STDOUT_FILENO, supervise(place, request))) return 0;
  }
  return 0;
}

}  // namespace codeact::sandbox

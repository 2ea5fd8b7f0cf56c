#include "sandbox/children.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

namespace codeact::sandbox {

void kill_children() {
  char path[64], text[4096];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
  const int children = open(path, O_RDONLY | O_CLOEXEC);
  if (children < 0) return;
  const ssize_t count = read(children, text, sizeof text - 1);
  close(children);
  text[std::max<ssize_t>(count, 0)] = '\0';
  for (char* at = text; *at != '\0';) {
    char* end = nullptr;
    const long pid = std::strtol(at, &end, 10);
    if (end == at) break;
    // A number that the buffer's end cut short has no blank after it.
    if (pid > 1 && *end == ' ') kill(static_cast<pid_t>(pid), SIGKILL);
    at = end;
  }
}

}  // namespace codeact::sandbox

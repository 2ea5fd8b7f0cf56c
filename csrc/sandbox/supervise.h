// One run: starts the sandbox, feeds and reads it, ends and reaps it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sandbox/cgroup.h"
#include "sandbox/wire.h"

namespace codeact::sandbox {

struct Place {  // what the arguments of the launcher say
  int64_t uid = -1;
  std::string stage;
  std::vector<std::string> sources;
  CgroupBases cgroups;
};

struct Request {
  Settings settings;
  std::vector<std::string> command;
  std::string input, frames;
  std::vector<std::string> files;
};

// The answer to a request, as serve.h has both. When it returns, no process of the run is left.
Message supervise(const Place& place, const Request& request);

}  // namespace codeact::sandbox

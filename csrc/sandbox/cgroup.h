// One control group a run: bounds what all its processes use together, counts it, and kills them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace codeact::sandbox {

// Folders in which groups can be made; empty where there is none. Either version 1 (`memory`,
// `pids`, `cpuacct`, each in its own hierarchy) or version 2 (`unified`, whose children have the
// memory and the pids controller).
struct CgroupBases {
  std::string memory;
  std::string pids;
  std::string cpuacct;
  std::string unified;

  bool any() const {
    return !memory.empty() || !pids.empty() || !cpuacct.empty() || !unified.empty();
  }
};

// Of all processes that were ever in the group, those still running among them. -1: not known.
struct CgroupUsage {
  int64_t cpu_ns = -1;      // user and system
  int64_t peak_bytes = -1;  // includes page cache and tmpfs, but no pages first used by others
  int64_t oom_kills = -1;   // processes that the kernel killed for the memory limit
};

class RunCgroup {
 public:
  // Makes a folder `name` in each base and sets the limits, none where one is 0. Swap counts as
  // memory. Names begin with "codeact-", the launcher's process id and "-": groups of a launcher
  // that was killed are found by it. Without any base there is nothing to do, and ok() holds.
  RunCgroup(const CgroupBases& bases, const std::string& name, int64_t memory_bytes, int64_t pids);
  RunCgroup(const RunCgroup&) = delete;
  RunCgroup& operator=(const RunCgroup&) = delete;
  ~RunCgroup();  // kills what is left and removes the folders; gives up after two seconds

  // Whether every folder was made and every limit holds; error() names the first that does not.
  bool ok() const { return error_.empty(); }
  const std::string& error() const { return error_; }

  // Moves the calling process in; to be called in a forked child before it gives up its rights.
  // Allocates nothing. False when a group did not take it, with errno set.
  bool join_self() const;

  CgroupUsage read() const;

  // Kills every process in the group, and lets none start. Returns before they are reaped.
  void kill() const;

 private:
  struct Folder {
    std::string path;
    std::string procs;  // its cgroup.procs
  };

  void add(const std::string& base, const std::string& name, std::string* folder);
  void limit(const std::string& folder, const char* file, int64_t value, bool required = true);

  std::string memory_, pids_, cpuacct_, unified_;  // the run's own folders; empty: none
  std::vector<Folder> folders_;
  std::string error_;
};

}  // namespace codeact::sandbox

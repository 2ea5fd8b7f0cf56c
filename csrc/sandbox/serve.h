// The launcher: a small process that starts sandboxes on request and cleans up after them.
#pragma once

#include <string>
#include <vector>

namespace codeact::sandbox {

// Serves requests on standard input until it ends. `arguments`, each "name=value":
//
//   uid             start sandboxes as this user and group; needs root
//   stage, source   folder for bind mounts of every `source` (repeatable), as stage/0 and so on,
//                   in a mount namespace of the launcher's own: the other user could not reach
//                   them; removed at the end
//   memory, pids, cpuacct, unified   cgroup folders, one cgroup a run below them
//
// First it answers with one message: "network 0" when it has left the network (else bwrap has to),
// and "staged 1" when the mounts are there.
//
// A request is a message of: settings (wall_ms, grace_ms, output_bytes, answer_bytes; memory_bytes
// and processes for the cgroup; one_core 1 keeps the run on one core), the command line (a NUL
// after each word), standard input, input frames (each after its 4-byte length), then files, which
// the command finds as open descriptors from kFirstFile on.
//
// The answer: "name value" lines (what init wrote, and "stopped" wall_limit or output_limit when
// this launcher ended the run, "cgroup_cpu_us", "oom_kills"), standard output,
// standard error, and the bytes written to the frame pipe.
int serve(const std::vector<std::string>& arguments);

}  // namespace codeact::sandbox

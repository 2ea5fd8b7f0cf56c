// The first process inside a sandbox: starts the candidate, measures it, ends what it leaves.
#pragma once

#include <string>
#include <vector>

namespace codeact::sandbox {

// Where the outer launcher puts the ends of its pipes. 0, 1 and 2 are the candidate's own.
constexpr int kFramesIn = 3;   // the candidate reads
constexpr int kFramesOut = 4;  // the candidate writes
constexpr int kStatus = 5;     // init writes, the candidate never has it
constexpr int kFirstFile = 10;

// `arguments`: "name=value" settings, "--", the command.
//
//   cpu_ms, wall_ms          time limits, of all processes together; all are killed past one
//   memory_bytes             resident memory of all processes together, looked at every few ms;
//                            0 where a control group holds it
//   as_bytes, file_bytes, open_files, processes, stack_bytes   resource limits; 0 sets none
//   core                     the command's only core, -1 for any; init keeps off it
//   sample_us                time between two readings of memory; 0 only watches the limit
//   single_process           1: threads may be started, processes not
//   box, readable            without namespaces around: work folder, and paths between colons
//
// Writes "name value" lines to kStatus: outcome (exited, signalled, wall_limit, cpu_limit,
// memory_limit or failed), code (exit code or signal), user_us, system_us (of the command, its
// children and all that was left at its end), wall_us, peak_bytes (largest resident memory of one
// process), byte_seconds and byte_wall_seconds (resident memory of the command, trapezoids over its
// CPU time and over wall time), samples, and last "end". Returns the exit status of init.
int run_init(const std::vector<std::string>& arguments);

}  // namespace codeact::sandbox

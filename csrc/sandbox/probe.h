// Small programs that try the sandbox's walls from inside, so that the self-test needs no other.
#pragma once

#include <string>
#include <vector>

namespace codeact::sandbox {

// `words`: the name of a probe and its arguments. What it finds goes to standard output, a line
// each; the caller, outside, decides what that means.
//
//   nothing               ends at once
//   environment           every variable: "variable NAME=VALUE"
//   network PORT NAME     "reached ADDRESS" for each of: this machine's TCP port, an abstract Unix
//                         socket NAME, any route to another machine (nothing is sent)
//   read PATH...          "read PATH" for each file or folder that opens
//   write PATH...         "wrote PATH" for each folder that takes a new file, and each file that
//                         opens for writing
//   orphan TOKEN          leaves a process in a session of its own that holds standard output
//   fork COUNT            starts processes, each of which starts more, at most COUNT in all; prints
//                         "started NUMBER" and leaves them running
//   burn MILLISECONDS     uses so much CPU time; prints "burned MICROSECONDS"
//   allocate BYTES        touches so much memory
//   print                 writes to standard output without end
//   sleep                 for an hour
//   trace                 "traced" where another process's memory can be reached by ptrace
//   cgroup NAME=FOLDER... run outside: tries the bases of cgroup.h with a group of its own; prints
//                         "ok", or what does not work
//
// The result is the exit status: 0, 2 for a probe that does not exist.
int run_probe(const std::vector<std::string>& words);

}  // namespace codeact::sandbox

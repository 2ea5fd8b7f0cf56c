// The weaker walls of a run without bwrap, inside a container or machine that can be thrown away.
#pragma once

#include <string>
#include <vector>

namespace codeact::sandbox {

// What the running kernel has of Landlock: 0 none, 1 file trees, 3 truncation, 4 TCP, 5 device
// ioctls, 6 signals and abstract sockets.
int landlock_abi();

// From here on the calling process, and all that it starts, reads and executes files below
// `readable` only, writes below `box` only, traces no process outside, and, as far as the kernel
// has it, makes no TCP connection and signals nothing outside. Paths that do not exist are passed
// over. To be called last, in the process that becomes the command: whoever is inside shares the
// walls, and can be signalled by it.
//
// Not covered: whether a path exists, its mode, owner and times (so never as root), UDP and
// sockets in the file system (refuse_sockets), other processes of the same user before ABI 6.
bool restrict_to(const std::string& box, const std::vector<std::string>& readable,
                 std::string* error);

// socket() fails with EPERM for every family, socketpair() works. Unix sockets too: Landlock lets a
// process connect to those of the file system, such as a container daemon's.
bool refuse_sockets();

}  // namespace codeact::sandbox

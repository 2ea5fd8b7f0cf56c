#pragma once

namespace codeact::sandbox {

// Sends SIGKILL to every child of the calling thread's process. In a subreaper, whatever those
// leave comes next: call it until nothing is left to wait for.
void kill_children();

}  // namespace codeact::sandbox

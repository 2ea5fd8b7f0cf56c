// System calls that no candidate program needs and that reach past its namespaces.
#pragma once

namespace codeact::sandbox {

// Installs the filter in the calling process, for it and all it starts. Calls on the list fail with
// EPERM, clone3 with ENOSYS (the C library then uses clone, whose flags a filter can read).
// `single_process`: threads may be started, processes not. False when the kernel refuses.
bool filter_system_calls(bool single_process);

}  // namespace codeact::sandbox

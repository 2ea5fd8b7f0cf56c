"""What a program in the sandbox may use."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits of one run; passing one ends it with an outcome that names it.

    Attributes:
        wall_seconds: from its start.
        cpu_seconds: user and system time of all processes together, looked at every five
            milliseconds; in the external tier of the main process with its threads alone.
        memory_bytes: resident memory of all processes together. Held by the kernel where there is a
            cgroup, else looked at every five milliseconds; in the external tier of the main
            process alone.
        address_space_bytes: virtual memory of each process, for languages whose runtimes do not
            reserve more than they use; None for no such limit.
        output_bytes: standard output, and standard error, each.
        answer_bytes: all answer frames.
        file_bytes: the largest file.
        box_bytes: all files in the work folder.
        shared_memory_bytes: all files in ``/dev/shm``, where semaphores of several processes live;
            with 0 there is no such folder.
        processes: processes and threads at a time.
        open_files: open descriptors of a process.
        stack_bytes: stack of a thread; 0 leaves what the system sets.
    """

    wall_seconds: float = 10.0
    cpu_seconds: float = 10.0
    memory_bytes: int = 1024 * _MIB
    address_space_bytes: int | None = None
    output_bytes: int = _MIB
    answer_bytes: int = 16 * _MIB
    file_bytes: int = 16 * _MIB
    box_bytes: int = 64 * _MIB
    shared_memory_bytes: int = 0
    processes: int = 32
    open_files: int = 64
    stack_bytes: int = 64 * _MIB

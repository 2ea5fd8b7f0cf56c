"""The peak memory of a piece of work, on the GPU or in the process."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from types import TracebackType


class PeakMemory:
    """Measures the peak between entering and leaving; ``mib`` holds it afterwards.

    On a GPU it is what PyTorch allocated at most. On a CPU it is the process's peak resident set,
    which Linux lets a process reset for itself; where that is refused it is the peak since the
    process began.
    """

    def __init__(self) -> None:
        self.mib = 0.0

    def __enter__(self) -> PeakMemory:
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import torch

        if torch.cuda.is_available():
            self.mib = torch.cuda.max_memory_allocated() / 2**20
        else:
            self.mib = _peak_resident_mib()


def _peak_resident_mib() -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

"""The peak memory of a piece of work, on the GPU or in the process."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from types import TracebackType
from typing import ClassVar


class PeakMemory:
    """Measures the peak between entering and leaving; ``mib`` holds it afterwards.

    Where a GPU is in use it is what PyTorch allocated at most on the current device. Elsewhere it
    is the process's peak resident set, which Linux lets a process reset for itself; where that is
    refused it is the peak since the process began. One measurement may hold another.
    """

    _open: ClassVar[list[PeakMemory]] = []

    def __init__(self) -> None:
        self.mib = 0.0

    def __enter__(self) -> PeakMemory:
        self._note_peak()  # the reset below would lose it for those around this one
        _reset_peak()
        self._open.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._note_peak()
        self._open.remove(self)

    def _note_peak(self) -> None:
        for measurement in self._open:
            measurement.mib = max(measurement.mib, _peak_mib())


def _uses_gpu() -> bool:
    import torch

    return torch.cuda.is_initialized() and torch.cuda.max_memory_reserved() > 0


def _reset_peak() -> None:
    import torch

    if _uses_gpu():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    import torch

    if _uses_gpu():
        return torch.cuda.max_memory_allocated() / 2**20
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

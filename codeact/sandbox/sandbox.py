"""The sandbox: a few launchers that run untrusted programs, one at a time each."""

from __future__ import annotations

import os
import queue
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from codeact.sandbox.bubblewrap import init_words
from codeact.sandbox.limits import Limits
from codeact.sandbox.run import Run
from codeact.sandbox.slot import Slot

if TYPE_CHECKING:
    from typing_extensions import Self

    from codeact.sandbox.tiers import Tier

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Sandbox:
    """Runs programs that nobody trusts, away from files, network and other processes.

    Each run has namespaces, a root file system and two small file systems of its own (bubblewrap,
    seccomp, resource limits, a control group where one can be made), and everything it started is
    dead when :meth:`run` returns. What a run used is read outside the program. Safe to use from
    several threads: ``workers`` runs go on at a time.

    Args:
        workers: launchers, each started at its first use.
        external: without bubblewrap, rely on a disposable container or virtual machine around this
            whole process. Takes effect only with ``CODEACT_EXTERNAL_SANDBOX=1`` in the environment
            too, and marks every number.
        tier: use this one, unchecked; for the self-test.
        shown: host paths that a run may mount (``mounts``) beside the toolchains. They need to be
            there, and readable by everybody, when the first run starts.

    Raises:
        SandboxUnavailable: no tier holds on this machine; says which check failed and what helps.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        external: bool = False,
        tier: Tier | None = None,
        shown: Sequence[Path] = (),
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if tier is None:
            from codeact.sandbox.tiers import choose_tier

            tier = choose_tier(external)
        self._tier = tier
        self.workers = workers
        self._slots: queue.LifoQueue[Slot] = queue.LifoQueue()  # the last one used is warm
        slots = [Slot(tier, shown) for _ in range(workers)]
        for slot in slots:
            self._slots.put(slot)
        self._owner = os.getpid()
        # Also when nobody calls close(): temporary folders would stay.
        self._finalizer = weakref.finalize(self, _close_all, slots, self._owner)

    @property
    def tier(self) -> str:
        """``"bwrap+cgroup"``, ``"bwrap"`` or ``"external"``; stands in every record."""
        return self._tier.name

    def run(
        self,
        command: Sequence[str],
        *,
        files: Mapping[str, bytes] = MappingProxyType({}),
        mounts: Sequence[tuple[Path, str]] = (),
        stdin: bytes = b"",
        frames: Sequence[bytes] = (),
        limits: Limits | None = None,
        environment: Mapping[str, str] = _NOTHING,
        sample_seconds: float = 0.0,
        core: int | None = None,
        many_cores: bool = False,
        single_process: bool = False,
    ) -> Run:
        """Run one command to its end, or to the first limit that it passes.

        Args:
            command: program, by its path inside or by its name, and arguments.
            files: content of files in ``/box``, the work folder, by name.
            mounts: (host path, path inside) of files and folders to show, read-only. For root only
                what lies below a toolchain's folder, the compile cache or ``shown``.
            stdin: standard input, whole.
            frames: messages for descriptor 3. The first is there at once, each other after the
                program has answered the one before with a frame on descriptor 4. A frame is 4 bytes
                of length, little-endian, and the payload.
            limits: :class:`Limits` by default.
            environment: added to PATH, HOME, LANG and the like; nothing is taken over.
            sample_seconds: time between two readings of memory, for the integrals; 0 reads none.
            core: run on this core alone, and watch from the others.
            many_cores: let its processes spread over the cores; else they all stay on the one where
                the launcher is, which costs a short run least.
            single_process: no process may be started, threads may.

        Returns:
            How it ended, what it wrote and used. A sandbox that does not start is an outcome too
            (``"failed"``), tried twice.

        Raises:
            ValueError: a name in ``files`` is a path, or a word of the command has a NUL in it.
            RuntimeError: the sandbox is closed, before the run or during it, or was made before
                this process was forked.
        """
        limits = limits or Limits()
        for name in files:
            if not name or "/" in name or "\0" in name or name in (".", ".."):
                raise ValueError(f"files in the box need plain names, got {name!r}")
        words = init_words(
            command,
            limits,
            sample_seconds=sample_seconds,
            core=core,
            single_process=single_process,
            watch_memory=self._tier.cgroups is None,
        )
        with self._free_slot() as slot:
            for _ in range(2):
                run = slot.run(
                    words,
                    files,
                    mounts,
                    stdin,
                    frames,
                    limits,
                    environment,
                    one_core=core is None and not many_cores,
                )
                if run.outcome != "failed":
                    break
                slot.close()  # its mounts may have lost their folder
        return run

    def launcher_pids(self) -> list[int]:
        """Process ids of the launchers that are running and free."""
        slots = [self._slots.get() for _ in range(self._slots.qsize())]
        for slot in slots:
            self._slots.put(slot)
        return [slot.launcher.pid for slot in slots if slot.launcher is not None]

    def close(self) -> None:
        """End the launchers, and with them whatever runs."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _free_slot(self) -> Iterator[Slot]:
        if os.getpid() != self._owner:  # answers to parent and child would come mixed up
            raise RuntimeError("a sandbox does not outlive a fork: make one in the new process")
        slot = self._slots.get()
        try:
            self._refuse_if_closed()
            yield slot
            self._refuse_if_closed()  # then the run was cut short, and proves nothing
        finally:
            if not self._finalizer.alive:
                slot.close()
            self._slots.put(slot)

    def _refuse_if_closed(self) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("the sandbox is closed")


def _close_all(slots: Sequence[Slot], owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child ends; the launchers are its parent's
    for slot in slots:
        slot.close()

"""The sandbox: a few launchers that run untrusted programs, one at a time each."""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from codeact.sandbox.bubblewrap import bubblewrap_command, environment_of, init_words
from codeact.sandbox.external import external_command
from codeact.sandbox.launcher import (
    LAUNCHER,
    Launcher,
    LauncherError,
    framed,
    frames_of,
    settings_of,
    settings_text,
)
from codeact.sandbox.limits import Limits
from codeact.sandbox.run import Outcome, Run

if TYPE_CHECKING:
    from typing_extensions import Self

    from codeact.sandbox.tiers import Tier

_NOTHING: Mapping[str, str] = MappingProxyType({})
_FRAMES_PER_INPUT, _MORE_FRAMES = 2, 16  # what follows these is no answer: millions cost minutes
_GRACE_MS = 3000  # after which the launcher ends a run whose init has not
_FIRST_UID = 1 << 30  # users that no system gives to people
_numbers = itertools.count()


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

    Raises:
        SandboxUnavailable: no tier holds on this machine; says which check failed and what helps.
    """

    def __init__(
        self, *, workers: int = 1, external: bool = False, tier: Tier | None = None
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if tier is None:
            from codeact.sandbox.tiers import choose_tier

            tier = choose_tier(external)
        self._tier = tier
        self.workers = workers
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        slots = [_Slot(tier) for _ in range(workers)]
        for slot in slots:
            self._slots.put(slot)
        # Also when nobody calls close(): temporary folders would stay.
        self._finalizer = weakref.finalize(self, _close_all, slots)

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
        single_process: bool = False,
    ) -> Run:
        """Run one command to its end, or to the first limit that it passes.

        Args:
            command: program, by its path inside or by its name, and arguments.
            files: content of files in ``/box``, the work folder, by name.
            mounts: (host path, path inside) of files and folders to show, read-only. For root only
                what lies below a toolchain's folder or the compile cache.
            stdin: standard input, whole.
            frames: messages for descriptor 3. The first is there at once, each other after the
                program has answered the one before with a frame on descriptor 4. A frame is 4 bytes
                of length, little-endian, and the payload.
            limits: :class:`Limits` by default.
            environment: added to PATH, HOME, LANG and the like; nothing is taken over.
            sample_seconds: time between two readings of memory, for the integrals; 0 reads none.
            core: run on this core alone, and watch from the others.
            single_process: no process may be started, threads may.

        Returns:
            How it ended, what it wrote and used. A sandbox that does not start is an outcome too
            (``"failed"``), tried twice.

        Raises:
            ValueError: a name in ``files`` is a path.
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
                run = slot.run(words, files, mounts, stdin, frames, limits, environment)
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
    def _free_slot(self) -> Iterator[_Slot]:
        slot = self._slots.get()
        try:
            yield slot
        finally:
            self._slots.put(slot)


class _Slot:
    """A launcher, started when first needed and again when it has died."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.launcher: Launcher | None = None
        self._uid: int | None = None
        self._stage: Path | None = None
        self._sources: list[Path] = []
        self._lock = threading.Lock()

    def run(
        self,
        words: list[str],
        files: Mapping[str, bytes],
        mounts: Sequence[tuple[Path, str]],
        stdin: bytes,
        frames: Sequence[bytes],
        limits: Limits,
        environment: Mapping[str, str],
    ) -> Run:
        launcher = self._started()
        settings: dict[str, int | str] = {
            "wall_ms": round(limits.wall_seconds * 1000),
            "grace_ms": _GRACE_MS,
            "output_bytes": limits.output_bytes,
            "answer_bytes": limits.answer_bytes,
            "memory_bytes": limits.memory_bytes,
            "processes": limits.processes,
        }
        if self.tier.bwrap is None:
            with external_command(
                LAUNCHER,
                words,
                files=files,
                mounts=mounts,
                environment=environment_of(environment),
                uid=self._uid,
            ) as command:
                answer = self._ask(launcher, settings, command, stdin, frames, [])
        else:
            command = bubblewrap_command(
                self.tier.bwrap,
                self._reachable(LAUNCHER),
                words,
                files=list(files),
                mounts=[(self._reachable(host), inside) for host, inside in mounts],
                environment=environment,
                limits=limits,
                leave_network=launcher.has_network,
            )
            answer = self._ask(launcher, settings, command, stdin, frames, list(files.values()))
        return _run_of(answer, self.tier.name, _FRAMES_PER_INPUT * len(frames) + _MORE_FRAMES)

    def close(self) -> None:
        if self.launcher is not None:
            self.launcher.close()
            self.launcher = None
        if self._stage is not None:
            shutil.rmtree(self._stage, ignore_errors=True)
            self._stage = None

    def _ask(
        self,
        launcher: Launcher,
        settings: Mapping[str, int | str],
        command: Sequence[str],
        stdin: bytes,
        frames: Sequence[bytes],
        files: Sequence[bytes],
    ) -> list[bytes]:
        words = "\0".join(command).encode("utf-8", "surrogateescape")
        fields = [settings_text(settings), words, stdin, framed(frames), *files]
        try:
            return launcher.ask(fields)
        except LauncherError as error:
            self.close()
            return [b"", b"", str(error).encode(), b""]

    def _started(self) -> Launcher:
        with self._lock:
            if self.launcher is None:
                self.launcher = Launcher(self._arguments())
                if not self.launcher.is_staged:
                    self._sources = []
            return self.launcher

    def _arguments(self) -> list[str]:
        arguments = []
        if self.tier.cgroups is not None:
            arguments += [f"{name}={path}" for name, path in self.tier.cgroups.folders().items()]
        if os.geteuid() == 0:
            # A user of its own: limits on processes do not bind root, and hold per user.
            self._uid = _FIRST_UID + os.getpid() * 64 + next(_numbers) % 64
            arguments.append(f"uid={self._uid}")
        if self._uid is not None and self.tier.bwrap is not None:
            from codeact.sandbox.programs.languages import staged_folders

            self._stage = Path(tempfile.mkdtemp(prefix="codeact-"))
            self._stage.chmod(0o755)
            self._sources = [LAUNCHER.resolve(), *(path.resolve() for path in staged_folders())]
            arguments.append(f"stage={self._stage}")
            arguments += [f"source={path}" for path in self._sources]
        return arguments

    def _reachable(self, path: Path) -> Path:
        """Where the launcher's user finds a host path."""
        path = path.resolve()
        for number, source in enumerate(self._sources):
            if path == source or source in path.parents:
                return cast(Path, self._stage) / str(number) / path.relative_to(source)
        return path


def _close_all(slots: Sequence[_Slot]) -> None:
    for slot in slots:
        slot.close()


def _run_of(answer: Sequence[bytes], tier: str, most_frames: int) -> Run:
    text, stdout, stderr, frame_bytes = answer
    said = settings_of(text)
    frames, broken = frames_of(frame_bytes, most_frames)
    stopped = said.get("stopped")
    if stopped == "output_limit" or said.get("over_cap"):
        outcome = "output_limit"
    elif stopped is not None:
        outcome = "wall_limit"
    else:
        outcome = said.get("outcome", "failed")
    out_of_memory = int(said.get("oom_kills", 0)) > 0  # the kernel's word, from the cgroup
    if out_of_memory and (outcome == "failed" or said.get("code") == "9"):
        outcome = "memory_limit"
    if outcome == "failed" and (reason := said.get("reason")):
        stderr = reason.encode() + b"\n" + stderr
    return Run(
        outcome=cast(Outcome, outcome),
        exit_code=int(said["code"]) if outcome == "exited" else None,
        signal=int(said["code"]) if outcome == "signalled" else None,
        stdout=stdout,
        stderr=stderr,
        frames=frames,
        broken_frames=broken,
        cpu_seconds=(int(said.get("user_us", 0)) + int(said.get("system_us", 0))) / 1e6,
        user_seconds=int(said.get("user_us", 0)) / 1e6,
        system_seconds=int(said.get("system_us", 0)) / 1e6,
        wall_seconds=int(said.get("wall_us", 0)) / 1e6,
        peak_memory_bytes=int(said.get("peak_bytes", 0)),
        memory_byte_seconds=float(said.get("byte_seconds", 0)),
        memory_byte_wall_seconds=float(said.get("byte_wall_seconds", 0)),
        num_samples=int(said.get("samples", 0)),
        sandbox=tier,
    )

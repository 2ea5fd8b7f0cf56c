"""One place to run in: a launcher with its user and its view of the toolchains."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from codeact.sandbox.bubblewrap import bubblewrap_command, environment_of
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
    from codeact.sandbox.tiers import Tier

_FRAMES_PER_INPUT, _MORE_FRAMES = 2, 16  # what follows these is no answer: millions cost minutes
_HIDDEN_SHARE, _HIDDEN_SECONDS = 1.1, 0.05  # beyond what bubblewrap itself needs
_GRACE_MS = 3000  # after which the launcher ends a run whose init has not
_FIRST_UID = 1 << 30  # users that no system gives to people
_numbers = itertools.count()


class Slot:
    """A launcher, started when first needed and again when it has died.

    Args:
        tier: its walls.
        shown: host paths that runs may mount beside the toolchains.
    """

    def __init__(self, tier: Tier, shown: Sequence[Path] = ()) -> None:
        self.tier = tier
        self._shown = shown
        self.launcher: Launcher | None = None
        self._uid: int | None = None
        self._stage: Path | None = None
        self._sources: list[Path] = []

    def run(
        self,
        words: list[str],
        files: Mapping[str, bytes],
        mounts: Sequence[tuple[Path, str]],
        stdin: bytes,
        frames: Sequence[bytes],
        limits: Limits,
        environment: Mapping[str, str],
        *,
        one_core: bool,
    ) -> Run:
        try:
            launcher = self._started()
        except LauncherError as error:
            return _run_of([b"", b"", str(error).encode(), b""], self.tier.name, 0)
        settings: dict[str, int | str] = {
            "wall_ms": round(limits.wall_seconds * 1000),
            "grace_ms": _GRACE_MS,
            "output_bytes": limits.output_bytes,
            "answer_bytes": limits.answer_bytes,
            "memory_bytes": limits.memory_bytes,
            "processes": limits.processes,
            "one_core": int(one_core),
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
        launcher, self.launcher = self.launcher, None
        if launcher is not None:
            launcher.close()
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
        if any("\0" in word for word in command):
            raise ValueError("a word of the command has a NUL in it")
        words = "".join(f"{word}\0" for word in command).encode("utf-8", "surrogateescape")
        fields = [settings_text(settings), words, stdin, framed(frames), *files]
        try:
            return launcher.ask(fields)
        except LauncherError as error:
            self.close()
            return [b"", b"", str(error).encode(), b""]
        except BaseException:
            self.close()  # interrupted: this run's answer is to be nobody else's
            raise

    def _started(self) -> Launcher:
        if self.launcher is None:
            try:
                self.launcher = Launcher(self._arguments())
            except BaseException:
                self.close()  # the stage
                raise
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
            shown = [LAUNCHER, *staged_folders(), *self._shown]
            self._sources = [path.resolve() for path in shown]
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
        cpu_seconds=_cpu_seconds(said),
        user_seconds=int(said.get("user_us", 0)) / 1e6,
        system_seconds=int(said.get("system_us", 0)) / 1e6,
        wall_seconds=int(said.get("wall_us", 0)) / 1e6,
        peak_memory_bytes=int(said.get("peak_bytes", 0)),
        memory_byte_seconds=float(said.get("byte_seconds", 0)),
        memory_byte_wall_seconds=float(said.get("byte_wall_seconds", 0)),
        num_samples=int(said.get("samples", 0)),
        sandbox=tier,
    )


def _cpu_seconds(said: Mapping[str, str]) -> float:
    """Of the processes that init took in, or of the control group when it has seen much more.

    A process that ignores the end of its children has them taken in by the kernel, and their time
    is in nobody's account but the group's, which holds bubblewrap's few milliseconds as well.
    """
    taken_in = (int(said.get("user_us", 0)) + int(said.get("system_us", 0))) / 1e6
    group = int(said.get("cgroup_cpu_us", 0)) / 1e6
    return group if group > _HIDDEN_SHARE * taken_in + _HIDDEN_SECONDS else taken_in

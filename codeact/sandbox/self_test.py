"""Trying the sandbox's walls from inside before anything that nobody trusts runs behind them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from codeact.errors import InputError
from codeact.files import write_json
from codeact.sandbox.launcher import LAUNCHER
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.toolchains import compiled_folder
from codeact.sandbox.run import Outcome, Run
from codeact.sandbox.unavailable import SandboxUnavailable, fixes_of_wall, usual_fixes

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox
    from codeact.sandbox.tiers import Tier

_PROBE = "/codeact-probe"  # where the launcher, which holds the probes, is mounted
_LIMITS = Limits(wall_seconds=10.0, cpu_seconds=5.0, output_bytes=2**16, processes=24)
_TRIES = 3  # of checks that compare times: a busy machine may spoil one
_BURNED_MS = 50
_ALLOCATED_BYTES = 64 * 2**20
_SMALL_BYTES = 8 * 2**20
_SHORT_WALL_SECONDS = 0.2
_FORKS = 400  # what the bomb would make if nothing stopped it
_TIMED = ("CPU time", "memory limit", "wall limit")
_POLICY = ("bubblewrap.py", "external.py", "self_test.py", "slot.py")
_REPORT = "sandbox-self-test.json"


class Check(NamedTuple):
    """One tried wall. ``reason`` says what came through, and is empty when it holds."""

    name: str
    reason: str

    @property
    def fixes(self) -> tuple[str, ...]:
        """What usually helps against that reason."""
        return (
            usual_fixes(self.reason) if self.name == "start" else fixes_of_wall(self.name in _TIMED)
        )


def verify(tier: Tier) -> None:
    """Run the self-test, unless this machine passed it with these very programs since it booted.

    Raises:
        SandboxUnavailable: at the first check that fails. Failures are not remembered.
    """
    folder = _cache()
    key = _key(tier)
    if folder is not None and _passed(folder / _REPORT, key):
        return
    for check in run_checks(tier):
        if check.reason:
            raise SandboxUnavailable(check.name, check.reason, check.fixes)
    if folder is not None:
        with suppress(PermissionError):  # somebody else's folder
            write_json(folder / _REPORT, {"passed": key, "sandbox": tier.name})


def run_checks(tier: Tier) -> Iterator[Check]:
    """Every check, in order. Ends after the first when the sandbox does not start at all."""
    from codeact.sandbox.sandbox import Sandbox  # it needs tiers, which need this module

    with Sandbox(tier=tier) as sandbox:
        for name, check in _CHECKS.items():
            reason = check(sandbox)
            yield Check(name, reason)
            if reason and name == "start":
                return


def _probe(sandbox: Sandbox, *words: str, limits: Limits = _LIMITS) -> Run:
    return sandbox.run(
        [_PROBE, "probe", *words], mounts=[(LAUNCHER, _PROBE)], limits=limits, sample_seconds=0
    )


def _lines(run: Run) -> list[str]:
    return run.stdout.decode("utf-8", "replace").splitlines()


def _unexpected(run: Run, outcome: Outcome = "exited") -> str:
    """How a run ended, when it should have ended otherwise; else nothing."""
    ended = run.outcome == outcome and run.exit_code in (0, None)
    said = run.stderr.decode("utf-8", "replace").strip()
    how = f"{run.outcome} {run.exit_code if run.signal is None else run.signal}"
    return "" if ended else f"the probe ended as {how}, not {outcome}: {said[-300:] or 'silent'}"


def _silent(run: Run) -> str:
    """What a probe got through, for probes that should have nothing to say."""
    return _unexpected(run) or ", ".join(_lines(run)[:5])


def _starts(sandbox: Sandbox) -> str:
    run = _probe(sandbox, "nothing")
    if run.outcome == "failed":
        return run.stderr.decode("utf-8", "replace").strip() or "the launcher says nothing"
    return _unexpected(run)


def _network(sandbox: Sandbox) -> str:
    """A port and an abstract socket of this machine, open for as long as the probe runs."""
    with ExitStack() as stack:
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        name = f"codeact-{secrets.token_hex(8)}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        return _silent(_probe(sandbox, "network", str(port.getsockname()[1]), name))


def _environment(sandbox: Sandbox) -> str:
    """No variable of this process is in there; the few with values that every run has are."""
    from codeact.sandbox.bubblewrap import environment_of

    run = _probe(sandbox, "environment")
    inside = {line.removeprefix("variable ").partition("=")[0] for line in _lines(run)}
    # bwrap sets PWD. Where the probe's words wrap over several lines, none of them is known.
    surplus = sorted(inside - environment_of({}).keys() - {"PWD"})
    return _unexpected(run) or (f"variables inside: {', '.join(surplus[:5])}" if surplus else "")


def _files(sandbox: Sandbox) -> str:
    """Home, the folder we are in, a new file of ours for temporaries, and what systems keep."""
    with tempfile.NamedTemporaryFile(prefix="codeact-secret-") as secret:
        os.chmod(secret.name, 0o644)  # so that it is the sandbox that hides it
        own = [Path.home(), Path.cwd(), Path(__file__), Path(secret.name)]
        paths = [str(path) for path in own if Path("/usr") not in [path, *path.parents]]
        paths = [path for path in paths if path != "/"]
        return _silent(
            _probe(
                sandbox, "read", *paths, "/etc/shadow", "/root", "/home", "/proc/1/mem", "/dev/mem"
            )
        )


def _writing(sandbox: Sandbox) -> str:
    folders = ["/", "/dev", "/usr", "/usr/bin", "/etc", str(Path.home()), "/proc/sys/kernel"]
    return _silent(_probe(sandbox, "write", *folders, _PROBE, "/usr/bin/env"))


def _tracing(sandbox: Sandbox) -> str:
    return _silent(_probe(sandbox, "trace"))


def _orphan(sandbox: Sandbox) -> str:
    """A daemon that left its session and holds the output open: dead when the run is over."""
    token = secrets.token_hex(16)
    run = _probe(sandbox, "orphan", token)
    if run.wall_seconds > _LIMITS.wall_seconds / 2:
        return "the run waited for a process that had left it"
    left = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if _has(path, token)]
    return _silent(run) or (f"process {left[0]} outlived its run" if left else "")


def _has(cmdline: Path, token: str) -> bool:
    try:
        return token.encode() in cmdline.read_bytes()
    except OSError:
        return False


def _fork_bomb(sandbox: Sandbox) -> str:
    run = _probe(sandbox, "fork", str(_FORKS))
    started = int((_lines(run) or ["started 0"])[0].split()[1])
    if started > _LIMITS.processes + 1:
        return f"{started} processes were started, the limit is {_LIMITS.processes}"
    after = _unexpected(_probe(sandbox, "nothing"))
    return _unexpected(run) or (f"the next run: {after}" if after else "")


def _cpu_time(sandbox: Sandbox) -> str:
    """What is reported, less an empty run's, against what the probe read from its own clock."""
    reason = ""
    for _ in range(_TRIES):
        empty = _probe(sandbox, "nothing")
        run = _probe(sandbox, "burn", str(_BURNED_MS))
        if reason := _unexpected(run):
            return reason
        burned = int(_lines(run)[0].split()[1]) / 1e6
        reported = run.cpu_seconds - empty.cpu_seconds
        if abs(reported / burned - 1) <= 0.2:
            return ""
        reason = f"{reported * 1e3:.1f} ms of CPU time reported, {burned * 1e3:.1f} ms used"
    return reason


def _memory(sandbox: Sandbox) -> str:
    run = _probe(sandbox, "allocate", str(_ALLOCATED_BYTES))
    reported = run.peak_memory_bytes
    wrong = abs(reported / _ALLOCATED_BYTES - 1) > 0.1
    seen = f"{reported:,} bytes reported, {_ALLOCATED_BYTES:,} used"
    return _silent(run) or (seen if wrong else "")


def _memory_limit(sandbox: Sandbox) -> str:
    limits = replace(_LIMITS, memory_bytes=_ALLOCATED_BYTES)
    run = _probe(sandbox, "allocate", str(4 * _ALLOCATED_BYTES), limits=limits)
    return _unexpected(run, "memory_limit")


def _small_memory(sandbox: Sandbox) -> str:
    """Whether the parent's size shows in the child's, as it does with ru_maxrss after vfork."""
    run = _probe(sandbox, "nothing")
    small = 0 < run.peak_memory_bytes < _SMALL_BYTES
    seen = f"{run.peak_memory_bytes:,} bytes reported for an empty program"
    return _silent(run) or ("" if small else seen)


def _output_cap(sandbox: Sandbox) -> str:
    run = _probe(sandbox, "print")
    size = len(run.stdout)
    too_long = f"{size} bytes of output, the limit is {_LIMITS.output_bytes}"
    return _unexpected(run, "output_limit") or (too_long if size > _LIMITS.output_bytes else "")


def _wall_limit(sandbox: Sandbox) -> str:
    limits = replace(_LIMITS, wall_seconds=_SHORT_WALL_SECONDS)
    return _unexpected(_probe(sandbox, "sleep", limits=limits), "wall_limit")


_CHECKS: dict[str, Callable[[Sandbox], str]] = {
    "start": _starts,
    "network unreachable": _network,
    "environment hidden": _environment,
    "files unreadable": _files,
    "files unwritable": _writing,
    "processes untraceable": _tracing,
    "nothing outlives its run": _orphan,
    "fork bomb contained": _fork_bomb,
    "CPU time": _cpu_time,
    "memory": _memory,
    "memory of a small program": _small_memory,
    "memory limit": _memory_limit,
    "output limit": _output_cap,
    "wall limit": _wall_limit,
}


def _key(tier: Tier) -> str:
    """Everything that what was found depends on; a boot may change the kernel's settings."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    digest = hashlib.sha256(LAUNCHER.read_bytes())
    for name in _POLICY:
        digest.update(Path(__file__).with_name(name).read_bytes())
    facts: Sequence[object] = (
        boot.read_text(encoding="ascii").strip() if boot.exists() else "",
        os.uname().release, tier.name, tier.bwrap, tier.version, digest.hexdigest(), os.geteuid(),
    )  # fmt: skip
    return hashlib.sha256(json.dumps([str(fact) for fact in facts]).encode()).hexdigest()


def _cache() -> Path | None:
    try:
        return compiled_folder().parent
    except InputError:
        return None  # a read-only home: the test runs in every process


def _passed(report: Path, key: str) -> bool:
    try:
        return bool(json.loads(report.read_text(encoding="utf-8"))["passed"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False

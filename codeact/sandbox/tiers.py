"""Which walls hold on this machine. When none do, nothing runs."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codeact.sandbox.cgroups import CgroupBases, NoCgroups, find_cgroups, remove_stale
from codeact.sandbox.launcher import LAUNCHER
from codeact.sandbox.unavailable import SandboxUnavailable, usual_fixes

TierName = Literal["bwrap+cgroup", "bwrap", "external"]
EXTERNAL_VARIABLE = "CODEACT_EXTERNAL_SANDBOX"
_OLDEST_BWRAP = (0, 8)  # has --size, which bounds what a program writes to memory
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+)*")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tier:
    """The walls that every run of a sandbox has.

    Attributes:
        name: ``"bwrap+cgroup"``; ``"bwrap"``, where memory is bounded by looking at it every few
            milliseconds and processes by a resource limit; ``"external"``, where the caller states
            that a disposable container or machine is around the whole process.
        bwrap: program; None in the external tier.
        version: of bwrap; empty in the external tier.
        cgroups: where a group per run is made; None without.
        no_cgroups: why not; empty with them.
    """

    name: TierName
    bwrap: Path | None = None
    version: str = ""
    cgroups: CgroupBases | None = None
    no_cgroups: str = ""


def choose_tier(external: bool = False) -> Tier:
    """The strongest tier that this machine has, its self-test passed.

    Never falls back from what was asked for: ``external`` gives the external tier or an error, and
    a bwrap that fails the self-test gives an error, not a weaker tier.

    Args:
        external: do without bwrap, on the caller's word. The environment has to say so as well
            (``CODEACT_EXTERNAL_SANDBOX=1``), so that neither a script's option nor a variable left
            over from another day is enough.

    Raises:
        SandboxUnavailable: no tier holds; says which check failed, what was seen and what helps.
    """
    from codeact.sandbox.self_test import verify  # it needs Sandbox, which needs this module

    tier = find_tier(external)
    verify(tier)
    if tier.name == "external":
        _log.warning(
            "untrusted programs run without bubblewrap: Landlock and seccomp only, and whatever is "
            "around this machine. Numbers are marked sandbox=external."
        )
    return tier


def find_tier(external: bool = False) -> Tier:
    """The tier of :func:`choose_tier`, before its self-test.

    Raises:
        SandboxUnavailable: something that the tier consists of is missing.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable("system", f"needs Linux, this is {sys.platform}")
    if not os.access(LAUNCHER, os.X_OK):
        fixes = ("install codeact again, with a C++ compiler",)
        raise SandboxUnavailable("launcher", f"{LAUNCHER} was not built", fixes)
    if external:
        return _external_tier()
    bwrap, version = find_bwrap()
    cgroups = find_cgroups(LAUNCHER)
    if isinstance(cgroups, NoCgroups):
        return Tier("bwrap", bwrap, version, no_cgroups=cgroups.reason)
    remove_stale(cgroups)
    return Tier("bwrap+cgroup", bwrap, version, cgroups)


def find_bwrap() -> tuple[Path, str]:
    """bwrap on PATH, and its version.

    Raises:
        SandboxUnavailable: there is none, it does not run, or it is older than 0.8.
    """
    found = shutil.which("bwrap")
    if found is None:
        reason = "bubblewrap is not installed: no bwrap on PATH"
        raise SandboxUnavailable("bwrap", reason, usual_fixes(reason))
    try:
        done = subprocess.run(
            [found, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxUnavailable("bwrap", f"{found} --version: {error}", usual_fixes("")) from None
    match = _VERSION.search(done.stdout)
    if match is None:
        reason = f"{found} --version says {(done.stdout + done.stderr)[:200]!r}"
        raise SandboxUnavailable("bwrap", reason, usual_fixes(""))
    if (int(match[1]), int(match[2])) < _OLDEST_BWRAP:
        oldest = ".".join(map(str, _OLDEST_BWRAP))
        reason = f"{found} is version {match[0]}, older than {oldest}"
        raise SandboxUnavailable("bwrap", reason, usual_fixes(""))
    return Path(found).absolute(), match[0]


def _external_tier() -> Tier:
    stated = os.environ.get(EXTERNAL_VARIABLE)
    if stated != "1":
        reason = f"external=True needs {EXTERNAL_VARIABLE}=1 in the environment, found {stated!r}"
        fix = f"set {EXTERNAL_VARIABLE}=1 where this machine or container is one to throw away"
        raise SandboxUnavailable("external tier", reason, (fix,))
    return Tier("external")

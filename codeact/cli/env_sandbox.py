"""The part of ``codeact env`` about programs that nobody trusts: walls, limits, compilers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from codeact.cli.env_piece import Piece

if TYPE_CHECKING:
    from codeact.sandbox.tiers import Tier

_USE = "runs and measures generated programs"
_GROUPS = "the kernel then holds the memory limit; without, it is looked at every few milliseconds"
_HOW = "run as root, or start the command with systemd-run --user --scope"
_PACKAGES = {
    "python": "python3",
    "cpp": "g++",
    "c": "gcc",
    "java": "default-jdk-headless",
    "javascript": "nodejs",
    "go": "golang-go",
    "rust": "rustc",
}


def walls() -> Iterator[Piece]:
    """The tier, and every check of the self-test that fails, tried afresh.

    The sandbox line stands for whether programs would run; a failing check has a line of its own.
    """
    from codeact.sandbox.tiers import EXTERNAL_VARIABLE, find_tier
    from codeact.sandbox.unavailable import SandboxUnavailable

    try:
        tier = find_tier()
    except SandboxUnavailable as error:
        yield Piece("sandbox", f"none ({error.check}: {error.reason})", _remedy(error.fixes))
    else:
        yield Piece("bwrap", f"{tier.version}, {tier.bwrap}")
        yield from _groups(tier)
        yield from _tried(tier)
    if os.environ.get(EXTERNAL_VARIABLE) == "1":
        yield from _tried(find_tier(external=True))


def languages() -> Iterator[Piece]:
    """The compiler or interpreter of each language that candidates may be written in."""
    from codeact.sandbox.programs.program import LANGUAGES
    from codeact.sandbox.programs.toolchains import MissingCompiler, find_toolchain

    for language in LANGUAGES:
        found = find_toolchain(language)
        name = f"runs {language}"
        if isinstance(found, MissingCompiler):
            remedy = f"measures answers in it; apt-get install {_PACKAGES[language]}"
            yield Piece(name, f"none ({found.reason})", remedy)
        else:
            yield Piece(name, found.version)


def _groups(tier: Tier) -> Iterator[Piece]:
    if tier.cgroups is None:
        yield Piece("cgroups", f"none ({tier.no_cgroups})", f"{_GROUPS}; {_HOW}")
        return
    folders = tier.cgroups.folders()
    version = "version 2" if tier.cgroups.unified else f"version 1: {', '.join(folders)}"
    yield Piece("cgroups", version)


def _tried(tier: Tier) -> Iterator[Piece]:
    """One line for the tier; where it is refused, one more for each wall that does not hold."""
    from codeact.sandbox.self_test import run_checks

    checks = list(run_checks(tier))
    failed = [check for check in checks if check.reason]
    if not failed:
        marked = "; numbers are marked, its walls are weak" if tier.name == "external" else ""
        yield Piece("sandbox", f"{tier.name}, {len(checks)} checks passed{marked}")
        return
    names = ", ".join(check.name for check in failed)
    yield Piece("sandbox", f"{tier.name} refused", f"{_USE}; it failed the check: {names}")
    for check in failed:
        yield Piece(check.name, check.reason, _remedy(check.fixes))


def _remedy(fixes: tuple[str, ...]) -> str:
    return f"{_USE}; {', or '.join(fixes) or 'nothing is known to help'}"

"""From source text to a command that runs in the sandbox: compiled inside it, kept by content."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from codeact.sandbox.limits import Limits
from codeact.sandbox.programs import compiled_store
from codeact.sandbox.programs.languages import (
    COMPILE_LIMITS,
    Language,
    MissingCompiler,
    Toolchain,
    compiled_folder,
    find_toolchain,
    language_of,
)
from codeact.sandbox.programs.program import Program
from codeact.sandbox.run import Run
from codeact.sandbox.verdict import Status, Verdict

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

PLACE = "/prog"  # where a compiled program lies inside
_DIAGNOSTICS_BYTES = 8192
_ERROR = re.compile(r"error|undefined reference", re.IGNORECASE)
# Diagnostics go to a file and only their head comes out; the artifact is all of standard output.
_SCRIPT = """\
{{ {build}; }} >diagnostics 2>&1 </dev/null
status=$?
[ $status = 0 ] && exec cat {artifact}
head -c {cap} diagnostics >&2
exit $status
"""


@dataclass(frozen=True)
class Prepared:
    """A program ready to run: arguments for `Sandbox.run`.

    Args:
        language: Its entry in the table.
        command: Program and arguments, paths as inside.
        mounts: The toolchain and the compiled program.
        environment: Variables beyond those that every run has.
        limits: Those asked for, or the language's own.
    """

    language: Language
    command: tuple[str, ...]
    mounts: tuple[tuple[Path, str], ...]
    limits: Limits
    environment: Mapping[str, str] = field(default_factory=dict)


def prepare(
    sandbox: Sandbox, program: Program, *, limits: Limits | None = None, measured: bool = False
) -> Prepared | Verdict:
    """Compiles a program inside the sandbox, or finds it compiled, and says how to run it.

    Args:
        sandbox: Where the compiler runs: a source is as hostile at compile time as later.
        program: Whole program, one file.
        limits: Of a run; None takes the language's.
        measured: Add the options that make a runtime's times repeatable (Node: one thread).

    Returns:
        The prepared program, or the verdict (of no tests) that it cannot be run:
        ``"syntax_error"`` (Python) or ``"compile_error"``, ``"time_limit"`` of the compiler,
        ``"no_compiler"``, ``"sandbox_error"``.
    """
    language = language_of(program.language)
    toolchain = find_toolchain(language.name)
    if isinstance(toolchain, MissingCompiler):
        return _refusal("no_compiler", toolchain.reason)
    compiled = _compiled(sandbox, program, language, toolchain)
    if isinstance(compiled, Verdict):
        return compiled
    limits = limits or language.limits
    inside = f"{PLACE}/{language.artifact_name}"
    values = {
        "artifact": inside,
        "heap_mib": str(limits.memory_bytes * 3 // 4 // 2**20),
        "stack_kib": str(limits.stack_bytes * 3 // 4 // 2**10),
    }
    options = language.measured_options if measured else ()
    template = (*language.run[:1], *options, *language.run[1:])
    return Prepared(
        language,
        tuple(language.fill(template, toolchain, values)),
        (*toolchain.mounts, (compiled, inside)),
        limits,
        {**toolchain.environment, **language.environment},
    )


def _compiled(
    sandbox: Sandbox, program: Program, language: Language, toolchain: Toolchain
) -> Path | Verdict:
    """The compiled program in the cache folder.

    Its name is the SHA-256 of all that decides it: source, commands (with their flags), variables,
    the compiler's version and the machine's architecture.
    """
    source = program.source_bytes
    names = dict(language.names(program.source)) if language.names else {}
    values = {"source": language.source_name, **names}
    build = [language.fill(command, toolchain, values) for command in language.build]
    environment = {"TMPDIR": "/box", **toolchain.environment, **language.build_environment}
    facts = [language.name, build, environment, toolchain.version, platform.machine()]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + b"\0" + source).hexdigest()
    folder = compiled_folder()
    if found := compiled_store.find(folder, key):
        return found
    script = _SCRIPT.format(
        build=" && ".join(shlex.join(words) for words in build),
        artifact=shlex.quote(language.artifact_name),
        cap=_DIAGNOSTICS_BYTES,
    )
    run = sandbox.run(
        ["/bin/sh", "-c", script],
        files={values["source"]: source},
        mounts=toolchain.mounts,
        environment=environment,
        limits=COMPILE_LIMITS,
    )
    return _failure(run, language) or compiled_store.store(folder, key, run.stdout)


def _failure(run: Run, language: Language) -> Verdict | None:
    """Why compiling came to nothing, None if it did not."""
    limits = COMPILE_LIMITS
    words = _diagnostic(run.stderr)
    if run.outcome == "failed":
        return _refusal("sandbox_error", words)
    # The limit of CPU time also ends a child of the driver, which then fails by itself.
    is_late = run.exit_code != 0 and run.cpu_seconds >= limits.cpu_seconds
    if is_late or run.outcome in ("wall_limit", "cpu_limit"):
        return _refusal("time_limit", f"compiling took more than {limits.cpu_seconds:g} s")
    if run.outcome == "memory_limit":
        size = limits.memory_bytes >> 20
        return _refusal(language.refused, f"compiling took more than {size} MiB of memory")
    if run.outcome == "output_limit":
        size = limits.output_bytes >> 20
        return _refusal(language.refused, f"the compiled program is larger than {size} MiB")
    if run.outcome == "signalled":
        return _refusal(language.refused, f"the compiler ended by signal {run.signal}")
    if run.exit_code != 0:
        return _refusal(language.refused, words or f"the compiler ended with {run.exit_code}")
    if not run.stdout and language.empty_source:
        return _refusal(language.refused, "the compiler made an empty program")
    return None


def _diagnostic(stderr: bytes) -> str:
    """The line of a compiler's output that names the error."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    return next((line for line in lines if _ERROR.search(line)), lines[0] if lines else "")


def _refusal(status: Status, reason: str) -> Verdict:
    return Verdict(status, reason, num_tests=0, num_passed=0, first_failed=None)

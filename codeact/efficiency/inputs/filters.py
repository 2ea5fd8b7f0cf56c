"""Marks on candidates that should not be run for efficiency data: risky, or no algorithm.

Marks, not protection: a name can be spelled in ways that no reading finds. What keeps the machine
safe is the sandbox; what these rules keep clean is the data. EffiCoder (arXiv:2410.10209) has a
language model drop risky and non-algorithmic tasks; ours are rules, so that they can be read,
repeated and argued with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from codeact.efficiency.inputs.python_names import python_uses
from codeact.efficiency.inputs.risky_names import (
    NOT_ALGORITHMIC,
    PYTHON_NOT_ALGORITHMIC,
    PYTHON_SAFE,
    PYTHON_UNSAFE,
    STATEMENT_WORDS,
    UNSAFE,
)
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import num_tests
from codeact.sandbox.verdict import Verdict

if TYPE_CHECKING:
    from codeact.tasks.task_file import Task

_COMMENT = re.compile(r"//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)")
# Of Python that does not parse, or nests too deep to be parsed here, imports alone are read.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<origin>[\w.]+)|import[ \t]+(?P<names>[\w., \t]+))", re.MULTILINE
)


class Finding(NamedTuple):
    """What a rule found: the kind (``"network"``), the words that matched, the line from 1."""

    kind: str
    words: str
    line: int


def filter_candidate(task: Task, program: Program) -> Verdict | None:
    """The verdict on a candidate that is not to be run, None if no rule speaks against it.

    Status ``"unsafe"`` or ``"not_algorithmic"``; the task's statement counts as well.
    """
    found: list[tuple[Literal["unsafe", "not_algorithmic"], Finding]]
    found = [("unsafe", finding) for finding in risky_operations(program.source, program.language)]
    found += [
        ("not_algorithmic", finding)
        for finding in worldly_operations(program.source, program.language)
    ]
    for status, (kind, words, line) in found:
        return _verdict(task, status, f"{kind}: {words} (line {line})")
    for kind, words, _ in worldly_words(task.instruction):
        return _verdict(task, "not_algorithmic", f"the task asks for {kind}: {words}")
    return None


def _verdict(task: Task, status: Literal["unsafe", "not_algorithmic"], reason: str) -> Verdict:
    return Verdict(status, reason, num_tests(task.tests), 0, None)


def is_algorithmic(task: Task, source: str, language: str = "python") -> bool:
    """Whether answer and running time depend on the arguments alone, as far as rules can tell.

    Not so: pictures, windows, the web, databases, machine-learning libraries, chance, the clock.
    """
    return not worldly_operations(source, language) and not worldly_words(task.instruction)


def risky_operations(source: str, language: str = "python") -> list[Finding]:
    """Files, network, processes, threads, native code, code made of text, the interpreter itself.

    Python by its syntax tree: imports are resolved, a program's own names are its own. Other
    languages, and Python that does not parse, by patterns on the text without comments. ``eval``
    of a literal is no finding; nor is reading standard input as contests do
    (``os.read(0, ...)``, ``readFileSync(0)``).
    """
    if language != "python":
        return _matches(_without_comments(source), UNSAFE.get(language, {}))
    return _python_findings(source, PYTHON_UNSAFE)


def worldly_operations(source: str, language: str = "python") -> list[Finding]:
    """What makes a program no algorithm: its results depend on more than its arguments."""
    if language != "python":
        return _matches(_without_comments(source), NOT_ALGORITHMIC.get(language, {}))
    return _python_findings(source, PYTHON_NOT_ALGORITHMIC)


def worldly_words(statement: str) -> list[Finding]:
    """What in a statement asks for more than an algorithm."""
    return _matches(statement, STATEMENT_WORDS)


def _python_findings(source: str, table: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    kinds = {name: kind for kind, names in table.items() for name in names}
    found: dict[tuple[str, int], Finding] = {}
    for name, line in _python_names(source):
        if name in PYTHON_SAFE:
            continue
        known = next((prefix for prefix in _prefixes(name) if prefix in kinds), None)
        # A bare `import os` does nothing yet; every other module is there for one purpose.
        if known and name != "os":
            found.setdefault((known, line), Finding(kinds[known], name.removeprefix("."), line))
    return list(found.values())


def _python_names(source: str) -> list[tuple[str, int]]:
    uses = python_uses(source)
    if uses is not None:
        return [(use.name, use.line) for use in uses]
    found = []
    for match in _IMPORT.finditer(source):
        line = source.count("\n", 0, match.start()) + 1
        names = [match["origin"]] if match["origin"] else match["names"].split(",")
        found += [(name.split()[0], line) for name in names if name.strip()]
    return found


def _prefixes(name: str) -> list[str]:
    """``a.b.c``, ``a.b``, ``a``."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _matches(text: str, table: Mapping[str, re.Pattern[str]]) -> list[Finding]:
    found = []
    for kind, pattern in table.items():
        match = pattern.search(text)
        if match:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Finding(kind, " ".join(match.group().split()), line))
    return sorted(found, key=lambda finding: finding.line)


def _without_comments(source: str) -> str:
    return _COMMENT.sub(lambda match: "\n" * match.group().count("\n"), source)

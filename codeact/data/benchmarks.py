"""Benchmark files and the strings in them that a training set must not hold."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeact.data.rows import read_rows
from codeact.errors import InputError

ENVIRONMENT_VARIABLE = "CODEACT_BENCHMARKS"
_FILE_NAME = re.compile(
    r"(?P<kind>humanevalplus|human-?eval|mbppplus|mbpp)(?:-v[\d.]+)?\.jsonl(?:\.gz)?", re.IGNORECASE
)
_NAMES = {
    "humaneval": "HumanEval",
    "humanevalplus": "HumanEval+",
    "mbpp": "MBPP",
    "mbppplus": "MBPP+",
}
_DOCSTRING = re.compile(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', re.DOTALL)


@dataclass(frozen=True)
class BenchmarkTask:
    """One problem.

    Attributes:
        task_id: Its id in the benchmark.
        texts: Strings none of which a training row may contain: the task in words, the solution.
        document: Prompt and solution as one text, for the n-gram rule.
    """

    task_id: str
    texts: tuple[str, ...]
    document: str


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's name (``HumanEval``, ``HumanEval+``, ``MBPP``, ``MBPP+``), tasks and file."""

    name: str
    tasks: tuple[BenchmarkTask, ...]
    path: str = ""


def find_benchmarks(folder: str | Path | None = None) -> list[Benchmark]:
    """Read the HumanEval and MBPP files of a folder, the EvalPlus versions included.

    Recognised by name, as their sources publish them: ``HumanEval.jsonl``,
    ``HumanEvalPlus-v0.1.10.jsonl``, ``MbppPlus-v0.2.0.jsonl``, ``mbpp.jsonl`` (any version, any
    case, plain or ``.gz``). All tasks count, MBPP's training split too, because MBPP+ draws on it.

    Args:
        folder: Where to look; without it, the folder that the environment variable
            CODEACT_BENCHMARKS names.

    Returns:
        One benchmark for each name found, ordered by name. An empty list where neither folder is
        given or the folder has no such file: the caller tells its user that nothing was compared.

    Raises:
        InputError: The folder does not exist, or a file in it is not what its name says.
    """
    given = folder if folder is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    if given is None:
        return []
    path = Path(given).expanduser()
    if not path.is_dir():
        origin = "folder of benchmarks" if folder is not None else ENVIRONMENT_VARIABLE
        raise InputError(f"{origin}: {path} is not a folder")
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        match = _FILE_NAME.fullmatch(file.name)
        if match:
            name = _NAMES[match["kind"].lower().replace("-", "")]
            found[name] = file  # the last in the order of names: the newest version
    return [_read_benchmark(name, found[name]) for name in sorted(found)]


def _read_benchmark(name: str, path: Path) -> Benchmark:
    rows = read_rows(path, "train")
    needed = (
        "task_id",
        *(("text", "code") if name == "MBPP" else ("prompt", "canonical_solution")),
    )
    for index, row in enumerate(rows.rows):
        missing = [field for field in needed if not isinstance(row, dict) or field not in row]
        if missing:
            raise InputError(f"{rows.place(index)}: a task of {name} needs {', '.join(missing)}")
    return Benchmark(name, tuple(_read_task(name, row) for row in rows.rows), str(path))


def _read_task(name: str, row: Mapping[str, Any]) -> BenchmarkTask:
    if name == "MBPP":
        text, solution = row["text"], row["code"]
        return BenchmarkTask(f"Mbpp/{row['task_id']}", (text, solution), f"{text}\n{solution}")
    prompt, solution = row["prompt"], row["canonical_solution"]
    words = _docstring(prompt)
    if name == "MBPP+":  # the docstring ends in one of the tests, which says nothing in words
        words = "\n".join(line for line in words.splitlines() if not line.startswith("assert "))
    return BenchmarkTask(row["task_id"], (words, solution), prompt + solution)


def _docstring(prompt: str) -> str:
    """The last docstring; a prompt's first may belong to a helper function."""
    found = _DOCSTRING.findall(prompt)
    return "".join(found[-1]) if found else prompt

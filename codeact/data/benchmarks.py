"""Benchmark files and the strings in them that a training set must not hold."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeact.data.rows import Rows, read_rows
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
_TABLE = re.compile(r"(?P<stem>.+)\.(?:jsonl?(?:\.gz)?|parquet)", re.IGNORECASE)
# What other benchmarks call their words and their solutions.
_TEXT_COLUMNS = (
    "prompt", "question", "text", "problem", "instruction", "instruct_prompt", "complete_prompt",
    "query", "description", "docstring", "question_content", "canonical_solution", "solution",
    "solutions", "code", "answer", "response", "output", "completion",
)  # fmt: skip
_ID_COLUMNS = ("task_id", "id", "question_id", "name")
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
    """A benchmark's name (such as ``HumanEval+``, or that of its file), its tasks and its file."""

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


def read_benchmark(path: str | Path, *, columns: Sequence[str] | None = None) -> Benchmark:
    """Read any file as a benchmark, named after the file.

    Files that :func:`find_benchmarks` would recognise are read as it reads them, unless columns are
    named. Of other JSON, JSON Lines (also ``.gz``) and Parquet files each row is a task, and the
    strings in its columns are its texts. Of any other file each line is a task and its text.

    Args:
        path: The file.
        columns: Columns with texts, each a string, a list of strings, or null. Without them, all
            those that benchmarks commonly have: prompt, question, canonical_solution and the like.

    Raises:
        InputError: The file is not there or cannot be read, has no such column, or holds no text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"benchmark: {path} is not a file")
    if columns is not None and not has_columns(path):
        raise InputError(f"{path}: columns were named, but only JSON and Parquet files have them")
    known = _FILE_NAME.fullmatch(path.name)
    if known and columns is None:
        return _read_benchmark(_NAMES[known["kind"].lower().replace("-", "")], path)
    table = _TABLE.fullmatch(path.name)
    if table:
        tasks = _read_table(read_rows(path, "train"), columns)
    else:
        tasks = [
            BenchmarkTask(f"line {number}", (line,), line)
            for number, line in enumerate(_read_lines(path), start=1)
            if line.strip()
        ]
    if not any(text.strip() for task in tasks for text in task.texts):
        raise InputError(f"{path}: a benchmark must hold text, got none")
    name = table["stem"] if table else path.name.removesuffix(".gz").removesuffix(".txt")
    return Benchmark(name, tuple(tasks), str(path))


def has_columns(path: Path) -> bool:
    """Whether a file of this name is a table, JSON or Parquet, rather than lines of text."""
    return _TABLE.fullmatch(path.name) is not None


def _read_lines(path: Path) -> list[str]:
    data = path.read_bytes()
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig").splitlines()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: text must be UTF-8 ({error.reason})") from None


def _read_table(rows: Rows, columns: Sequence[str] | None) -> list[BenchmarkTask]:
    tasks = []
    for index, row in enumerate(rows.rows):
        place = rows.place(index)
        if not isinstance(row, Mapping):
            raise InputError(f"{place}: must be an object, got {type(row).__name__}")
        used = [name for name in _TEXT_COLUMNS if name in row] if columns is None else columns
        missing = [name for name in used if name not in row]
        if missing or not used:
            wanted = missing[0] if missing else f"one of {', '.join(_TEXT_COLUMNS)}"
            raise InputError(f"{place}: no column {wanted}; it has {', '.join(map(str, row))}")
        texts = [text for name in used for text in _texts(row[name], f"{place}: {name}")]
        named = next((str(row[name]) for name in _ID_COLUMNS if row.get(name) is not None), None)
        tasks.append(BenchmarkTask(named or f"row {index}", tuple(texts), "\n".join(texts)))
    return tasks


def _texts(value: Any, place: str) -> list[str]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    for text in values:
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(f"{place} must be a string or a list of them, got {kind}")
    return values


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

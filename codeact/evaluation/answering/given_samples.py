"""Answers that are there already: files of ``codeact evaluate`` and of EvalPlus."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.evaluation.answering.answers import has_code
from codeact.evaluation.samples import Sample, sample_from_row

if TYPE_CHECKING:
    from codeact.evaluation.judging.problems import Problem

_NUM_SHOWN = 3
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class GivenSamples:
    """Samples of a file, one at most of each name.

    Attributes:
        samples: By benchmark, task and number.
        num_samples: Answers that each task should have.
        missing: Names that the file has no answer for; they count as failed.
        duplicated: Names with several answers, none of which is judged: nobody can say which of
            them is meant. They count as failed.
        empty: Names whose answer holds no code; they are among ``samples``, and count as failed.
    """

    samples: dict[tuple[str, str, int], Sample]
    num_samples: int
    missing: tuple[tuple[str, str, int], ...]
    duplicated: tuple[tuple[str, str, int], ...]
    empty: tuple[tuple[str, str, int], ...] = field(default=())

    def words(self) -> Iterator[str]:
        """A line for each fault, with the number of answers and the first ids."""
        for fault in ("missing", "duplicated", "empty"):
            names = getattr(self, fault)
            if names:
                ids = list(dict.fromkeys(name[1] for name in names))
                shown = ", ".join(ids[:_NUM_SHOWN]) + (", ..." if len(ids) > _NUM_SHOWN else "")
                yield f"{len(names)} answers {fault} ({shown}): counted as failed"


def benchmarks_of(rows: Iterable[dict[str, Any]]) -> frozenset[str]:
    """The benchmarks whose tasks occur, by the beginnings of their ids."""
    starts = {"HumanEval/": "humaneval", "Mbpp/": "mbpp"}
    ids = [str(row.get("task_id")) for row in rows]
    return frozenset(
        name for start, name in starts.items() if any(each.startswith(start) for each in ids)
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file, packed with gzip or not.

    Raises:
        InputError: The file is missing, broken, empty, or a line is no JSON object.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        lines = content.decode().split("\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read: broken gzip, or not UTF-8 text") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # an int of too many digits is a ValueError
            raise InputError(f"{path} line {number} is no JSON") from None
        if not isinstance(row, dict):
            raise InputError(f"{path} line {number} must be a JSON object, got {line[:40]!r}")
        rows.append(row)
    if not rows:
        raise InputError(f"{path} must hold at least 1 line, got none")
    return rows


def given_samples(
    rows: Sequence[dict[str, Any]],
    path: Path,
    problems: Sequence[Problem],
    known_ids: frozenset[str],
    num_samples: int | None = None,
) -> GivenSamples:
    """Check the rows of a file against the problems and give each a name.

    A row is one of ``samples.jsonl``, or has ``task_id`` and ``solution`` (a whole program) or
    ``completion`` (which goes on from the task's code, exactly as it stands), as EvalPlus takes
    them. EvalPlus's rows have no number: they are counted in the order of the file.

    Args:
        rows: From :func:`read_rows`.
        path: For messages.
        problems: That are judged; tasks of ``known_ids`` beside them are left out.
        known_ids: All tasks of the benchmarks.
        num_samples: Answers that each task should have; None is what most tasks of the file have.

    Raises:
        InputError: An unknown task, a row of neither form, or ``num_samples`` below what most tasks
            have.
    """
    wanted = {problem.task_id: problem for problem in problems}
    found: dict[str, list[Sample]] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path} row {number}"
        task_id = row.get("task_id")
        if not isinstance(task_id, str) or task_id not in known_ids:
            raise InputError(
                f"{where}: task_id must be a task of the benchmarks, got {task_id!r:.60}"
            )
        if task_id in wanted:
            earlier = found.setdefault(task_id, [])
            earlier.append(_sample(row, wanted[task_id], len(earlier), where))
    counts = Counter(map(len, found.values()))
    usual = min(counts, key=lambda count: (-counts[count], count), default=1)
    if num_samples is not None and num_samples < usual:
        raise InputError(f"num_samples must be at least {usual}, as in {path}, got {num_samples}")
    num_samples = num_samples or usual
    samples: dict[tuple[str, str, int], Sample] = {}
    missing, duplicated = [], []
    for problem in problems:
        answers = found.get(problem.task_id, [])
        numbers = Counter(sample.sample for sample in answers)
        # One answer too many, and no number says which are meant: none of them is judged.
        surplus = max(numbers, default=0) >= num_samples
        for number in range(num_samples):
            name = (problem.benchmark, problem.task_id, number)
            if surplus or numbers[number] > 1:
                duplicated.append(name)
            elif not numbers[number]:
                missing.append(name)
        samples |= {
            sample.name: sample for sample in answers if not surplus and numbers[sample.sample] == 1
        }
    empty = tuple(name for name, sample in samples.items() if not sample.solution)
    return GivenSamples(samples, num_samples, tuple(missing), tuple(duplicated), empty)


def _sample(row: dict[str, Any], problem: Problem, number: int, where: str) -> Sample:
    if "response" in row and "sample" in row:
        sample = sample_from_row(row, where)
        if sample.benchmark != problem.benchmark:
            raise InputError(f"{where}: {sample.task_id} is no task of {sample.benchmark!r:.40}")
        return sample
    column = "solution" if "solution" in row else "completion"  # EvalPlus looks in this order
    text = row.get(column)
    if not isinstance(text, str):
        raise InputError(f"{where}: solution or completion must be text, got {text!r:.40}")
    code = text if has_code(text) else ""
    if column == "completion" and code:
        code = problem.prompt + code
    return Sample(problem.benchmark, problem.task_id, number, text, code, 0.0, 0, "stop")

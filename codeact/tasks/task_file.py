"""Tasks: an instruction, tests that decide, and a reference solution where there is one."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.sandbox.tests import FunctionTests, Tests
from codeact.tasks.literals import UnreadableTestError

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

_BATCH_PER_WORKER = 4  # rows read ahead of what `limit` may still want


@dataclass(frozen=True)
class Task:
    """One problem.

    Args:
        id: Unique in its file.
        instruction: The problem in words, as a model is asked.
        tests: What decides whether an answer is right.
        reference: A complete right solution, None where there is none.
        language: Canonical name of the language that is asked for.
        prompt_code: Code that the answer begins with or must fit, such as a signature; may be
            empty. What a candidate needs besides stands in ``tests.prelude``.
        fields: What else the row says, such as its difficulty.
    """

    id: str
    instruction: str
    tests: Tests
    reference: str | None
    language: str = "python"
    prompt_code: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entry_point(self) -> str | None:
        """What the tests call, None where they run a program on standard input."""
        return self.tests.entry_point if isinstance(self.tests, FunctionTests) else None


@dataclass(frozen=True)
class Skipped:
    """A row that is no usable task, and why, in one line."""

    id: str
    reason: str


@dataclass(frozen=True)
class TaskFile:
    """The tasks of a file in its order, and the rows that are none."""

    tasks: tuple[Task, ...]
    skipped: tuple[Skipped, ...]


def load_tasks(
    source: str | Path | Sequence[Mapping[str, Any]],
    *,
    limit: int | None = None,
    seed: int = 0,
    sandbox: Sandbox | None = None,
) -> list[Task]:
    """The tasks of :func:`read_tasks`; how many rows were skipped and why is logged."""
    found = read_tasks(source, limit=limit, seed=seed, sandbox=sandbox)
    for skipped in found.skipped:
        logger.info("task %s skipped: %s", skipped.id, skipped.reason)
    if found.skipped:
        first = found.skipped[0]
        logger.warning(
            "%d tasks read, %d skipped: their tests cannot be used (%s: %s)",
            len(found.tasks), len(found.skipped), first.id, first.reason,
        )  # fmt: skip
    return list(found.tasks)


def read_tasks(
    source: str | Path | Sequence[Mapping[str, Any]],
    *,
    limit: int | None = None,
    seed: int = 0,
    sandbox: Sandbox | None = None,
) -> TaskFile:
    """Read tasks; each row is told by its columns.

    - The LeetCode set of newfacade: ``query``, ``prompt``, ``completion``, ``entry_point``,
      ``test`` with a function ``check``.
    - HumanEval: ``prompt``, ``canonical_solution``, ``test``; MBPP: ``text``, ``code``,
      ``test_list``.
    - HumanEval+ and MBPP+ (``base_input``, ``plus_input``): they hold no answers, so the canonical
      solution runs in ``sandbox`` once for each task.
    - Our own: ``id``, ``instruction``, ``tests`` (see :mod:`codeact.tasks.own_tasks`).

    A row whose tests cannot be read, or whose canonical solution fails, is skipped with the reason:
    a task with half of its tests would let wrong answers pass.

    Args:
        source: A JSON, JSON Lines (also ``.gz``) or Parquet file, or rows.
        limit: At most so many tasks, drawn by ``seed``; they keep the order of the file.
        seed: Of the draw.
        sandbox: Where canonical solutions run; only for HumanEval+ and MBPP+.

    Raises:
        InputError: The file cannot be read, a row is of no known kind, lacks a field or has one
            of a wrong type, an id comes twice, ``limit`` is not positive, no row is a usable task,
            or a sandbox is needed and not given.
    """
    from codeact.data.rows import read_rows  # it loads torch, which measuring does without
    from codeact.tasks.task_rows import row_id, task_of_row

    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    rows = read_rows(source, "train")
    ids = [row_id(row, rows.place(index)) for index, row in enumerate(rows.rows)]
    _check_unique(ids, rows.source)

    def read(index: int) -> Task | Skipped:
        try:
            return task_of_row(rows.rows[index], ids[index], rows.place(index), sandbox)
        except UnreadableTestError as error:
            return Skipped(ids[index], str(error))

    order = _order(len(ids), limit, seed)
    found = _read_all(read, order, sandbox.workers if sandbox else 1, limit)
    return _sorted(found, rows.source)


def _sorted(found: Mapping[int, Task | Skipped], source: str) -> TaskFile:
    in_order = [found[index] for index in sorted(found)]
    tasks = tuple(each for each in in_order if isinstance(each, Task))
    skipped = tuple(each for each in in_order if isinstance(each, Skipped))
    if not tasks:
        raise InputError(
            f"{source}: no task can be used, {len(skipped)} skipped "
            f"({skipped[0].id}: {skipped[0].reason})"
        )
    return TaskFile(tasks, skipped)


def _check_unique(ids: Sequence[str], source: str) -> None:
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise InputError(f"{source}: task ids must be unique, {name!r} comes {count} times")


def _order(num_rows: int, limit: int | None, seed: int) -> list[int]:
    order = list(range(num_rows))
    if limit is not None and limit < num_rows:
        random.Random(seed).shuffle(order)
    return order


def _read_all(
    read: Callable[[int], Task | Skipped], order: Sequence[int], workers: int, limit: int | None
) -> dict[int, Task | Skipped]:
    """Rows read in their order up to ``limit`` tasks, several at a time: solutions may run."""
    found: dict[int, Task | Skipped] = {}
    num_tasks = 0
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(order), _BATCH_PER_WORKER * workers):
            batch = order[start : start + _BATCH_PER_WORKER * workers]
            for index, task in zip(batch, pool.map(read, batch), strict=True):
                found[index] = task
                num_tasks += isinstance(task, Task)
                if num_tasks == limit:
                    return found
    return found

"""Candidate solutions of tasks: read, cut out of a model's words, and told apart by their text."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codeact.errors import InputError
from codeact.sandbox.programs.languages import canonical_language
from codeact.tasks.code_blocks import complete_code, extract_code
from codeact.tasks.task_file import Task

logger = logging.getLogger(__name__)

_TEXTS = ("source", "completion", "response")
_ORIGINS = ("origin", "model")
_SHOWN_IDS = 3


@dataclass(frozen=True)
class Candidate:
    """One program for one task.

    Args:
        id: Unique in its file and the same in every run: origin and a hash of task, language
            and source, or the row's own ``id``.
        task_id: The task that it is for.
        source: The whole program; empty where the model wrote none.
        language: Canonical name.
        origin: Who wrote it, such as a model's name.
        copies: Rows of this origin with this very text, itself included.
        response: The model's words around the program; None if the row holds only the program.
    """

    id: str
    task_id: str
    source: str
    language: str
    origin: str
    copies: int = 1
    response: str | None = None


@dataclass(frozen=True)
class CandidateFile:
    """Candidates in the order of their file, and the number of rows dropped as copies."""

    candidates: tuple[Candidate, ...]
    num_duplicates: int


def load_candidates(
    source: str | Path | Sequence[Mapping[str, Any]], tasks: Sequence[Task]
) -> list[Candidate]:
    """The candidates of :func:`read_candidates`; the number of copies dropped is logged."""
    found = read_candidates(source, tasks)
    if found.num_duplicates:
        logger.info(
            "%d candidates read, %d copies dropped",
            len(found.candidates), found.num_duplicates,
        )  # fmt: skip
    return list(found.candidates)


def read_candidates(
    source: str | Path | Sequence[Mapping[str, Any]], tasks: Sequence[Task]
) -> CandidateFile:
    """Read rows with ``task_id`` and a program.

    A row has ``source`` (the program itself) or ``response`` or ``completion`` (a model's words:
    the program is cut out by :func:`extract_code`, and a mere continuation of the task's
    ``prompt_code`` gets that in front). It may have ``language`` (without it the task's),
    ``origin`` or ``model``, and ``id``. An answer without any
    program stays, with an empty source: it counts as a failure of its origin.

    Rows of one origin with the same task, language and source are one candidate; ``copies`` counts
    them, because pass@k and its like count samples. The same text of two origins stays twice.

    Raises:
        InputError: A row is malformed, tasks are not known, or an id comes twice.
    """
    from codeact.data.rows import read_rows  # it loads torch, which measuring does without

    rows = read_rows(source, "train")
    known = {task.id: task for task in tasks}
    places = [rows.place(index) for index in range(len(rows.rows))]
    _check_task_ids(rows.rows, places, rows.source, known)
    kept: dict[tuple[str, str, str, str], Candidate] = {}
    for row, place in zip(rows.rows, places, strict=True):
        candidate = _read(row, known[str(row["task_id"])], place)
        key = (candidate.origin, candidate.task_id, candidate.language, candidate.source)
        first = kept.setdefault(key, candidate)
        if first is not candidate:
            kept[key] = replace(first, copies=first.copies + 1)
    _check_ids(kept.values(), rows.source)
    return CandidateFile(tuple(kept.values()), len(rows.rows) - len(kept))


def candidate_id(origin: str, task_id: str, language: str, source: str) -> str:
    """``origin-hash``: twelve digits of the SHA-256 of task, language and source."""
    text = "\0".join((task_id, language, source))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{origin}-{digest[:12]}"


def _read(row: Mapping[str, Any], task: Task, place: str) -> Candidate:
    language = _text(row, "language", place)
    language = canonical_language(language) if language is not None else task.language
    named = next((name for name in _TEXTS if row.get(name) is not None), None)
    if named is None:
        raise InputError(f"{place}: needs one of {', '.join(_TEXTS)}, got {', '.join(row)}")
    text = _text(row, named, place) or ""
    source = text
    if named != "source":
        code = extract_code(text, language=language, entry_point=task.entry_point)
        source = complete_code(code, prompt_code=task.prompt_code, entry_point=task.entry_point)
    if not source.strip():
        source = ""
    origin = next((value for name in _ORIGINS if (value := _text(row, name, place))), "unknown")
    name = row.get("id")
    if name is None:
        name = candidate_id(origin, task.id, language, source)
    response = None if named == "source" else text
    return Candidate(str(name), task.id, source, language, origin, response=response)


def _text(row: Mapping[str, Any], column: str, place: str) -> str | None:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{place}: {column} must be a string, got {type(value).__name__}")
    return value


def _check_task_ids(
    rows: Sequence[Any], places: Sequence[str], source: str, known: Mapping[str, Task]
) -> None:
    unknown: dict[str, None] = {}
    num_unknown = 0
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, Mapping):
            raise InputError(f"{place}: must be an object, got {type(row).__name__}")
        if not isinstance(row.get("task_id"), (str, int)):
            raise InputError(f"{place}: task_id must be a string, got {row.get('task_id')!r}")
        if str(row["task_id"]) not in known:
            unknown[str(row["task_id"])] = None
            num_unknown += 1
    if unknown:
        shown = ", ".join(list(unknown)[:_SHOWN_IDS]) + (
            ", ..." if len(unknown) > _SHOWN_IDS else ""
        )
        raise InputError(
            f"{source}: {num_unknown} of {len(rows)} candidates are for {len(unknown)} unknown "
            f"tasks ({shown}); {len(known)} tasks are known, such as {next(iter(known), 'none')}"
        )


def _check_ids(candidates: Iterable[Candidate], source: str) -> None:
    seen: dict[str, Candidate] = {}
    for candidate in candidates:
        other = seen.setdefault(candidate.id, candidate)
        if other is not candidate:
            raise InputError(
                f"{source}: candidate ids must be unique, {candidate.id!r} comes for tasks "
                f"{other.task_id} and {candidate.task_id}"
            )

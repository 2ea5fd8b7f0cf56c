"""The rows of ``experiment.py``: a pool to select from and held-out rows, drawn once and kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from experiment_grid import Settings
from numpy.typing import NDArray

from codeact.data import (
    Example,
    Examples,
    decontaminate,
    find_benchmarks,
    find_duplicates,
    find_overlap,
    harvest_functions,
    load_examples,
    load_validations,
    tokenize_examples,
)
from codeact.data.language import detect_language
from codeact.data.rows import read_rows
from codeact.data.validation import load_validation
from codeact.errors import InputError
from codeact.files import read_json, write_json, write_jsonl
from codeact.models import load_tokenizer
from codeact.selection import Candidates, select_rows

logger = logging.getLogger(__name__)

# Instruction data of several kinds, where $CODEACT_DATA has it.
_FILES = ("gpteacher_codegen", "evol_code_gen1", "evol_code_gen2_part", "oss_docstring_python")
_MBPP_TRAIN = range(601, 975)  # task ids of MBPP's training split


class Split(NamedTuple):
    """Rows to select from, rows that no cell trains on, and how they were found."""

    pool: Examples
    held_out: Examples
    facts: Mapping[str, Any]


def default_data() -> tuple[str, ...]:
    """Instruction files below ``$CODEACT_DATA/sft``; none where there is no such folder."""
    folder = _data_folder("sft")
    files = [folder / f"{name}.jsonl.gz" for name in _FILES] if folder else []
    return tuple(str(file) for file in files if file.is_file())


def benchmark_folder() -> Path | None:
    """Where the texts of HumanEval and MBPP are: ``$CODEACT_DATA/bench``, if there."""
    return _data_folder("bench")


def _data_folder(name: str) -> Path | None:
    """A folder below ``$CODEACT_DATA``, None where there is none."""
    folder = Path(os.environ.get("CODEACT_DATA") or "/nonexistent", name)
    return folder if folder.is_dir() else None


def mbpp_train(folder: Path | None, limit: int, seed: int) -> dict[str, Examples]:
    """Tasks of MBPP's training split that are not in MBPP+, which draws on all splits.

    So neither HumanEval(+) nor MBPP(+) is looked at by a method that learns from them. Empty
    where the folder has not both files.
    """
    if folder is None:
        return {}
    found = {benchmark.name: Path(benchmark.path) for benchmark in find_benchmarks(folder)}
    if not {"MBPP", "MBPP+"} <= set(found):
        return {}
    tested = {str(row["task_id"]).rpartition("/")[2] for row in read_rows(found["MBPP+"], "").rows}
    rows = [
        row
        for row in read_rows(found["MBPP"], "").rows
        if int(row["task_id"]) in _MBPP_TRAIN and str(row["task_id"]) not in tested
    ]
    return load_validation(rows, name="mbpp-train", limit=limit, seed=seed)


def load_tasks(settings: Settings) -> dict[str, Examples]:
    """What ``influence`` is measured against; empty where nothing is there.

    Raises:
        InputError: a named file has tasks that the cells are to be evaluated on.
    """
    limit, seed = settings.num_problems, settings.split_seed
    if not settings.validation:
        return mbpp_train(benchmark_folder(), limit, seed)
    tasks = load_validations(settings.validation, limit=limit, seed=seed)
    folder = benchmark_folder()
    wanted = {name + plus for name in settings.benchmarks.names for plus in ("", "+")}
    tested = [b for b in find_benchmarks(folder) if b.name.lower() in wanted] if folder else []
    for task, examples in tasks.items():
        hits = decontaminate(examples, tested).hits
        if hits:
            raise InputError(
                f"validation: {task} holds {len({hit.id for hit in hits})} tasks of the benchmarks "
                f"to evaluate on, first {hits[0].id}: influence would select for the test"
            )
    return tasks


def make_split(settings: Settings, tasks: Mapping[str, Examples], folder: Path) -> Split:
    """Pool and held-out rows, from ``folder`` where an earlier call left them.

    Rows that are cut at ``max_length`` or have no answer go first. Of the others a stratified
    draw (by file and language) keeps twice what is needed; of these go rows with material of
    HumanEval or MBPP or of the validation tasks, and near copies of each other, so that no
    held-out row has a twin in the pool. Held-out rows and pool are stratified draws of the rest.

    Raises:
        InputError: too few rows are left.
    """
    paths = folder / "pool.jsonl", folder / "held_out.jsonl"
    if not (folder / "split.json").is_file():
        pool, held_out, facts = _draw(settings, tasks)
        for path, rows in zip(paths, (pool, held_out), strict=True):
            write_jsonl(path, [_as_row(row) for row in rows])
        write_json(folder / "split.json", facts)
    return Split(*map(load_examples, paths), read_json(folder / "split.json"))


def strata_of(examples: Examples) -> list[str]:
    """File and language of each row."""
    return [str(row.fields["stratum"]) for row in examples]


def _draw(
    settings: Settings, tasks: Mapping[str, Examples]
) -> tuple[Examples, Examples, dict[str, Any]]:
    rows = _load(settings)
    facts: dict[str, Any] = {"rows": len(rows)}
    tokenizer = load_tokenizer(settings.model)
    tokenized = tokenize_examples(rows, tokenizer, max_length=settings.max_length)
    rows = rows.select([k for k, status in enumerate(tokenized.status) if status == "ok"])
    facts["whole rows"] = len(rows)
    needed = settings.num_rows + settings.num_held_out
    rows = rows.select(_stratified(rows, min(2 * needed, len(rows)), settings.split_seed))
    facts["drawn"] = len(rows)
    folder = benchmark_folder()
    benchmarks = find_benchmarks(folder) if folder else []
    if not benchmarks:
        logger.warning("no benchmark texts: rows are not compared with HumanEval and MBPP")
    rows = rows.select(decontaminate(rows, benchmarks).kept)
    overlapping = {overlap.pool_id for overlap in find_overlap(rows, tasks)} if tasks else set()
    rows = rows.select([k for k, row in enumerate(rows) if row.id not in overlapping])
    facts["without benchmark texts"] = len(rows)
    rows = rows.select(find_duplicates(rows).kept)
    facts["without near copies"] = len(rows)
    if len(rows) < needed:
        raise InputError(
            f"rows and held-out rows must be at most the {len(rows)} left of {facts['rows']} "
            f"after the filters, got {needed}"
        )
    places = _stratified(rows, settings.num_held_out, settings.split_seed)
    rest = rows.select(np.setdiff1d(np.arange(len(rows)), places))
    pool = rest.select(_stratified(rest, settings.num_rows, settings.split_seed + 1))
    held_out = rows.select(places)
    facts |= {"pool": len(pool), "held out": len(held_out), "pool hash": pool.content_hash()}
    return pool, held_out, facts | {"held-out hash": held_out.content_hash()}


def _load(settings: Settings) -> Examples:
    """All files as one set; every row knows its stratum."""
    if not settings.data:
        sets = {"functions": harvest_functions()}
    else:
        sets = {Path(file).name.partition(".")[0]: load_examples(file) for file in settings.data}
    rows = [
        Example(
            f"{stem}/{row.id.removeprefix(f'{stem}:')}",
            row.messages,
            {"stratum": f"{stem}/{detect_language(row)}"},
        )
        for stem, examples in sets.items()
        for row in examples
    ]
    return Examples(rows, ", ".join(settings.data) or "functions of installed packages")


def _stratified(rows: Examples, count: int, seed: int) -> NDArray[np.int64]:
    """So many rows in the order of the set, each stratum with its share."""
    known = Candidates(ids=rows.ids, strata=strata_of(rows))
    chosen = select_rows("stratified-random", known, count, seed=seed).selected_
    return np.asarray(np.sort(chosen))


def _as_row(row: Example) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in row.messages]
    return {"id": row.id, "messages": messages, **row.fields}

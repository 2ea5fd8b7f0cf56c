"""The number columns of scores tables, which have to hold the data's rows in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codeact.errors import InputError

Column = np.ndarray[Any, Any]

# What tables of different presets count alike; where they differ by their cut, the first counts.
_COUNTS = ("num_prompt_tokens", "num_response_tokens")


@dataclass
class ScoreColumns:
    """The number columns of one or several scores tables.

    Attributes:
        columns: (num_rows,) float64 by name, NaN for null.
        unusable: Why a column that is there cannot be used, by name.
        tables: The columns of each table, None for one that holds something else.
    """

    columns: dict[str, Column] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    tables: list[Mapping[str, Column | None]] = field(default_factory=list)

    def add(self, path: Path, table: Mapping[str, Column | None]) -> None:
        """Take the columns of a further table."""
        self.tables.append(table)
        for name, numbers in table.items():
            if numbers is None:
                self.unusable[name] = f"column {name} of {path} holds values that are no numbers"
            elif name not in self.columns:
                self.columns[name] = numbers
            elif name not in _COUNTS and not np.array_equal(
                self.columns[name], numbers, equal_nan=True
            ):
                self.unusable[name] = f"column {name} differs between the tables of --scores"

    def settle(self, *groups: Sequence[str]) -> None:
        """Refuse columns that cannot be used.

        One that differs between tables is taken of the only table that has its whole group: the
        ``ppl_direct`` that stands beside ``rmi`` is that of the instruction, not of the response.

        Args:
            *groups: Columns that are read together.

        Raises:
            InputError: One of them cannot be used.
        """
        sources: dict[str, Mapping[str, Column | None]] = {}
        for names in groups:
            whole = [t for t in self.tables if all(t.get(name) is not None for name in names)]
            for name in names:
                if name not in self.unusable:
                    continue
                found = whole[0].get(name) if len(whole) == 1 else None
                if found is None or sources.setdefault(name, whole[0]) is not whole[0]:
                    raise InputError(f"{self.unusable[name]}; give the one table that is meant")
                self.columns[name] = found

    def required(self, name: str, path: Path) -> Column:
        """A column that has to be there.

        Raises:
            InputError: It is not, or cannot be used.
        """
        self.settle([name])
        if name not in self.columns:
            raise InputError(f"{path} lacks the column {name}")
        return self.columns[name]

    def tokens(self) -> tuple[Column, Column] | None:
        """Tokens of prompt and response; None without both columns in full."""
        if not all(name in self.columns for name in _COUNTS):
            return None
        prompts, responses = (self.columns[name] for name in _COUNTS)
        if np.isnan(prompts).any() or np.isnan(responses).any():
            return None
        return prompts.astype(np.int64), responses.astype(np.int64)


def read_scores(
    paths: Sequence[Path], ids: Sequence[str], data: str, option: str = "--scores"
) -> ScoreColumns:
    """The columns of all tables, each of which holds the rows of the data in their order.

    Raises:
        InputError: A table is missing or broken, or has other rows; file, option and row are named.
    """
    scores = ScoreColumns()
    for path in paths:
        read = _read_parquet if path.suffix == ".parquet" else _read_jsonl
        names, table = read(path)
        _check_rows(names, ids, data, path, option)
        scores.add(path, table)
    return scores


def _read_parquet(path: Path) -> tuple[list[Any], dict[str, Column | None]]:
    """Ids and columns of a table, without a Python object for every number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from codeact.files import read_parquet

    names = read_parquet(path, ["id"])["id"].to_pylist()  # its errors name the file
    is_number = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    columns: dict[str, Column | None] = {}
    for part in pq.read_schema(path):
        # Losses of single tokens are the bulk of a table and no score: they stay on the disk.
        if part.name == "id" or pa.types.is_nested(part.type):
            continue
        columns[part.name] = None
        if any(check(part.type) for check in is_number):
            numbers = read_parquet(path, [part.name])[part.name].cast(pa.float64(), safe=False)
            columns[part.name] = numbers.to_numpy()  # null is NaN there
    return names, columns


def _read_jsonl(path: Path) -> tuple[list[Any], dict[str, Column | None]]:
    from codeact.files import read_jsonl

    rows = list(read_jsonl(path))
    for number, row in enumerate(rows, start=1):
        if "id" not in row:
            raise InputError(f"{path} row {number} lacks the field id")
    names = dict.fromkeys(name for row in rows[:1] for name in row if name != "id")
    columns = {name: _numbers([row.get(name) for row in rows]) for name in names}
    return [row["id"] for row in rows], columns


def _numbers(values: Sequence[Any]) -> Column | None:
    """float64 with NaN for null; None when a value is something else."""
    if any(isinstance(value, (str, bool, list, dict)) for value in values):
        return None
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _check_rows(
    names: Sequence[str], ids: Sequence[str], data: str, path: Path, option: str
) -> None:
    check_count(len(names), len(ids), data, path, option)
    for row, (id_, other) in enumerate(zip(ids, names, strict=True)):
        if id_ != other:
            raise InputError(
                f"{option} must hold the rows of {data} in their order, but row {row} is {id_!r} "
                f"there and {other!r} in {path}"
            )


def check_count(count: int, wanted: int, data: str, path: Path, option: str) -> None:
    """Refuse a file of another number of rows than the data has.

    Raises:
        InputError: ``count`` is not ``wanted``.
    """
    if count != wanted:
        raise InputError(f"{option} must hold the {wanted} rows of {data}, got {count} in {path}")

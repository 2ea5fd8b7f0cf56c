"""Influence at several checkpoints: an array of checkpoints x rows x tasks, and its one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.scoring.influence.history_rows import (
    PREFIX,
    Floats,
    column_values,
    common_rows,
    is_task_column,
)
from codeact.scoring.influence.table import INFLUENCE, TOKEN_INFLUENCE_FIELD, task_column

_AT = "@"
_LAST = ("status", TOKEN_INFLUENCE_FIELD.name)  # columns that stand behind the influence
_WEIGHTS = b"codeact.influence.weights"  # in the table's schema metadata, which JSONL does not keep


@dataclass(frozen=True, eq=False)
class InfluenceHistory:
    """Influence of the rows of a pool on every task at every checkpoint.

    Attributes:
        ids: Of the rows.
        checkpoints: Names, in the order of training; one name, ``""``, for a model that is alone.
        tasks: Names, none with an ``@``.
        values: (num_checkpoints, num_rows, num_tasks) float64, NaN where a row has none.
        weights: (num_checkpoints,) float64, not negative: learning rates, as TracIn sums
            ``eta_t <grad l(x; theta_t), grad L(V; theta_t)>`` (arXiv:2002.08484), or ones.
        rows: What else the tables say of the rows, without influence; None if nothing.
    """

    ids: tuple[str, ...]
    checkpoints: tuple[str, ...]
    tasks: tuple[str, ...]
    values: Floats
    weights: Floats
    rows: pa.Table | None = None

    @classmethod
    def of_tables(
        cls, tables: Mapping[str, pa.Table], weights: ArrayLike | None = None
    ) -> InfluenceHistory:
        """Put the influence tables of several checkpoints side by side.

        Args:
            tables: By name of the checkpoint, in the order of training; the same rows in the same
                order and the same tasks.
            weights: (num_checkpoints,) of the mean over checkpoints; None weighs all alike.

        Raises:
            InputError: No table; other rows, another order or other tasks at a checkpoint (named);
                weights that are negative, not finite, all zero or of another number.
        """
        if not tables:
            raise InputError("tables must hold the influence of at least one checkpoint, got none")
        (first_name, first), *others = tables.items()
        ids, tasks = _ids(first, first_name), _tasks(first, first_name)
        for name, table in others:
            _check_same(name, (_ids(table, name), _tasks(table, name)), first_name, (ids, tasks))
        values = np.stack(
            [
                np.stack([column_values(table, task_column(task)) for task in tasks], axis=1)
                for table in tables.values()
            ]
        )
        checked = _weights(weights, len(tables))
        rows = common_rows(list(tables.values()), checked)
        return cls(ids, tuple(tables), tasks, values, checked, rows)

    @classmethod
    def of_table(cls, table: pa.Table) -> InfluenceHistory:
        """Read back what :meth:`combined` wrote.

        A table without ``@`` columns is one checkpoint named ``""``. Weights come from the table's
        metadata; where that is lost (JSONL), all checkpoints weigh alike.

        Raises:
            InputError: No influence column, or a task that a checkpoint lacks.
        """
        ids, names = _ids(table, ""), _influence_columns(table)
        parts = [name.removeprefix(PREFIX).partition(_AT) for name in names]
        if not any(at for _, at, _ in parts):
            return cls.of_tables({"": table})
        checkpoints = tuple(dict.fromkeys(name for _, at, name in parts if at))
        tasks = tuple(dict.fromkeys(task for task, at, _ in parts if at))
        wanted = [[task_column(task, name) for task in tasks] for name in checkpoints]
        for column in (column for columns in wanted for column in columns):
            if column not in table.column_names:
                raise InputError(f"table must hold every task at every checkpoint, lacks {column}")
        values = np.stack(
            [np.stack([column_values(table, c) for c in columns], axis=1) for columns in wanted]
        )
        known = json.loads((table.schema.metadata or {}).get(_WEIGHTS, b"{}"))
        weights = [known.get(name, 1.0) for name in checkpoints] if known else None
        checked = _weights(weights, len(checkpoints))
        return cls(ids, checkpoints, tasks, values, checked, common_rows([table], np.ones(1)))

    def combined(self) -> pa.Table:
        """One influence table of all checkpoints.

        ``influence_<task>`` is the mean over checkpoints by :attr:`weights`, null where a
        checkpoint has none, ``influence`` the mean of these over tasks; with several checkpoints
        also ``influence_<task>@<checkpoint>``. ``status`` is ``ok`` only where it is at every
        checkpoint. ``nll_response`` and ``token_influence`` are means by the same weights,
        ``ppl_response`` is exp of that mean.
        """
        rows = self.rows if self.rows is not None else pa.table({"id": list(self.ids)})
        means = self.mean()
        columns = {INFLUENCE: means.mean(axis=1)}
        columns |= {task_column(task): means[:, place] for place, task in enumerate(self.tasks)}
        if len(self.checkpoints) > 1:
            for checkpoint, values in zip(self.checkpoints, self.values, strict=True):
                for task, column in zip(self.tasks, values.T, strict=True):
                    columns[task_column(task, checkpoint)] = column
        last = [
            name for name in ("status", TOKEN_INFLUENCE_FIELD.name) if name in rows.column_names
        ]
        table = rows.drop_columns(last)
        for name, column in columns.items():
            table = table.append_column(
                pa.field(name, pa.float64()), pa.array(column, from_pandas=True)
            )
        for name in last:
            table = table.append_column(rows.schema.field(name), rows[name])
        if len(self.checkpoints) == 1:
            return table
        weights = dict(zip(self.checkpoints, self.weights.tolist(), strict=True))
        metadata = {**(table.schema.metadata or {}), _WEIGHTS: json.dumps(weights).encode()}
        return table.replace_schema_metadata(metadata)

    def mean(self) -> Floats:
        """(num_rows, num_tasks) means over checkpoints by :attr:`weights`; NaN if one has none."""
        shares = self.weights / self.weights.sum()
        means: Floats = (shares[:, None, None] * self.values).sum(axis=0)
        return means


def _ids(table: pa.Table, checkpoint: str) -> tuple[str, ...]:
    if "id" not in table.column_names:
        raise InputError(f"the influence table{_of(checkpoint)} must have a column id, got none")
    return tuple(str(name) for name in table["id"].to_pylist())


def _influence_columns(table: pa.Table) -> list[str]:
    """Columns of one task; ``influence_source`` and other words are none."""
    return [field.name for field in table.schema if is_task_column(field)]


def _tasks(table: pa.Table, checkpoint: str) -> tuple[str, ...]:
    tasks = [name.removeprefix(PREFIX) for name in _influence_columns(table) if _AT not in name]
    if not tasks:
        raise InputError(
            f"the influence table{_of(checkpoint)} must have a column influence_<task>, got "
            + ", ".join(table.column_names)
        )
    return tuple(tasks)


def _check_same(
    name: str,
    got: tuple[Sequence[str], Sequence[str]],
    first: str,
    wanted: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Rows and tasks of a checkpoint are those of the first."""
    for what, ours, theirs in zip(("rows", "tasks"), got, wanted, strict=True):
        if tuple(ours) == tuple(theirs):
            continue
        if len(ours) != len(theirs):
            told = f"{len(theirs)} and {len(ours)}"
        else:
            place = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
            told = f"{theirs[place]!r} and {ours[place]!r} at {place}"
        raise InputError(
            f"checkpoints must have the same {what} in the same order, "
            f"got for {first!r} and {name!r}: {told}"
        )


def _weights(weights: ArrayLike | None, num_checkpoints: int) -> NDArray[np.float64]:
    values = np.asarray([1.0] * num_checkpoints if weights is None else weights, dtype=np.float64)
    if values.shape != (num_checkpoints,):
        raise InputError(
            f"weights must be one number a checkpoint ({num_checkpoints}), got {values.shape}"
        )
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() == 0:
        raise InputError(
            f"weights must be finite, not negative and not all 0, got {values.tolist()}"
        )
    return values


def _of(checkpoint: str) -> str:
    return f" of {checkpoint!r}" if checkpoint else ""

"""What the influence tables of several checkpoints say of the rows beside influence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.scoring.influence.table import INFLUENCE, TOKEN_INFLUENCE_FIELD, task_column
from codeact.scoring.spans import SCORABLE

Floats = NDArray[np.float64]

PREFIX = task_column("")  # of a column of one task
_SOURCE = task_column("source")  # measured or predicted; validation refuses the name
_MEANS = ("nll_response", "ppl_response")
_TOKENS = TOKEN_INFLUENCE_FIELD.name


def column_values(table: pa.Table, name: str) -> Floats:
    """(num_rows,) float64, NaN for null."""
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)


def common_rows(tables: Sequence[pa.Table], weights: Floats) -> pa.Table:
    """Columns other than influence: means of losses and token values, the worst status.

    Every other column is that of the first table. A mean is null where a table has none.
    """
    first = tables[0]
    rows = first.select(
        [f.name for f in first.schema if f.name != INFLUENCE and not is_task_column(f)]
    )
    if len(tables) == 1:
        return rows
    if "status" in rows.column_names:
        rows = _replaced(rows, "status", pa.array(_statuses(tables), pa.string()))
    if all("nll_response" in table.column_names for table in tables):
        losses = np.stack([column_values(table, "nll_response") for table in tables])
        mean = (weights / weights.sum()) @ losses
        for name, values in zip(_MEANS, (mean, np.exp(mean)), strict=True):
            if name in rows.column_names:
                rows = _replaced(rows, name, pa.array(values, pa.float64(), from_pandas=True))
    if _TOKENS in rows.column_names:
        rows = _with_mean_tokens(rows, tables, weights)
    return rows


def is_task_column(field: pa.Field) -> bool:
    """Whether a column holds influence on a task; ``influence_source`` holds words."""
    kind = field.type
    if pa.types.is_null(kind):  # what JSONL makes of a column of nulls
        return bool(field.name.startswith(PREFIX) and field.name != _SOURCE)
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return bool(is_number and field.name.startswith(PREFIX))


def _replaced(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), column)


def _statuses(tables: Sequence[pa.Table]) -> list[str]:
    """Of each row the first status that is not ok, a failure before a truncation."""
    columns = [table["status"].to_pylist() for table in tables]
    return [
        min(found, key=lambda status: (status in SCORABLE, status == "ok"))
        for found in zip(*columns, strict=True)
    ]


def _with_mean_tokens(rows: pa.Table, tables: Sequence[pa.Table], weights: Floats) -> pa.Table:
    """Mean token values where every table has the same number of them, else null."""
    if not all(_TOKENS in table.column_names for table in tables):
        return rows.drop_columns([_TOKENS])
    shares = weights / weights.sum()
    columns = [table[_TOKENS].to_pylist() for table in tables]
    means = []
    for lists in zip(*columns, strict=True):
        alike = all(one is not None and len(one) == len(lists[0]) for one in lists)
        means.append(shares @ np.asarray(lists, dtype=np.float64) if alike else None)
    return _replaced(rows, _TOKENS, pa.array(means, rows.schema.field(_TOKENS).type))

"""The influence table: one row an example, a column a validation task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.models import SequenceLoss
from codeact.scoring.perplexity import status_of_pass
from codeact.scoring.spans import SCORABLE, IfdSpans
from codeact.scoring.table import as_column, assemble, is_usable, scores_schema

INFLUENCE = "influence"
"""Column of the mean over tasks; that of a task is :func:`task_column`."""

TOKEN_INFLUENCE_FIELD = pa.field("token_influence", pa.list_(pa.float32()))
"""What each response token adds to ``influence``, a column on request."""


def task_column(task: str, checkpoint: str | None = None) -> str:
    """Name of the column of a validation task, at one of several checkpoints."""
    return f"{INFLUENCE}_{task}" if checkpoint is None else f"{INFLUENCE}_{task}@{checkpoint}"


@dataclass(frozen=True)
class RowInfluence:
    """One example.

    Attributes:
        loss: of the response given the prompt.
        tangents: (num_tasks,) float64, derivative of its summed loss along each direction.
        token_tangents: (num_scored,) float32, those of its losses, mean over tasks; or None.
    """

    loss: SequenceLoss
    tangents: NDArray[np.float64]
    token_tangents: NDArray[np.float32] | None = None


def influence_table(
    ids: Sequence[str],
    spans: Sequence[IfdSpans],
    rows: Sequence[RowInfluence | None],
    tasks: Sequence[str],
) -> pa.Table:
    """The table of an influence pass.

    ``influence_<task>`` is the mean over the response tokens of ``<grad nll_t, v>`` and
    ``influence`` the mean over tasks; null where ``status`` is neither ``ok`` nor ``truncated``.

    Args:
        ids: of the examples.
        spans: of the examples.
        rows: what the passes gave; None where there was nothing to pass.
        tasks: names.

    Raises:
        InputError: a loss is finite and its derivative is not; the rows are named.
    """
    statuses = [_status(span, row) for span, row in zip(spans, rows, strict=True)]
    kept = [row if status in SCORABLE else None for status, row in zip(statuses, rows, strict=True)]
    _refuse_nonfinite(ids, kept)
    nlls = as_column([None if row is None else _nll(row) for row in kept])
    values = np.full((len(kept), len(tasks)), np.nan)
    for index, row in enumerate(kept):
        if row is not None:
            values[index] = row.tangents / row.loss.num_scored
    columns = {
        "nll_response": nlls,
        "ppl_response": np.exp(nlls),
        INFLUENCE: values.mean(axis=1),
        **{task_column(task): values[:, k] for k, task in enumerate(tasks)},
    }
    table = assemble(scores_schema(*columns), ids, spans, columns, statuses)
    if any(row is not None and row.token_tangents is not None for row in kept):
        table = table.append_column(TOKEN_INFLUENCE_FIELD, _token_column(kept))
    return table


def _status(span: IfdSpans, row: RowInfluence | None) -> str:
    return status_of_pass(span, row is not None, row is not None and is_usable(_nll(row)))


def _nll(row: RowInfluence) -> float:
    return row.loss.total / row.loss.num_scored


def _token_column(rows: Sequence[RowInfluence | None]) -> pa.Array:
    values = [
        None
        if row is None or row.token_tangents is None
        else row.token_tangents / row.loss.num_scored
        for row in rows
    ]
    return pa.array(values, type=TOKEN_INFLUENCE_FIELD.type)


def _refuse_nonfinite(ids: Sequence[str], rows: Sequence[RowInfluence | None]) -> None:
    bad = [
        id_
        for id_, row in zip(ids, rows, strict=True)
        if row is not None and not np.isfinite(row.tangents).all()
    ]
    if bad:
        named = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise InputError(
            f"the influence of {len(bad)} rows with a finite loss is not finite ({named}); "
            "try dtype = float32, or leave these rows out"
        )

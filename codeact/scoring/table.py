"""The scores tables: one row an example, with a status; a failure is never a score of 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.models import SequenceLoss
from codeact.scoring.spans import SCORABLE, IfdSpans, Status

ROW_FIELDS = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("num_prompt_tokens", pa.int32(), nullable=False),
    pa.field("num_response_tokens", pa.int32(), nullable=False),
)
STATUS_FIELD = pa.field("status", pa.string(), nullable=False)


def scores_schema(*columns: str) -> pa.Schema:
    """What every scores table holds, around float64 columns of these names."""
    return pa.schema(
        [*ROW_FIELDS, *(pa.field(name, pa.float64()) for name in columns), STATUS_FIELD]
    )


SCORES_SCHEMA = scores_schema(
    "nll_cond", "nll_direct", "ppl_cond", "ppl_direct", "ifd_ppl", "ifd_loss"
)
RMI_SCHEMA = scores_schema("nll_cond", "nll_direct", "ppl_cond", "ppl_direct", "rmi")
PERPLEXITY_SCHEMA = scores_schema("nll_response", "nll_text", "ppl_response", "ppl_text")

TOKEN_NLL_FIELD = pa.field("token_nll_cond", pa.list_(pa.float32()))
"""Per-token losses of the scored text given the other, a column on request."""

# exp of a mean loss above 709 nats is infinite.
_MOST_NATS = 700.0


@dataclass(frozen=True)
class RowScore:
    """Mean losses of one example in nats, or None where it could not be scored."""

    status: Status
    nll_cond: float | None = None
    nll_direct: float | None = None


def mean_nll(losses: Sequence[SequenceLoss]) -> float:
    """Mean over all scored tokens of all sequences, in float64; NaN if there is none."""
    num_scored = sum(loss.num_scored for loss in losses)
    return sum(loss.total for loss in losses) / num_scored if num_scored else math.nan


def score_row(spans: IfdSpans, losses: Sequence[SequenceLoss]) -> RowScore:
    """Pool both passes of an example over its tokens.

    A NaN or infinite mean, and a ratio that overflows, are the status ``nonfinite``.

    Args:
        spans: of the example.
        losses: its conditional pass, then the direct pass of each turn.
    """
    if spans.status not in SCORABLE:
        return RowScore(spans.status)
    nll_cond, nll_direct = mean_nll(losses[:1]), mean_nll(losses[1:])
    # A direct loss of 0 has no ratio of losses.
    usable = all(is_usable(nll) for nll in (nll_cond, nll_direct)) and nll_direct > 0
    return RowScore(spans.status, nll_cond, nll_direct) if usable else RowScore("nonfinite")


def is_usable(nll: float) -> bool:
    """A mean loss whose exponential is a finite number."""
    return math.isfinite(nll) and nll < _MOST_NATS


def scores_table(
    ids: Sequence[str], spans: Sequence[IfdSpans], rows: Sequence[RowScore]
) -> pa.Table:
    """The table of :data:`SCORES_SCHEMA`.

    ``ppl_*`` are exp of the mean losses, ``ifd_ppl`` their ratio (arXiv:2402.00530, 2408.02193) and
    ``ifd_loss`` the ratio of the mean losses (arXiv:2308.12032); null where ``status`` is neither
    ``ok`` nor ``truncated``.
    """
    columns = _passes(rows)
    cond, direct = columns["nll_cond"], columns["nll_direct"]
    columns |= {"ifd_ppl": np.exp(cond - direct), "ifd_loss": cond / direct}
    return assemble(SCORES_SCHEMA, ids, spans, columns, [row.status for row in rows])


def rmi_table(ids: Sequence[str], spans: Sequence[IfdSpans], rows: Sequence[RowScore]) -> pa.Table:
    """The table of :data:`RMI_SCHEMA`: ``rmi`` is ``nll_direct - nll_cond`` of the instruction."""
    columns = _passes(rows)
    columns["rmi"] = columns["nll_direct"] - columns["nll_cond"]
    table = assemble(RMI_SCHEMA, ids, spans, columns, [row.status for row in rows])
    # What is scored there is the instruction; the columns keep their meaning.
    scored, given = table["num_response_tokens"], table["num_prompt_tokens"]
    for name, counts in (("num_prompt_tokens", scored), ("num_response_tokens", given)):
        index = RMI_SCHEMA.get_field_index(name)
        table = table.set_column(index, RMI_SCHEMA.field(index), counts)
    return table


def _passes(rows: Sequence[RowScore]) -> dict[str, NDArray[np.float64]]:
    cond = as_column([row.nll_cond for row in rows])
    direct = as_column([row.nll_direct for row in rows])
    return {
        "nll_cond": cond,
        "nll_direct": direct,
        "ppl_cond": np.exp(cond),
        "ppl_direct": np.exp(direct),
    }


def assemble(
    schema: pa.Schema,
    ids: Sequence[str],
    spans: Sequence[IfdSpans],
    columns: dict[str, NDArray[np.float64]],
    statuses: Sequence[str],
) -> pa.Table:
    """A table of :func:`scores_schema`; NaN becomes null."""
    return pa.table(
        {
            "id": list(ids),
            "num_prompt_tokens": [span.num_prompt_tokens for span in spans],
            "num_response_tokens": [span.num_response_tokens for span in spans],
            **{name: pa.array(values, from_pandas=True) for name, values in columns.items()},
            "status": list(statuses),
        },
        schema=schema,
    )


def as_column(values: Sequence[float | None]) -> NDArray[np.float64]:
    """None as NaN."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def with_token_nlls(table: pa.Table, losses: Sequence[Sequence[SequenceLoss]]) -> pa.Table:
    """The table with the column of :data:`TOKEN_NLL_FIELD`, of the first pass of each row."""
    column = [
        row[0].token_nlls if status in SCORABLE else None
        for status, row in zip(table["status"].to_pylist(), losses, strict=True)
    ]
    return table.append_column(TOKEN_NLL_FIELD, pa.array(column, type=TOKEN_NLL_FIELD.type))

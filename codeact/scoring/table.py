"""The scores table: one row an example, with a status; a failure is never a score of 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from codeact.scoring.spans import IfdSpans, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCORES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("num_prompt_tokens", pa.int32(), nullable=False),
        pa.field("num_response_tokens", pa.int32(), nullable=False),
        pa.field("nll_cond", pa.float64()),
        pa.field("nll_direct", pa.float64()),
        pa.field("ppl_cond", pa.float64()),
        pa.field("ppl_direct", pa.float64()),
        pa.field("ifd_ppl", pa.float64()),
        pa.field("ifd_loss", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
    ]
)

TOKEN_NLL_FIELD = pa.field("token_nll_cond", pa.list_(pa.float32()))
"""Per-token losses of the answer given its prompt, a column on request."""


@dataclass(frozen=True)
class RowScore:
    """Mean losses of one example in nats, or None where it could not be scored."""

    status: Status
    nll_cond: float | None = None
    nll_direct: float | None = None


def score_row(
    spans: IfdSpans, cond: NDArray[np.float32] | None, direct: NDArray[np.float32] | None
) -> RowScore:
    """Average the per-token losses of both passes in float64.

    A NaN or infinite mean, and a ratio that overflows, are the status ``nonfinite``.
    """
    if cond is None or direct is None:
        return RowScore(spans.status)
    nll_cond, nll_direct = float(cond.mean(dtype=np.float64)), float(direct.mean(dtype=np.float64))
    # exp of a mean loss above 709 nats is infinite; a direct loss of 0 has no ratio of losses.
    usable = all(math.isfinite(x) and x < 700 for x in (nll_cond, nll_direct)) and nll_direct > 0
    return RowScore(spans.status, nll_cond, nll_direct) if usable else RowScore("nonfinite")


def scores_table(
    ids: Sequence[str], spans: Sequence[IfdSpans], rows: Sequence[RowScore]
) -> pa.Table:
    """The table of :data:`SCORES_SCHEMA`.

    ``ppl_*`` are exp of the mean losses, ``ifd_ppl`` their ratio (arXiv:2402.00530, 2408.02193) and
    ``ifd_loss`` the ratio of the mean losses (arXiv:2308.12032); null where ``status`` is neither
    ``ok`` nor ``truncated``.
    """
    cond = _column([row.nll_cond for row in rows])
    direct = _column([row.nll_direct for row in rows])
    columns = {
        "id": list(ids),
        "num_prompt_tokens": [span.num_prompt_tokens for span in spans],
        "num_response_tokens": [span.num_response_tokens for span in spans],
        "nll_cond": _nullable(cond),
        "nll_direct": _nullable(direct),
        "ppl_cond": _nullable(np.exp(cond)),
        "ppl_direct": _nullable(np.exp(direct)),
        "ifd_ppl": _nullable(np.exp(cond - direct)),
        "ifd_loss": _nullable(cond / direct),
        "status": [row.status for row in rows],
    }
    return pa.table(columns, schema=SCORES_SCHEMA)


def _column(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, from_pandas=True)  # NaN becomes null

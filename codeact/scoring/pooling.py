"""Vectors of examples from the passes that score them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.data import Example
from codeact.errors import InputError
from codeact.models import ScoredSequence, SequenceLoss
from codeact.scoring.passes import Passes
from codeact.scoring.spans import SCORABLE, IfdSpans

Pool = Literal["sequence", "prompt"]


class IfdWithEmbeddings(NamedTuple):
    """The scores table, and (num_examples, hidden_size) float32 vectors of the same rows."""

    table: pa.Table
    embeddings: NDArray[np.float32]


def check_pool(pool: str) -> None:
    """Refuse another word than ``sequence`` and ``prompt``.

    Raises:
        InputError: it is one.
    """
    if pool not in ("sequence", "prompt"):
        raise InputError(f"pool must be sequence or prompt, got {pool!r}")


def pooled_passes(pool: Pool) -> Passes:
    """Both passes of a row, the conditional one with the average that ``pool`` names.

    A row that cannot be scored has the conditional pass alone, for its vector.
    """

    def passes(_: Example, spans: IfdSpans) -> list[ScoredSequence]:
        if len(spans.input_ids) == 0:
            return []
        num_pooled = len(spans.input_ids)
        if pool == "prompt" and spans.scored and spans.scored[0][0] > 0:
            num_pooled = spans.scored[0][0]
        conditional = spans.conditional._replace(num_pooled=num_pooled)
        return [conditional, *(spans.direct if spans.status in SCORABLE else ())]

    return passes


def pooled_vectors(
    losses: Sequence[Sequence[SequenceLoss]], hidden_size: int
) -> NDArray[np.float32]:
    """(num_rows, hidden_size) averages of the conditional passes; NaN where there was none."""
    vectors = np.full((len(losses), hidden_size), np.nan, dtype=np.float32)
    for row, results in enumerate(losses):
        if results and results[0].pooled is not None:
            vectors[row] = results[0].pooled
    return vectors

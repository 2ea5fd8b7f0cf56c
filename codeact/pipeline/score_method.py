"""What is computed of each row: the method of a preset, with its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.data import Examples
from codeact.errors import InputError
from codeact.progress import OnProgress
from codeact.scoring import Method, Pool, Scorer, s_ifd_table

_EMBEDDING = "embedding"


class Scored(NamedTuple):
    """The scores table, and (num_rows, dim) float32 vectors if they were asked for."""

    table: pa.Table
    embeddings: NDArray[np.float32] | None


@dataclass(frozen=True)
class ScoreMethod:
    """How rows are scored, part by part of a set.

    Attributes:
        name: ``ifd``, ``s_ifd`` or ``rmi``.
        token_nlls: add the losses of every token of the scored text; not for ``s_ifd``.
        pool: add a vector of each row, see :meth:`Scorer.ifd_and_embeddings`; for ``ifd`` alone.
        num_copies: noisy copies of a row; for ``s_ifd``.
        seed: of the noise.
    """

    name: Method = "ifd"
    token_nlls: bool = False
    pool: Pool | None = None
    num_copies: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pool is not None and self.name != "ifd":
            raise InputError(f"embeddings come with a preset of IFD, not with {self.name}")
        if self.token_nlls and self.name == "s_ifd":
            raise InputError("losses of tokens come with ifd and rmi, not with s_ifd")

    @property
    def num_passes(self) -> int:
        """How often a row goes through the model, where IFD counts as once."""
        return 1 + self.num_copies if self.name == "s_ifd" else 1

    def score(self, scorer: Scorer, examples: Examples, on_progress: OnProgress) -> pa.Table:
        """Part of the table, for :meth:`finish`."""
        if self.name == "rmi":
            return scorer.rmi(examples, token_nlls=self.token_nlls, on_progress=on_progress)
        if self.name == "s_ifd":
            return scorer.noisy_losses(
                examples, num_copies=self.num_copies, seed=self.seed, on_progress=on_progress
            )
        if self.pool is None:
            return scorer.ifd(examples, token_nlls=self.token_nlls, on_progress=on_progress)
        table, vectors = scorer.ifd_and_embeddings(
            examples, pool=self.pool, token_nlls=self.token_nlls, on_progress=on_progress
        )
        column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
        return table.append_column(_EMBEDDING, column)

    def finish(self, parts: pa.Table) -> Scored:
        """The table of a set from its parts, put together in order."""
        if self.name == "s_ifd":
            return Scored(s_ifd_table(parts), None)
        if self.pool is None:
            return Scored(parts, None)
        column = parts[_EMBEDDING].combine_chunks()
        vectors = column.values.to_numpy().reshape(len(parts), -1)
        return Scored(parts.drop_columns(_EMBEDDING), vectors)

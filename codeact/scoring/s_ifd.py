"""Selective IFD of T-SHIRT (arXiv:2506.01317): only telling tokens count, under small noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.data import Example
from codeact.errors import InputError
from codeact.models import EmbeddingNoise, ScoredSequence, SequenceLoss, noise_key
from codeact.scoring.passes import Passes
from codeact.scoring.spans import SCORABLE, IfdSpans
from codeact.scoring.table import as_column, assemble, is_usable, mean_nll, scores_schema

S_IFD_SCHEMA = scores_schema("ifd_ppl", "ifd_noisy_mean", "ifd_noisy_std", "s_ifd", "s_ifd_std")

NOISY_SCHEMA = pa.schema(
    [
        *scores_schema("ifd_ppl"),
        pa.field("ifd_noisy", pa.list_(pa.float64())),
        pa.field("token_deltas", pa.list_(pa.list_(pa.float32()))),
    ]
)
"""What :func:`s_ifd_table` needs of each row: per copy the IFD, and per copy and token the
difference of the losses of the two passes. Tables of parts of a set may be concatenated."""


def noisy_passes(num_copies: int, noise_alpha: float, seed: int, embedding_dim: int) -> Passes:
    """:func:`noisy_sequences` of each row that can be scored."""

    def passes(example: Example, spans: IfdSpans) -> list[ScoredSequence]:
        if spans.status not in SCORABLE:
            return []
        return noisy_sequences(spans, example.id, num_copies, noise_alpha, seed, embedding_dim)

    return passes


def noisy_sequences(
    spans: IfdSpans, name: str, num_copies: int, noise_alpha: float, seed: int, embedding_dim: int
) -> list[ScoredSequence]:
    """Both passes of a row as they are, then of each noisy copy.

    As published, the noise of an answer token is the same in both passes of a copy, and its
    half-width is ``noise_alpha / sqrt(L * embedding_dim)``, L the length of the conditional
    sequence. Each copy of each row has a random stream of its own, so neither packing nor
    the order of the rows matters.
    """
    conditional = spans.conditional
    plain = [conditional, *spans.direct]
    scale = noise_alpha / math.sqrt(len(conditional.input_ids) * embedding_dim)
    begins = [
        begin for (begin, _), kept in zip(spans.scored, spans.has_direct, strict=True) if kept
    ]
    sequences = list(plain)
    for copy in range(1, num_copies + 1):
        key = noise_key(seed, name, copy)
        sequences.append(conditional._replace(noise=EmbeddingNoise(key, scale)))
        for begin, direct in zip(begins, spans.direct, strict=True):
            # A BOS of the direct pass has no counterpart and stays as it is.
            num_quiet = len(direct.input_ids) - _num_answer_tokens(spans, begin)
            sequences.append(direct._replace(noise=EmbeddingNoise(key, scale, begin, num_quiet)))
    return sequences


def _num_answer_tokens(spans: IfdSpans, begin: int) -> int:
    return next(end - first for first, end in spans.scored if first == begin)


def noisy_table(
    ids: Sequence[str], spans: Sequence[IfdSpans], losses: Sequence[Sequence[SequenceLoss]]
) -> pa.Table:
    """The table of :data:`NOISY_SCHEMA`.

    Args:
        ids: of the examples.
        spans: of the examples.
        losses: of the sequences of :func:`noisy_sequences`, with those of every token.
    """
    statuses, plain, noisy, deltas = [], [], [], []
    for span, row in zip(spans, losses, strict=True):
        ratios, differences = _copies(span, row)
        usable = span.status in SCORABLE and all(map(math.isfinite, ratios))
        statuses.append("nonfinite" if span.status in SCORABLE and not usable else span.status)
        plain.append(ratios[0] if usable else math.nan)
        # Without copies the plain passes stand for one.
        noisy.append((ratios[1:] or ratios) if usable else None)
        deltas.append((differences[1:] or differences) if usable else None)
    table = assemble(
        scores_schema("ifd_ppl"), ids, spans, {"ifd_ppl": np.array(plain, dtype=np.float64)},
        statuses,
    )  # fmt: skip
    for name, values in (("ifd_noisy", noisy), ("token_deltas", deltas)):
        field = NOISY_SCHEMA.field(name)
        table = table.append_column(field, pa.array(values, type=field.type))
    return table


def _copies(
    spans: IfdSpans, losses: Sequence[SequenceLoss]
) -> tuple[list[float], list[NDArray[np.float32]]]:
    """IFD of the plain passes and of each copy, and the differences of their token losses."""
    per_copy = 1 + len(spans.direct)
    ratios, differences = [], []
    for start in range(0, len(losses), per_copy):
        cond, *direct = losses[start : start + per_copy]
        means = mean_nll([cond]), mean_nll(direct)
        usable = all(map(is_usable, means))
        ratios.append(math.exp(means[0] - means[1]) if usable else math.nan)
        differences.append(_differences(spans, cond, direct))
    return ratios, differences


def _differences(
    spans: IfdSpans, cond: SequenceLoss, direct: Sequence[SequenceLoss]
) -> NDArray[np.float32]:
    """Conditional minus direct loss of each token that both passes score."""
    assert cond.token_nlls is not None
    ends = np.cumsum([end - begin for begin, end in spans.scored])
    alone = iter(direct)
    found = [np.zeros(0, dtype=np.float32)]
    for end, kept in zip(ends, spans.has_direct, strict=True):
        if kept:
            nlls = next(alone).token_nlls
            assert nlls is not None
            # Without a BOS the first token of an answer has no loss in the direct pass.
            found.append(cond.token_nlls[end - len(nlls) : end] - nlls)
    return np.concatenate(found)


def check_s_ifd(num_copies: int, noise_alpha: float, ratio: float) -> None:
    """Refuse numbers without a meaning.

    Raises:
        InputError: one of them has none.
    """
    if num_copies < 0:
        raise InputError(f"num_copies must be at least 0, got {num_copies}")
    if not 0 <= noise_alpha < math.inf:
        raise InputError(f"noise_alpha must be at least 0 and finite, got {noise_alpha}")
    if not 0 < ratio <= 1:
        raise InputError(f"ratio must be above 0 and at most 1, got {ratio}")


def s_ifd_table(noisy: pa.Table, ratio: float = 0.5) -> pa.Table:
    """S-IFD of every row of a set.

    A token counts where the absolute difference of its two losses is above the threshold, the
    ``1 - ratio`` quantile over all tokens of all copies of all rows; so the scores of a row
    depend on the set it is in. ``s_ifd`` is the mean over the copies of
    ``exp(mean difference of the tokens that count)``, 1 for a copy in which none does, as
    published; ``s_ifd_std`` is their standard deviation.

    Args:
        noisy: table of :data:`NOISY_SCHEMA` of the whole set.
        ratio: share of the tokens that count.

    Returns:
        A table of :data:`S_IFD_SCHEMA`.
    """
    check_s_ifd(0, 0.0, ratio)
    parts = [_Deltas.of(chunk) for chunk in noisy["token_deltas"].chunks]
    threshold = _threshold([part.values for part in parts], ratio)
    selective = [x for part in parts for x in part.selective(threshold)]
    ratios = noisy["ifd_noisy"].to_pylist()
    columns = {
        "ifd_noisy_mean": _reduced(np.mean, ratios),
        "ifd_noisy_std": _reduced(np.std, ratios),
        "s_ifd": _reduced(np.mean, selective),
        "s_ifd_std": _reduced(np.std, selective),
    }
    table = noisy.select([name for name in S_IFD_SCHEMA.names if name in noisy.schema.names])
    for name, values in columns.items():
        index = S_IFD_SCHEMA.get_field_index(name)
        column = pa.array(values, from_pandas=True)  # NaN becomes null
        table = table.add_column(index, S_IFD_SCHEMA.field(name), column)
    return table


def _threshold(values: Sequence[NDArray[np.float32]], ratio: float) -> float:
    """The ``1 - ratio`` quantile of the absolute values, linear between neighbours."""
    sizes = np.abs(np.concatenate([np.zeros(0, dtype=np.float32), *values]))
    if len(sizes) == 0:
        return math.nan
    place = (1 - ratio) * (len(sizes) - 1)
    low = int(place)
    high = min(low + 1, len(sizes) - 1)
    sizes.partition((low, high))
    below, above = float(sizes[low]), float(sizes[high])
    # In float64: rounded to float32 it could reach the upper neighbour, which must count.
    return below + (above - below) * (place - low)


class _Deltas(NamedTuple):
    """The column ``token_deltas`` of some rows, flat."""

    rows: NDArray[np.int64]  # (num_rows + 1,), copies [rows[i], rows[i + 1]) are those of row i
    copies: NDArray[np.int64]  # (num_copies + 1,), places in values
    values: NDArray[np.float32]

    @classmethod
    def of(cls, column: pa.ListArray) -> _Deltas:
        rows, inner = _unnested(column)
        copies, values = _unnested(inner)
        return cls(rows, copies, values.to_numpy(zero_copy_only=False))

    def selective(self, threshold: float) -> list[NDArray[np.float64] | None]:
        """For each row the ratios of its copies, over the tokens above the threshold."""
        # np.float64, since NumPy would round a Python number to the float32 of the values.
        counts = np.abs(self.values) > np.float64(threshold)
        sums = _running_sum(np.where(counts, self.values, 0.0))
        means = np.diff(sums[self.copies]) / np.maximum(
            np.diff(_running_sum(counts)[self.copies]), 1
        )
        ratios = np.exp(means)
        bounds = zip(self.rows[:-1], self.rows[1:], strict=True)
        return [ratios[begin:end] if end > begin else None for begin, end in bounds]


def _unnested(column: pa.ListArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Where each list begins and ends, and the values of these lists alone.

    A slice of a table shares the values of the whole.
    """
    bounds = column.offsets.to_numpy().astype(np.int64)
    return bounds - bounds[0], column.values.slice(bounds[0], bounds[-1] - bounds[0])


def _running_sum(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros(1), np.cumsum(values, dtype=np.float64)])


def _reduced(
    function: Callable[..., Any], copies: Sequence[Sequence[float] | NDArray[np.float64] | None]
) -> NDArray[np.float64]:
    """Mean or population standard deviation over the copies of each row."""
    return as_column([None if row is None else float(function(row)) for row in copies])

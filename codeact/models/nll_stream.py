"""Per-token losses of many sequences, streamed through a model in full packs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codeact.models.hidden_states import output_head, packed_nll
from codeact.models.isolation import assert_isolated
from codeact.ops.packing import pack_best_fit
from codeact.ops.varlen import IGNORE_INDEX, pack_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ScoredSequence(NamedTuple):
    """Tokens and, aligned with them, labels: ``IGNORE_INDEX`` where a token is not scored.

    Both are (seqlen,) int32. The first token is never scored: nothing before it predicts it.
    """

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]


def scored_from(input_ids: NDArray[np.int32], first: int) -> ScoredSequence:
    """The sequence of which the tokens from ``first`` on are scored."""
    labels = input_ids.copy()
    labels[:first] = IGNORE_INDEX
    return ScoredSequence(input_ids, labels)


def stream_nlls(
    model: PreTrainedModel, sequences: Sequence[ScoredSequence], *, token_budget: int = 2048
) -> Iterator[list[tuple[int, NDArray[np.float32]]]]:
    """Score sequences in packs of about ``token_budget`` tokens; one device wait a pack.

    Args:
        model: loaded with ``attn_implementation="codeact"``; checked once by
            :func:`assert_isolated`.
        sequences: what to score.
        token_budget: tokens a pack holds; a longer sequence is a pack of its own.

    Yields:
        For each pack a list of (index into ``sequences``, (num_scored,) float32 losses in nats).
    """
    if not sequences:
        return
    assert_isolated(model)
    head = output_head(model)
    seqlens = np.array([len(s.input_ids) for s in sequences], dtype=np.int32)
    order, offsets = pack_best_fit(seqlens, max(token_budget, int(seqlens.max())))
    for start, end in zip(offsets[:-1], offsets[1:], strict=True):
        members = order[start:end]
        batch = pack_sequences(
            [sequences[i].input_ids for i in members], [sequences[i].labels for i in members]
        )
        losses = packed_nll(model, head, batch.to(model.device)).cpu().numpy()
        parts = np.split(losses, batch.cu_rows[1:-1])
        yield list(zip(members.tolist(), parts, strict=True))

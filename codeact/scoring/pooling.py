"""Vectors of examples from the hidden states of the model that scores them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.data import Example
from codeact.errors import InputError
from codeact.models import ScoredSequence, SequenceLoss
from codeact.ops.varlen import IGNORE_INDEX
from codeact.scoring.passes import Passes
from codeact.scoring.spans import SCORABLE, IfdSpans, encode_whole

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

Pool = Literal["sequence", "prompt", "rds"]
StatePool = Literal["mean", "rds"]
EmbedText = Literal["instruction", "response", "both"]


class IfdWithEmbeddings(NamedTuple):
    """The scores table, and (num_examples, hidden_size) float32 vectors of the same rows."""

    table: pa.Table
    embeddings: NDArray[np.float32]


def check_pool(pool: str) -> None:
    """Refuse another word than ``sequence``, ``prompt`` and ``rds``.

    Raises:
        InputError: it is one.
    """
    if pool not in ("sequence", "prompt", "rds"):
        raise InputError(f"pool must be sequence, prompt or rds, got {pool!r}")


def check_state_pool(pool: str, text: str) -> None:
    """Refuse another pool than ``mean`` and ``rds``, and what :func:`check_text` refuses.

    Raises:
        InputError: it is one.
    """
    if pool not in ("mean", "rds"):
        raise InputError(f"pool must be mean or rds, got {pool!r}")
    check_text(text)


def check_text(text: str) -> None:
    """Refuse another word than ``instruction``, ``response`` and ``both``.

    Raises:
        InputError: it is one.
    """
    if text not in ("instruction", "response", "both"):
        raise InputError(f"text must be instruction, response or both, got {text!r}")


def pooled_passes(pool: Pool) -> Passes:
    """Both passes of a row, the conditional one with the average that ``pool`` names.

    A row that cannot be scored has the conditional pass alone, for its vector.
    """

    def passes(_: Example, spans: IfdSpans) -> list[ScoredSequence]:
        if len(spans.input_ids) == 0:
            return []
        num_pooled = _prompt_length(spans) if pool == "prompt" else len(spans.input_ids)
        conditional = spans.conditional._replace(
            num_pooled=num_pooled, weigh_by_position=pool == "rds"
        )
        return [conditional, *(spans.direct if spans.status in SCORABLE else ())]

    return passes


def state_passes(pool: StatePool, *, prompt_only: bool) -> Passes:
    """The conditional sequence of a row, or the prompt alone, averaged whole and not scored."""

    def passes(_: Example, spans: IfdSpans) -> list[ScoredSequence]:
        input_ids = spans.input_ids[: _prompt_length(spans)] if prompt_only else spans.input_ids
        return _unscored(input_ids, pool)

    return passes


def response_passes(
    tokenizer: PreTrainedTokenizerBase, max_length: int, pool: StatePool
) -> Callable[[Sequence[Example]], list[list[ScoredSequence]]]:
    """The last response of each row alone, without a template, averaged whole and not scored."""

    def to_sequences(examples: Sequence[Example]) -> list[list[ScoredSequence]]:
        encoded = encode_whole(tokenizer, [example.response for example in examples])
        return [_unscored(ids[:max_length], pool) for ids in encoded]

    return to_sequences


def _unscored(input_ids: NDArray[np.int32], pool: StatePool) -> list[ScoredSequence]:
    """A sequence that gives nothing but the average of its states; none without a token."""
    if len(input_ids) == 0:
        return []
    labels = np.full_like(input_ids, IGNORE_INDEX)
    return [ScoredSequence(input_ids, labels, len(input_ids), weigh_by_position=pool == "rds")]


def pooled_vectors(
    losses: Sequence[Sequence[SequenceLoss]], config: PretrainedConfig
) -> NDArray[np.float32]:
    """(num_rows, hidden_size) averages of each row's first pass; NaN where there was none."""
    hidden_size: int = config.get_text_config().hidden_size
    vectors = np.full((len(losses), hidden_size), np.nan, dtype=np.float32)
    for row, results in enumerate(losses):
        if results and results[0].pooled is not None:
            vectors[row] = results[0].pooled
    return vectors


def _prompt_length(spans: IfdSpans) -> int:
    """Tokens before the (first) answer; all, where the answer has none or has nothing before it."""
    first = spans.scored[0][0] if spans.scored else 0
    return first or len(spans.input_ids)

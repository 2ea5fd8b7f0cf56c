"""Preference pairs as token ids: two sequences that stay together, in one flat store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codeact.data.pair_rows import Pair, load_pairs, pairs_hash
from codeact.data.prompt import Template, make_template, name_of
from codeact.data.tokenize import IGNORE_INDEX, Int32Array, TokenizedExample
from codeact.errors import InputError
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Pair", "TokenizedPairs", "load_pairs", "pairs_hash", "tokenize_pairs"]


@dataclass(frozen=True, eq=False)
class TokenizedPairs:
    """Pairs end to end: of pair k, the sequence prompt + chosen, then prompt + rejected.

    The chosen sequence is ``[offsets[k], middles[k])`` of the flat arrays, the rejected one
    ``[middles[k], offsets[k + 1])``. A plan of bins sees a pair as one example, so that its two
    sequences share a bin: ``plan_bins(pairs.seqlens, capacity)``. A pair that teaches nothing has
    no token, and no plan packs it.

    Attributes:
        ids: the pairs' ids.
        input_ids: (total,) int32.
        labels: (total,) int32, aligned and unshifted; -100 in prompts.
        offsets: (n + 1,) int64.
        middles: (n,) int64.
        status: one of ``ok``, ``truncated``, ``same``, ``prompt_overflow``, ``empty_response`` for
            each pair (see :func:`tokenize_pairs`).
    """

    ids: tuple[str, ...]
    input_ids: Int32Array
    labels: Int32Array
    offsets: NDArray[np.int64]
    middles: NDArray[np.int64]
    status: tuple[str, ...]

    @property
    def seqlens(self) -> Int32Array:
        """(n,) int32 tokens of each pair, both sequences together; 0 where it is left out."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def sequence_seqlens(self) -> NDArray[np.int32]:
        """(n, 2) int32 tokens of the chosen and the rejected sequence."""
        edges = self.offsets[:-1], self.middles, self.offsets[1:]
        return np.stack([edges[1] - edges[0], edges[2] - edges[1]], axis=1).astype(np.int32)

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest sequence, 0 of none."""
        return int(self.sequence_seqlens.max(initial=0))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> TokenizedExample:
        """Both sequences of a pair end to end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} pairs")
        index %= len(self)
        span = slice(self.offsets[index], self.offsets[index + 1])
        return TokenizedExample(self.input_ids[span], self.labels[span])

    def sequences(self, index: int) -> tuple[TokenizedExample, TokenizedExample]:
        """The chosen and the rejected sequence of a pair."""
        both, middle = self[index], int(self.middles[index] - self.offsets[index])
        return (
            TokenizedExample(both.input_ids[:middle], both.labels[:middle]),
            TokenizedExample(both.input_ids[middle:], both.labels[middle:]),
        )


class _PairTokens(NamedTuple):
    """Token ids of a pair; ``num_prompt`` first ones of either sequence are the prompt."""

    chosen: list[int]
    rejected: list[int]
    num_prompt: int


def tokenize_pairs(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    on_progress: OnProgress | None = None,
) -> TokenizedPairs:
    """Token ids of pairs, scored where TRL's ``DPOTrainer`` (1.16) scores them.

    Turns are rendered with the chat template (without one, as of
    :func:`codeact.data.tokenize_examples`); a text is tokenised as it stands, with the special
    tokens that the tokenizer adds, prompt and answer as one, and the EOS token behind an answer
    that does not end in it. An answer begins where the ids of the prompt alone part from those of
    prompt and answer, at the earlier place of the two; all that follows is scored, what a template
    puts behind the end of turn included (where :func:`codeact.data.tokenize_examples` differs).

    Every pair keeps its place; its status is the first that applies:

    - ``prompt_overflow``: the prompt fills ``max_length``. Left out: the pair has no token.
    - ``empty_response``: an answer has no scored token. Left out.
    - ``same``: two equal sequences (after the cut): their margin is always 0. Kept, as TRL does.
    - ``truncated``: the right end of a sequence is cut off.
    - ``ok``.

    Args:
        pairs: of :func:`load_pairs`.
        tokenizer: a Hugging Face tokenizer.
        max_length: longest sequence (prompt and one answer) in tokens, at least 2.
        on_progress: called with pairs done and in all.

    Raises:
        InputError: ``max_length`` below 2, no pair at all, a template that rejects a conversation,
            or no EOS token to end an answer with.
    """
    if max_length < 2:
        raise InputError(f"max_length must be at least 2, got {max_length}")
    if not pairs:
        raise InputError("pairs must hold at least one pair, got none")
    apply: Template | None = None
    rows: list[tuple[TokenizedExample, TokenizedExample]] = []
    status: list[str] = []
    for pair in pairs:
        if pair.is_conversation:
            apply = apply or make_template(tokenizer)
            tokens = _of_conversation(pair, tokenizer, apply)
        else:
            tokens = _of_texts(pair, tokenizer)
        kept = tuple(
            _labelled(ids[:max_length], tokens.num_prompt)
            for ids in (tokens.chosen, tokens.rejected)
        )
        status.append(_status(tokens, kept, max_length))
        nothing = TokenizedExample(np.zeros(0, np.int32), np.zeros(0, np.int32))
        left_out = status[-1] in ("prompt_overflow", "empty_response")
        rows.append((nothing, nothing) if left_out else (kept[0], kept[1]))
        if on_progress is not None:
            on_progress(len(rows), len(pairs))
    return _pack([pair.id for pair in pairs], rows, status)


def _of_conversation(
    pair: Pair, tokenizer: PreTrainedTokenizerBase, apply: Template
) -> _PairTokens:
    from jinja2 import TemplateError  # comes with every chat template

    prompt, chosen, rejected = (
        part for part in (pair.prompt, pair.chosen, pair.rejected) if not isinstance(part, str)
    )
    try:
        texts = [apply(prompt, True), *(apply((*prompt, *a), False) for a in (chosen, rejected))]
    except TemplateError as error:
        raise InputError(
            f"the chat template of {name_of(tokenizer)} rejects pair {pair.id}: {error}"
        ) from None
    # The rendering already holds BOS where there is one.
    return _parted(_ids(texts, tokenizer, special=False))


def _of_texts(pair: Pair, tokenizer: PreTrainedTokenizerBase) -> _PairTokens:
    eos = tokenizer.eos_token
    if eos is None:
        raise InputError(
            "tokenizer must have an EOS token to end the answers of pairs in plain text with, "
            f"{name_of(tokenizer)} has none"
        )
    prompt = str(pair.prompt)
    answers = [str(answer) for answer in (pair.chosen, pair.rejected)]
    ended = [answer if answer.endswith(str(eos)) else f"{answer}{eos}" for answer in answers]
    texts = [prompt, *(prompt + answer for answer in ended)]
    return _parted(_ids(texts, tokenizer, special=True))


def _ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, special: bool
) -> list[list[int]]:
    found: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False
    )["input_ids"]
    return found


def _parted(ids: Sequence[list[int]]) -> _PairTokens:
    prompt, chosen, rejected = ids
    return _PairTokens(
        chosen, rejected, min(_num_common(prompt, whole) for whole in (chosen, rejected))
    )


def _num_common(a: Sequence[int], b: Sequence[int]) -> int:
    shortest = min(len(a), len(b))
    return next((i for i in range(shortest) if a[i] != b[i]), shortest)


def _labelled(ids: Sequence[int], num_prompt: int) -> TokenizedExample:
    input_ids = np.asarray(ids, dtype=np.int32)
    labels = input_ids.copy()
    labels[:num_prompt] = IGNORE_INDEX
    return TokenizedExample(input_ids, labels)


def _status(tokens: _PairTokens, kept: tuple[TokenizedExample, ...], max_length: int) -> str:
    if tokens.num_prompt >= max_length:
        return "prompt_overflow"
    # Nothing predicts the first token.
    if not all(np.any(row.labels[1:] != IGNORE_INDEX) for row in kept):
        return "empty_response"
    if np.array_equal(kept[0].input_ids, kept[1].input_ids):
        return "same"
    longest = max(len(tokens.chosen), len(tokens.rejected))
    return "truncated" if longest > max_length else "ok"


def _pack(
    ids: Sequence[str],
    rows: Sequence[tuple[TokenizedExample, TokenizedExample]],
    status: Sequence[str],
) -> TokenizedPairs:
    seqlens = np.array([[len(row.input_ids) for row in pair] for pair in rows], dtype=np.int64)
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(seqlens.sum(axis=1), out=offsets[1:])

    def flat(column: int) -> Int32Array:
        parts: list[NDArray[Any]] = [row[column] for pair in rows for row in pair]
        return np.concatenate(parts).astype(np.int32, copy=False)

    middles = offsets[:-1] + seqlens[:, 0]
    return TokenizedPairs(tuple(ids), flat(0), flat(1), offsets, middles, tuple(status))

"""Examples as token ids with exact labels, in one flat store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codeact.data.example import Example, as_indices
from codeact.data.prompt import Rendering, make_renderer
from codeact.errors import InputError
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Int32Array = NDArray[np.int32]

IGNORE_INDEX = -100
# Large enough that the fast tokenizer's threads have work, small enough that the Python lists it
# returns (the only ones here) stay at a few megabytes.
_BATCH = 256


class TokenizedExample(NamedTuple):
    """One sequence: views into the store, both (seqlen,) int32."""

    input_ids: Int32Array
    labels: Int32Array


@dataclass(frozen=True, eq=False)
class TokenizedExamples:
    """A tokenised set; sequence k is ``[offsets[k], offsets[k + 1])`` of the flat arrays.

    Attributes:
        ids: The examples' ids.
        input_ids: (total,) int32.
        labels: (total,) int32, aligned with ``input_ids`` and unshifted; -100 outside responses.
        offsets: (n + 1,) int64.
        status: One of ``ok``, ``truncated``, ``prompt_overflow``, ``empty_response``,
            ``empty_instruction`` for each example (see :func:`tokenize_examples`).
        num_lost_tokens: (n,) int32, response tokens that the cut to ``max_length`` took.
    """

    ids: tuple[str, ...]
    input_ids: Int32Array
    labels: Int32Array
    offsets: NDArray[np.int64]
    status: tuple[str, ...]
    num_lost_tokens: Int32Array

    @property
    def seqlens(self) -> Int32Array:
        """(n,) int32 numbers of tokens."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def num_response_tokens(self) -> Int32Array:
        """(n,) int32 numbers of labelled tokens."""
        running = np.concatenate([[0], np.cumsum(self.labels != IGNORE_INDEX)])
        return np.diff(running[self.offsets]).astype(np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> TokenizedExample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} examples")
        index %= len(self)
        span = slice(self.offsets[index], self.offsets[index + 1])
        return TokenizedExample(self.input_ids[span], self.labels[span])

    def __iter__(self) -> Iterator[TokenizedExample]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> TokenizedExamples:
        """The sequences at ``indices`` (integers, in that order) in a new store.

        Raises:
            ValueError: ``indices`` is no 1-D integer array or leaves the range.
        """
        rows = as_indices(indices, len(self))
        return _pack(
            [self.ids[row] for row in rows],
            [self[row] for row in rows],
            [self.status[row] for row in rows],
            self.num_lost_tokens[rows] if rows else [],
        )


def tokenize_examples(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    on_progress: OnProgress | None = None,
) -> TokenizedExamples:
    """Render each example with the chat template and label what the assistant says.

    Labelled are, for every assistant turn, its content and its end-of-turn token, nothing else.
    Boundaries come from rendering each prefix of the conversation: the prompt of a turn is the
    rendering of the turns before it with the generation prompt. Where the ids of the prompt are a
    prefix of the ids of the whole text, the whole text's ids are kept; elsewhere a token would
    straddle the boundary, and prompt and answer are tokenised apart, as they are at generation.
    Turns after the last assistant turn, and the white space that a template puts after the last
    end of turn, are left out: they carry no loss. A tokenizer without a chat template gets
    ``### Instruction:\\n{instruction}\\n### Response:\\n{response}{eos}``, the form of CodeACT
    (arXiv:2408.02193) for DeepSeek-Coder and StarCoder2, after its BOS token where it adds one.

    Every example keeps its place; what is special about it is its status, the first that applies:

    - ``empty_response``: no assistant turn says anything; the prompt is kept, without labels.
    - ``empty_instruction``: no other turn says anything; tokens and labels as usual.
    - ``prompt_overflow``: no response token lies within ``max_length``; the prompt's first
      ``max_length`` tokens are kept, without labels.
    - ``truncated``: the right end is cut off, ``num_lost_tokens`` response tokens with it.
    - ``ok``.

    Args:
        examples: ``Examples`` or any sequence of them.
        tokenizer: A Hugging Face tokenizer; a fast one works batch by batch on its own threads.
        max_length: Longest sequence in tokens, at least 1.
        on_progress: Called with examples done and in all.

    Raises:
        InputError: ``max_length`` below 1; a template that rejects a conversation or renders the
            beginning of one differently once it goes on; neither a template nor an EOS token.
    """
    if max_length < 1:
        raise InputError(f"max_length must be at least 1, got {max_length}")
    render = make_renderer(tokenizer)
    rows: list[TokenizedExample] = []
    status: list[str] = []
    lost: list[int] = []
    for start in range(0, len(examples), _BATCH):
        batch = [examples[i] for i in range(start, min(start + _BATCH, len(examples)))]
        renderings = [render(example) for example in batch]
        for rendering, row in zip(renderings, _encode(renderings, tokenizer), strict=True):
            cut = TokenizedExample(row.input_ids[:max_length], row.labels[:max_length])
            lost.append(int(np.count_nonzero(row.labels[max_length:] != IGNORE_INDEX)))
            status.append(_status(rendering, row, cut))
            rows.append(TokenizedExample(cut.input_ids.copy(), cut.labels.copy()))
        if on_progress is not None:
            on_progress(len(rows), len(examples))
    return _pack([example.id for example in examples], rows, status, lost)


def _status(rendering: Rendering, row: TokenizedExample, cut: TokenizedExample) -> str:
    if not rendering.spans:
        return "empty_response"
    if rendering.empty_instruction:
        return "empty_instruction"
    if not np.any(cut.labels != IGNORE_INDEX):
        return "prompt_overflow"
    return "truncated" if len(cut.input_ids) < len(row.input_ids) else "ok"


def _encode(
    renderings: Sequence[Rendering], tokenizer: PreTrainedTokenizerBase
) -> Iterator[TokenizedExample]:
    """Ids and labels of each rendering, uncut; one tokenizer call for all prefixes."""
    prefixes = [r.text[:end] for r in renderings for end in r.boundaries]
    encoded = iter(_token_ids(prefixes, tokenizer))
    for rendering in renderings:
        ids = [next(encoded) for _ in rendering.boundaries]
        whole = ids[-1]
        if all(whole[: len(part)] == part for part in ids):
            ends = [len(part) for part in ids]
        else:
            starts = [0, *rendering.boundaries[:-1]]
            pieces = [
                rendering.text[begin:end]
                for begin, end in zip(starts, rendering.boundaries, strict=True)
            ]
            parts = _token_ids(pieces, tokenizer)
            whole = [token for part in parts for token in part]
            ends = np.cumsum([len(part) for part in parts]).tolist()
        yield _label(rendering, whole, ends)


def _label(rendering: Rendering, whole: list[int], ends: list[int]) -> TokenizedExample:
    input_ids = np.asarray(whole, dtype=np.int32)
    labels = np.full(len(whole), IGNORE_INDEX, dtype=np.int32)
    token_at = dict(zip(rendering.boundaries, ends, strict=True))
    token_at[0] = 0
    for begin, end in rendering.spans:
        span = slice(token_at[begin], token_at[end])
        labels[span] = input_ids[span]
    return TokenizedExample(input_ids, labels)


def _token_ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    # The rendering already holds BOS where there is one. verbose=False: a text beyond the
    # tokenizer's own model_max_length is cut here, with a status, not warned about.
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return ids


def _pack(
    ids: Sequence[str],
    rows: Sequence[TokenizedExample],
    status: Sequence[str],
    lost: Sequence[int] | Int32Array,
) -> TokenizedExamples:
    nothing = np.zeros(0, dtype=np.int32)
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row.input_ids) for row in rows], out=offsets[1:])
    return TokenizedExamples(
        tuple(ids),
        np.concatenate([nothing, *(row.input_ids for row in rows)]),
        np.concatenate([nothing, *(row.labels for row in rows)]),
        offsets,
        tuple(status),
        np.asarray(lost, dtype=np.int32),
    )

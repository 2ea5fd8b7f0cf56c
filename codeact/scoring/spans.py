"""From an example to the token sequences whose losses make its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from codeact.data import Example
from codeact.models import ScoredSequence, scored_from
from codeact.ops.varlen import IGNORE_INDEX
from codeact.scoring.presets import DirectPass, IfdPreset
from codeact.scoring.turns import Turn, Turns, is_silent, rendered_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Status = Literal[
    "ok", "truncated", "empty_response", "empty_instruction", "prompt_overflow", "nonfinite"
]
SCORABLE = ("ok", "truncated")
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class IfdSpans:
    """The conditional pass of one example and the direct pass of each of its turns.

    Attributes:
        status: ``ok`` and ``truncated`` can be scored; then ``direct`` is not empty.
        num_prompt_tokens: conditional tokens that are not scored.
        num_response_tokens: conditional tokens that are.
        input_ids: the conditional sequence, cut; also of a row that cannot be scored.
        scored: (begin, end) of the scored tokens in it, a pair a turn.
        direct: the scored text of each turn alone; a turn of which nothing would be scored is
            left out, and marked False in ``has_direct``.
        has_direct: a flag for each pair of ``scored``.
    """

    status: Status
    num_prompt_tokens: int
    num_response_tokens: int
    input_ids: Ids
    scored: tuple[tuple[int, int], ...] = ()
    direct: tuple[ScoredSequence, ...] = ()
    has_direct: tuple[bool, ...] = ()

    @property
    def conditional(self) -> ScoredSequence:
        """The conditional pass, scored in all of its turns."""
        labels = np.full_like(self.input_ids, IGNORE_INDEX)
        for begin, end in self.scored:
            labels[begin:end] = self.input_ids[begin:end]
        return ScoredSequence(self.input_ids, labels)


def ifd_spans(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    preset: IfdPreset,
    max_length: int,
    turns: Turns = "all",
) -> list[IfdSpans]:
    """Tokenise as the published code does: prompt and answer as one string, cut on the right.

    The answer begins at the token count of the text before it, and the direct pass gets the tokens
    that the conditional one leaves for the answer plus an allowance. Unlike the published code, a
    row that cannot be scored keeps its place with a status, instead of a score of 0 or a place
    in the ranking.

    Args:
        examples: rows to score.
        tokenizer: of the scoring model; its default special tokens are added, as published. It is
            called once, with all texts.
        preset: whose rules.
        max_length: longest conditional sequence in tokens.
        turns: see :func:`rendered_turns`.
    """
    conversations = [rendered_turns(example, preset, turns) for example in examples]
    texts = [_texts(conversation, preset.direct) for conversation in conversations]
    encoded = encode_whole(
        tokenizer, [text for row in texts for text in row] + [preset.direct.prefix]
    )
    prefix = encoded[-1]
    before = _start_tokens(tokenizer, prefix) if preset.direct.starts_with_bos else prefix
    spans = []
    next_text = 0
    for example, row in zip(examples, texts, strict=True):
        ids = encoded[next_text : next_text + len(row)]
        next_text += len(row)
        spans.append(_row(example, ids, before, preset, max_length, turns))
    return spans


def _texts(conversation: Sequence[Turn], direct: DirectPass) -> list[str]:
    """The text up to the begin and the end of each answer, then each answer alone."""
    edges, text = [], ""
    for turn in conversation:
        edges += [text + turn.prompt, text + turn.prompt + turn.scored]
        text = edges[-1]
    alone = [] if direct.shares_tokens else [direct.prefix + turn.scored for turn in conversation]
    return edges + alone


def encode_whole(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Ids]:
    """Token ids of each text with the tokenizer's default special tokens, uncut."""
    # Cut by ourselves later: the tokenizer would warn about long texts, and cuts per call.
    encoded = tokenizer(texts, truncation=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]
    return [np.array(ids, dtype=np.int32) for ids in encoded]


def _start_tokens(tokenizer: PreTrainedTokenizerBase, special: Ids) -> Ids:
    """What the tokenizer puts before every text, or the token that a text could begin with."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if len(special) or start is None:
        return special
    return np.array([start], dtype=np.int32)


def _row(
    example: Example,
    encoded: Sequence[Ids],
    before: Ids,
    preset: IfdPreset,
    max_length: int,
    turns: Turns,
) -> IfdSpans:
    shares = preset.direct.shares_tokens
    num_turns = len(encoded) // (2 if shares else 3)
    edges, alone = encoded[: 2 * num_turns], encoded[2 * num_turns :]
    whole = edges[-1]
    input_ids = whole[:max_length]
    scored: list[tuple[int, int]] = []
    direct, has_direct = [], []
    for turn in range(num_turns):
        begin = min(max(len(edges[2 * turn]), scored[-1][1] if scored else 0), max_length)
        end = min(len(edges[2 * turn + 1]), max_length)
        if end <= begin:  # says nothing, or lies behind the cut
            continue
        scored.append((begin, end))
        if shares:
            tokens = np.concatenate([before, input_ids[begin:end]])
        else:
            tokens = alone[turn][: max_length - begin + preset.direct.allowance]
        first = max(len(before), 1)
        has_direct.append(len(tokens) > first)
        if has_direct[-1]:
            direct.append(scored_from(tokens, first))
    num_scored = sum(end - begin for begin, end in scored)
    status = _status(example, turns, num_scored, len(whole) > max_length)
    if status in SCORABLE and (not direct or scored[0][0] == 0):
        # One answer token and no BOS: the direct pass has nothing to average over.
        status = "nonfinite"
    return IfdSpans(
        status, len(input_ids) - num_scored, num_scored,
        input_ids, tuple(scored), tuple(direct), tuple(has_direct),
    )  # fmt: skip


def _status(example: Example, turns: Turns, num_scored: int, is_cut: bool) -> Status:
    no_instruction, no_response = is_silent(example, turns)
    if no_response:
        return "empty_response"
    if no_instruction:
        return "empty_instruction"
    if num_scored == 0:
        # Not cut, the tokenizer made one token of the answer (a line break) and the prompt's end.
        return "prompt_overflow" if is_cut else "nonfinite"
    return "truncated" if is_cut else "ok"

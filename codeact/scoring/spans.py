"""From an example to the two token sequences whose losses make its IFD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from codeact.data import Example
from codeact.models import ScoredSequence, scored_from
from codeact.scoring.presets import IfdPreset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Status = Literal[
    "ok", "truncated", "empty_response", "empty_instruction", "prompt_overflow", "nonfinite"
]


@dataclass(frozen=True)
class IfdSpans:
    """The conditional pass (prompt and answer) and the direct pass (answer alone) of one example.

    ``conditional`` and ``direct`` are None when ``status`` says that the row cannot be scored.
    """

    status: Status
    num_prompt_tokens: int
    num_response_tokens: int
    conditional: ScoredSequence | None = None
    direct: ScoredSequence | None = None


def ifd_spans(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    preset: IfdPreset,
    max_length: int,
) -> list[IfdSpans]:
    """Tokenise as the published code does: prompt and answer as one string, cut on the right.

    The answer begins at the token count of the prompt alone, and the direct pass gets the tokens
    that the conditional one leaves for the answer plus ``preset.direct_allowance``. Unlike the
    published code, a row that cannot be scored keeps its place with a status, instead of a score
    of 0 or a place in the ranking.

    Args:
        examples: rows to score.
        tokenizer: of the scoring model; its default special tokens are added, as published.
        preset: whose rules.
        max_length: longest conditional sequence in tokens.
    """
    prompts = [preset.render(example) for example in examples]
    joint = [prompt + example.response for prompt, example in zip(prompts, examples, strict=True)]
    direct = [preset.direct_prefix + example.response for example in examples]
    prefix_length = len(tokenizer(preset.direct_prefix)["input_ids"])
    encoded = (_encode(tokenizer, texts) for texts in (prompts, joint, direct))
    return [
        _spans(example, prompt, both, alone, prefix_length, preset.direct_allowance, max_length)
        for example, prompt, both, alone in zip(examples, *encoded, strict=True)
    ]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[NDArray[np.int32]]:
    if not texts:  # fast tokenizers fail on an empty batch
        return []
    # Cut by ourselves below: the tokenizer would warn about long texts, and cuts per call.
    encoded = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    return [np.array(ids, dtype=np.int32) for ids in encoded]


def _spans(
    example: Example,
    prompt: NDArray[np.int32],
    joint: NDArray[np.int32],
    direct: NDArray[np.int32],
    prefix_length: int,
    direct_allowance: int,
    max_length: int,
) -> IfdSpans:
    start = min(len(prompt), max_length)
    num_response = max(0, min(len(joint), max_length) - start)
    if not example.response:
        return IfdSpans("empty_response", start, 0)
    if not example.instruction:
        return IfdSpans("empty_instruction", start, num_response)
    if num_response == 0:
        return IfdSpans("prompt_overflow", start, 0)
    kept = direct[: max_length - start + direct_allowance]
    first = max(prefix_length, 1)
    if start == 0 or len(kept) <= first:
        # One answer token and no BOS: the direct pass has nothing to average over.
        return IfdSpans("nonfinite", start, num_response)
    return IfdSpans(
        "truncated" if len(joint) > max_length else "ok",
        start,
        num_response,
        scored_from(joint[:max_length], start),
        scored_from(kept, first),
    )

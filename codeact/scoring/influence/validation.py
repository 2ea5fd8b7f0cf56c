"""Validation tasks as token sequences, with a loss on the reference solutions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from codeact.data import Example, Message
from codeact.errors import InputError
from codeact.models import ScoredSequence
from codeact.scoring.perplexity import has_losses
from codeact.scoring.presets import IfdPreset
from codeact.scoring.spans import IfdSpans, ifd_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Style = Literal["instruction", "completion"]

Validation = Sequence[Example] | Mapping[str, Sequence[Example]]
"""Problems with reference solutions: of one task, or of several by their names."""

_BARE = "{instruction}"


@dataclass(frozen=True)
class ValidationTask:
    """The problems of one task, tokenised.

    Attributes:
        name: of the task.
        sequences: prompt and reference solution of each problem, scored on the solution.
        num_truncated: problems whose solution was cut at the longest length.
        num_skipped: problems of which nothing was left to score: an empty solution, or a prompt
            as long as a sequence may be.
    """

    name: str
    sequences: tuple[ScoredSequence, ...]
    num_truncated: int
    num_skipped: int

    @property
    def weights(self) -> NDArray[np.float64]:
        """(num_problems,) of each summed loss in ``L(V)``: the mean over problems of mean losses.

        Each problem counts once, however long its solution is, as it does in pass@1.
        """
        counts = np.array([s.num_scored for s in self.sequences])
        return 1.0 / (counts * len(counts))


def validation_tasks(
    validation: Validation,
    tokenizer: PreTrainedTokenizerBase,
    preset: IfdPreset,
    max_length: int,
    style: Style = "instruction",
) -> tuple[ValidationTask, ...]:
    """Render and tokenise the problems of every task.

    Args:
        validation: examples whose response is the reference solution. Without names the task is
            called ``validation``.
        tokenizer: of the model.
        preset: whose template surrounds a problem in the style ``"instruction"``.
        max_length: longest sequence in tokens.
        style: ``"completion"`` is the prompt's text and nothing else, as base models see a problem.

    Raises:
        InputError: no task, a task without a problem that can be scored, a name with an ``@``, or
            another style.
    """
    if style not in get_args(Style):
        raise InputError(f"style must be instruction or completion, got {style!r}")
    tasks = validation if isinstance(validation, Mapping) else {"validation": validation}
    if not tasks:
        raise InputError("validation must hold at least one task, got none")
    if style == "completion":
        preset = replace(preset, prompt=_BARE, prompt_with_input=None, later_prompt="\n" + _BARE)
    return tuple(
        _task(name, examples, tokenizer, preset, max_length) for name, examples in tasks.items()
    )


def _task(
    name: str,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    preset: IfdPreset,
    max_length: int,
) -> ValidationTask:
    if not name or "@" in name:
        raise InputError(f"a validation task needs a name without '@', got {name!r}")
    spans = _spans(examples, tokenizer, preset, max_length)
    scored = [span for span in spans if has_losses(span)]
    if not scored:
        raise InputError(
            f"validation task {name!r} must hold a problem with a solution to score, got none in "
            f"{len(examples)} rows"
        )
    return ValidationTask(
        name,
        tuple(span.conditional for span in scored),
        num_truncated=sum(span.status == "truncated" for span in scored),
        num_skipped=len(spans) - len(scored),
    )


def _spans(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    preset: IfdPreset,
    max_length: int,
) -> list[IfdSpans]:
    """Of each problem; a solution that repeats the prompt is scored from where it goes on.

    HumanEval asks for the whole function, 71 % of whose characters are those of the prompt.
    """
    repeats = [bool(e.instruction) and e.response.startswith(e.instruction) for e in examples]
    own = [e for e, is_repeated in zip(examples, repeats, strict=True) if not is_repeated]
    rest = [
        replace(e, messages=_turns(e.instruction, e.response.removeprefix(e.instruction)))
        for e, is_repeated in zip(examples, repeats, strict=True)
        if is_repeated
    ]
    whole = replace(preset, prompt=preset.prompt + _BARE, prompt_with_input=None)
    return [
        *(ifd_spans(own, tokenizer, preset, max_length) if own else []),
        *(ifd_spans(rest, tokenizer, whole, max_length) if rest else []),
    ]


def _turns(instruction: str, response: str) -> tuple[Message, Message]:
    return Message("user", instruction), Message("assistant", response)

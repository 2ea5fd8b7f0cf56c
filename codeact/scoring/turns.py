"""A conversation as alternating texts: what is given, and what is scored after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from codeact.data import Example
from codeact.errors import InputError
from codeact.scoring.presets import IfdPreset

Turns = Literal["all", "last"]


class Turn(NamedTuple):
    """One assistant turn: the text before it since the last one, and what it says."""

    prompt: str
    scored: str


def check_turns(turns: str) -> None:
    """Refuse another word than ``all`` and ``last``.

    Raises:
        InputError: it is one.
    """
    if turns not in ("all", "last"):
        raise InputError(f"turns must be all or last, got {turns!r}")


def rendered_turns(example: Example, preset: IfdPreset, turns: Turns) -> list[Turn]:
    """The turns of an example in the text of a preset.

    With ``"last"``, and where there is one assistant turn, it is the published form: all system and
    user turns before the last answer joined by a newline, earlier answers left out. With
    ``"all"`` each answer follows the system and user turns since the one before it, and all that
    was said before. A conversation may end in a user turn, which is left out.
    """
    spoken = _pairs(example)
    if turns == "last" or len(spoken) <= 1:
        scored = example.instruction if preset.scores_instruction else example.response
        return [Turn(preset.render(example), scored)]
    rendered = []
    for index, (instruction, response) in enumerate(spoken):
        template = preset.later_prompt if index else preset.prompt
        prompt = template.format(instruction=instruction, response=response)
        rendered.append(Turn(prompt, instruction if preset.scores_instruction else response))
    return rendered


def is_silent(example: Example, turns: Turns) -> tuple[bool, bool]:
    """Whether there is no instruction, and whether there is no response, in what is looked at."""
    spoken = _pairs(example)
    if turns == "last" or len(spoken) <= 1:
        spoken = [(example.instruction, example.response)]
    return not any(said for said, _ in spoken), not any(said for _, said in spoken)


def _pairs(example: Example) -> Sequence[tuple[str, str]]:
    """(instruction, response) of each assistant turn."""
    pairs: list[tuple[str, str]] = []
    waiting: list[str] = []
    for role, content in example.messages:
        if role == "assistant":
            pairs.append(("\n".join(waiting), content))
            waiting = []
        else:
            waiting.append(content)
    return pairs

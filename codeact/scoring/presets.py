"""The published definitions of Instruction-Following Difficulty, side by side.

All ask how much the instruction helps the model to predict the answer. They differ in the text
around it, in what the answer alone is conditioned on, and in the ratio they take, and their
rankings differ accordingly: a score is only comparable under one preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from codeact.data import Example
from codeact.errors import InputError

PresetName = Literal["codeact", "superfiltering", "cherry"]

_ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


@dataclass(frozen=True)
class IfdPreset:
    """How one published implementation scores an example.

    Attributes:
        prompt: template of the conditional pass, with ``{instruction}``.
        prompt_with_input: template for rows with an ``input`` field, with ``{instruction}`` and
            ``{input}``; None joins the two with a newline into ``{instruction}``.
        direct_prefix: text before the answer in the direct pass.
        direct_allowance: tokens that the direct pass may have beyond what the conditional pass has
            left for the answer; the published code grants them for a BOS or the prefix.
        score: the column the method calls its score.
        max_length: default cut in tokens; None is what the model can take.
    """

    name: PresetName
    prompt: str
    prompt_with_input: str | None
    direct_prefix: str
    direct_allowance: int
    score: Literal["ifd_ppl", "ifd_loss"]
    max_length: int | None

    def render(self, example: Example) -> str:
        """The text before the answer in the conditional pass."""
        extra = example.fields.get("input")
        instruction = example.fields.get("instruction")
        # Only where the loader joined the two: the columns may be others, of the same name.
        joined = example.instruction == f"{instruction}\n{extra}"
        if self.prompt_with_input is not None and extra and joined:
            return self.prompt_with_input.format(instruction=instruction, input=extra)
        return self.prompt.format(instruction=example.instruction)


_PRESETS: dict[str, IfdPreset] = {
    # arXiv:2408.02193, the authors' CDAS/calculate_ifd.py.
    "codeact": IfdPreset(
        name="codeact",
        prompt="Question:\n{instruction}\n\nAnswer:\n",
        prompt_with_input=None,
        direct_prefix="",
        direct_allowance=1,
        score="ifd_ppl",
        max_length=None,
    ),
    # arXiv:2402.00530, the authors' code_ifd/data_analysis.py.
    "superfiltering": IfdPreset(
        name="superfiltering",
        prompt="{instruction}\n",
        prompt_with_input=None,
        direct_prefix="",
        direct_allowance=1,
        score="ifd_ppl",
        max_length=1024,
    ),
    # arXiv:2308.12032, the authors' cherry_seletion/data_analysis.py with --prompt alpaca.
    "cherry": IfdPreset(
        name="cherry",
        prompt=_ALPACA,
        prompt_with_input=_ALPACA_WITH_INPUT,
        direct_prefix="### Response:",
        direct_allowance=4,
        score="ifd_loss",
        max_length=512,
    ),
}


def ifd_preset(name: str) -> IfdPreset:
    """The preset of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _PRESETS:
        raise InputError(f"preset must be one of {', '.join(_PRESETS)}, got {name!r}")
    return _PRESETS[name]

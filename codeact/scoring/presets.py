"""The published scores of an instruction and its answer, side by side.

All compare the loss of a text given another with its loss alone. They differ in which of the two is
scored, in the text around them, in what the text alone is conditioned on, and in the ratio they
take, and their rankings differ accordingly: a score is only comparable under one preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from codeact.data import Example
from codeact.errors import InputError

PresetName = Literal["codeact", "superfiltering", "cherry", "tshirt", "qaq"]
Method = Literal["ifd", "s_ifd", "rmi"]
ScoreColumn = Literal["ifd_ppl", "ifd_loss", "s_ifd", "rmi"]

_ALPACA_HEADER = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
)
_ALPACA_TURN = "### Instruction:\n{instruction}\n\n### Response:"
_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


@dataclass(frozen=True)
class DirectPass:
    """What the scored text is conditioned on when it is scored alone.

    Attributes:
        prefix: text before it, not scored.
        allowance: tokens that it may have beyond what the conditional pass has left for it; the
            published code grants them for a BOS or the prefix.
        shares_tokens: the scored tokens are those of the conditional pass; else the text is
            tokenised again, with the prefix.
        starts_with_bos: shared tokens stand behind the tokenizer's BOS, or EOS where it has none,
            even if the tokenizer would not put one there, so that both passes score the same.
    """

    prefix: str = ""
    allowance: int = 1
    shares_tokens: bool = False
    starts_with_bos: bool = False


@dataclass(frozen=True)
class IfdPreset:
    """How one published method scores an example.

    Attributes:
        method: which table it makes: IFD, its selective variant, or its reverse.
        prompt: template of what the scored text is conditioned on, with ``{instruction}``, or
            ``{response}`` where the instruction is what is scored.
        prompt_with_input: template for rows with an ``input`` field, with ``{instruction}`` and
            ``{input}``; None joins the two with a newline into ``{instruction}``.
        later_prompt: template from the second turn of a conversation on; it begins with what
            separates it from the text before.
        direct: how the scored text is scored alone.
        score: the column the method calls its score.
        max_length: default cut in tokens; None is what the model can take.
    """

    name: PresetName
    method: Method
    prompt: str
    later_prompt: str
    score: ScoreColumn
    max_length: int | None
    prompt_with_input: str | None = None
    direct: DirectPass = field(default_factory=DirectPass)

    @property
    def scores_instruction(self) -> bool:
        """The instruction is scored given the response, not the other way round."""
        return self.method == "rmi"

    def render(self, example: Example) -> str:
        """The text before the scored one in the conditional pass of a single turn."""
        extra = example.fields.get("input")
        instruction = example.fields.get("instruction")
        # Only where the loader joined the two: the columns may be others, of the same name.
        joined = example.instruction == f"{instruction}\n{extra}"
        if self.prompt_with_input is not None and extra and joined:
            return self.prompt_with_input.format(instruction=instruction, input=extra)
        return self.prompt.format(instruction=example.instruction, response=example.response)


_PRESETS: dict[str, IfdPreset] = {
    # arXiv:2408.02193, the authors' CDAS/calculate_ifd.py.
    "codeact": IfdPreset(
        name="codeact",
        method="ifd",
        prompt="Question:\n{instruction}\n\nAnswer:\n",
        later_prompt="\n\nQuestion:\n{instruction}\n\nAnswer:\n",
        score="ifd_ppl",
        max_length=None,
    ),
    # arXiv:2402.00530, the authors' code_ifd/data_analysis.py.
    "superfiltering": IfdPreset(
        name="superfiltering",
        method="ifd",
        prompt="{instruction}\n",
        later_prompt="\n{instruction}\n",
        score="ifd_ppl",
        max_length=1024,
    ),
    # arXiv:2308.12032, the authors' cherry_seletion/data_analysis.py with --prompt alpaca.
    "cherry": IfdPreset(
        name="cherry",
        method="ifd",
        prompt=_ALPACA_HEADER + _ALPACA_TURN,
        prompt_with_input=_ALPACA_WITH_INPUT,
        later_prompt="\n\n" + _ALPACA_TURN,
        direct=DirectPass(prefix="### Response:", allowance=4),
        score="ifd_loss",
        max_length=512,
    ),
    # arXiv:2506.01317, the authors' token_loss.py. It pairs the tokens of both passes and stops
    # where they differ in number; taking one pass's tokens from the other is the same elsewhere.
    "tshirt": IfdPreset(
        name="tshirt",
        method="s_ifd",
        prompt="{instruction}\n",
        later_prompt="\n{instruction}\n",
        direct=DirectPass(shares_tokens=True),
        score="s_ifd",
        max_length=1024,
    ),
    # arXiv:2603.12165. No code is published; the text around the pair is CodeACT's, reversed.
    "qaq": IfdPreset(
        name="qaq",
        method="rmi",
        prompt="Answer:\n{response}\n\nQuestion:\n",
        later_prompt="\n\nAnswer:\n{response}\n\nQuestion:\n",
        direct=DirectPass(shares_tokens=True, starts_with_bos=True),
        score="rmi",
        max_length=None,
    ),
}

PRESET_NAMES = tuple(_PRESETS)


def ifd_preset(name: str) -> IfdPreset:
    """The preset of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _PRESETS:
        raise InputError(f"preset must be one of {', '.join(_PRESETS)}, got {name!r}")
    return _PRESETS[name]

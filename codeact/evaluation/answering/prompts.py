"""What a model is shown of a benchmark's task: five named forms of prompt and where answers end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from codeact.evaluation.judging.problems import Problem

StyleName = Literal["auto", "chat", "completion", "deepseek", "alpaca"]
STYLES: tuple[StyleName, ...] = get_args(StyleName)

# The setting of EvalPlus for instructed models (a request, the task as code, and the beginning of
# the answer already written), in our own words.
_REQUEST = (
    "Solve the following programming task with one complete Python program, in a Markdown code "
    "block."
)
RESPONSE_PREFIX = "Here is a complete Python program that solves the task:\n```python\n"

# {} is the request. The first is that of CodeACT's authors (arXiv:2408.02193), after
# DeepSeek-Coder, and what `codeact train` gives a model without a template; the other Alpaca's.
_FORMS = {
    "deepseek": "### Instruction:\n{}\n### Response:\n",
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{}\n\n### Response:\n"
    ),
}

# A body ends where a line begins that cannot belong to it, as in Codex (arXiv:2107.03374) and
# EvalPlus: the next definition, a test, a print, a comment at the margin.
_BODY_ENDS = (
    "\ndef ", "\nclass ", "\n@", "\nimport ", "\nfrom ", "\nassert ", "\nprint(", "\nif ", "\n#",
    '\n"""', "\n'''", "\n```",
)  # fmt: skip
# A whole program may hold definitions, imports and comments: only what follows one ends it.
_PROGRAM_ENDS = (
    "\nif __name__", "\ndef main(", "\nprint(", "\nassert ", '\n"""', "\n'''", "\n```"
)  # fmt: skip
_BLOCK_ENDS = ("\n```",)


@dataclass(frozen=True)
class PromptStyle:
    """How a model is asked; stands in ``evaluation.json`` with the answers.

    Attributes:
        name: ``"chat"`` is the tokenizer's template around the request, ``"deepseek"`` and
            ``"alpaca"`` are fixed forms around it, ``"completion"`` is the task's code alone.
        asked: What was asked for: ``name``, or ``"auto"``, or ``"chat"`` without a template.
        response_prefix: How every answer begins; the model goes on from there. Empty in
            completions, where the task's code has that part.
    """

    name: Literal["chat", "completion", "deepseek", "alpaca"]
    asked: StyleName
    response_prefix: str

    def text(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> str:
        """The whole prompt, as the model reads it, but for the tokens that a tokenizer adds."""
        code = problem.prompt.strip()
        if self.name == "completion":
            return code + "\n"
        request = f"{_REQUEST}\n```python\n{code}\n```"
        if self.name != "chat":
            return _FORMS[self.name].format(request) + self.response_prefix
        return _templated(tokenizer, request, problem.task_id) + self.response_prefix

    def stops(self, benchmark: str) -> tuple[str, ...]:
        """Texts at the first of which an answer ends, before it."""
        if self.name == "completion":
            return _BODY_ENDS if benchmark == "humaneval" else _PROGRAM_ENDS
        # Of an answer that opens its block itself, the first fence is not the end.
        return _BLOCK_ENDS if self.response_prefix.rstrip().endswith("```python") else ()

    def input_ids(self, text: str, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
        """The tokens of a prompt; a template has its own marks, other forms get the tokenizer's."""
        found: Any = tokenizer(text, add_special_tokens=self.name != "chat")["input_ids"]
        # Some tokenizers end every text with it: after that there is nothing to go on with.
        if self.name != "chat" and found and found[-1] == tokenizer.eos_token_id:
            found = found[:-1]
        return np.array(found, dtype=np.int64)


def choose_style(
    asked: StyleName | str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    trained_here: bool = False,
    response_prefix: bool = True,
) -> PromptStyle:
    """The form that a model is asked in.

    ``"auto"`` is ``"chat"`` if the tokenizer has a template. Without one it is ``"completion"``,
    which suits base models; ``"chat"`` without a template falls back to ``"alpaca"``. For a model
    that ``codeact train`` has written without a template, both are ``"deepseek"``, as it was
    trained.

    Args:
        asked: One of ``STYLES``.
        tokenizer: Whose template it would be.
        trained_here: Whether ``codeact train`` has written the model.
        response_prefix: Begin every answer with ``RESPONSE_PREFIX``.

    Raises:
        InputError: No such style.
    """
    if asked not in STYLES:
        raise InputError(f"style must be one of {', '.join(STYLES)}, got {asked!r}")
    name: str = asked
    if asked in ("auto", "chat"):
        without = "alpaca" if asked == "chat" else "completion"
        name = "chat" if tokenizer.chat_template else "deepseek" if trained_here else without
    prefix = RESPONSE_PREFIX if response_prefix and name != "completion" else ""
    return PromptStyle(name, asked, prefix)  # type: ignore[arg-type]  # checked above


def _templated(tokenizer: PreTrainedTokenizerBase, request: str, task_id: str) -> str:
    from jinja2 import TemplateError  # comes with every chat template

    turns = [{"role": "user", "content": request}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise InputError(f"the chat template rejects task {task_id}: {error}") from None
    return str(text)

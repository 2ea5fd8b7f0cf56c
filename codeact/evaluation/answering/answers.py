"""From what a model wrote to a program that runs alone, and what is wrong with some answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from codeact.tasks import complete_code, extract_code
from codeact.tasks.task_rows import header_before

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from codeact.evaluation.answering.prompts import PromptStyle
    from codeact.evaluation.judging.problems import Problem
    from codeact.evaluation.samples import Sample

AnswerKind = Literal["whole", "empty", "truncated"]

_CHECK_EVERY = 8  # tokens: decoding after each of them would cost a third of a step of many rows


def solution_of(response: str, problem: Problem, style: PromptStyle) -> str:
    """The complete program in an answer; ``""`` where there is no code.

    A completion is cut at the first stop of its benchmark and put behind the task's code. Other
    answers go on from the style's response prefix; of their code blocks
    :func:`codeact.tasks.extract_code` chooses, and a bare body gets the task's code in front.
    """
    cut = cut_at(response, style.stops(problem.benchmark))
    if style.name == "completion":
        return continued(problem, cut) if has_code(cut) else ""
    if style.response_prefix and not has_code(cut):
        return ""  # else the words of the prefix would be taken for a program
    code = extract_code(style.response_prefix + cut, entry_point=problem.entry_point)
    return complete(problem, code) if has_code(code) else ""


def complete(problem: Problem, code: str) -> str:
    """``code`` with what it lacks of the task's own in front, so that it runs alone.

    A body gets the task's code; a HumanEval function what stands before it there, imports and
    helper functions, which were shown to the model and which answers leave out. What the answer
    defines itself comes later, and holds.
    """
    if problem.benchmark != "humaneval":
        return code
    whole = complete_code(code, prompt_code=problem.prompt, entry_point=problem.entry_point)
    head = header_before(problem.prompt, problem.entry_point)
    # A future import must come first; answers with one are programs of their own.
    if whole is not code or not head or head in code or "from __future__" in code:
        return whole
    return head + "\n\n\n" + code.lstrip("\n")


def continued(problem: Problem, completion: str) -> str:
    """The task's code and what continues it, as EvalPlus joins ``completion`` to ``prompt``."""
    return problem.prompt.strip() + "\n" + completion.lstrip("\n")


def cut_at(text: str, stops: Sequence[str]) -> str:
    """``text`` before the first of ``stops``."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)]


def has_code(text: str) -> bool:
    """Whether something stands there besides space and comments."""
    lines = map(str.strip, text.split("\n"))
    return any(line and not line.startswith("#") for line in lines)


def kind_of(sample: Sample) -> AnswerKind:
    """``"empty"`` without a program, ``"truncated"`` where the model was cut, else ``"whole"``.

    Whether a whole answer parses is for the sandbox to say (status ``syntax_error``): parsing is
    not safe here.
    """
    if not sample.solution:
        return "empty"
    return "truncated" if sample.finish == "length" else "whole"


def stop_check(
    stops: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> Callable[[list[int]], bool] | None:
    """Whether new tokens hold a stop text, for :func:`codeact.models.generate`; None without any.

    It looks at every eighth token, at as many of the last ones as a stop may begin in, so that a
    sequence runs at most seven tokens too far. What counts is that it ends in the same place in
    every batch.
    """
    if not stops:
        return None
    decode: Any = tokenizer.decode
    # A stop of n characters, all ASCII, has n tokens at most.
    window = _CHECK_EVERY + max(map(len, stops))

    def completes(token_ids: list[int]) -> bool:
        if len(token_ids) % _CHECK_EVERY:
            return False
        text: str = decode(token_ids[-window:])
        return any(stop in text for stop in stops)

    return completes

"""Prompts: what a model reads, letter for letter, and which form is chosen when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from codeact.errors import InputError
from codeact.evaluation.answering.prompts import RESPONSE_PREFIX, STYLES, choose_style
from codeact.evaluation.judging.problems import Problem
from codeact.sandbox.limits import Limits
from codeact.sandbox.tests import Call, FunctionTests

TESTS = FunctionTests("add", (Call((1, 2)),), (3,))
HEAD = '\n\ndef add(a, b):\n    """ The sum. """\n'
HUMANEVAL = Problem("humaneval", "HumanEval/0", HEAD, "add", TESTS, 0, Limits(), "")
MBPP = Problem("mbpp", "Mbpp/2", '"""\nAdd.\nassert add(1, 2) == 3\n"""\n', "add", TESTS, 0,
               Limits(), "")  # fmt: skip
REQUEST = (
    "Solve the following programming task with one complete Python program, in a Markdown code "
    'block.\n```python\ndef add(a, b):\n    """ The sum. """\n```'
)


@pytest.fixture
def tokenizer(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


def test_a_chat_prompt_is_the_template_and_the_beginning_of_the_answer(tokenizer: Any) -> None:
    style = choose_style("auto", tokenizer)
    assert style.name == "chat"
    text = style.text(HUMANEVAL, tokenizer)
    turn = f"<|im_start|>user\n{REQUEST}<|im_end|>\n<|im_start|>assistant\n"
    assert text == turn + RESPONSE_PREFIX
    assert RESPONSE_PREFIX.endswith("\n```python\n")
    ids = style.input_ids(text, tokenizer)
    assert ids.tolist()[:2] == tokenizer("<|im_start|>u", add_special_tokens=False)["input_ids"]
    bare = choose_style("chat", tokenizer, response_prefix=False)
    assert bare.text(HUMANEVAL, tokenizer) == turn
    assert bare.stops("humaneval") == ()
    assert style.stops("mbpp") == ("\n```",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("completion", HEAD.strip() + "\n"),
        ("deepseek", f"### Instruction:\n{REQUEST}\n### Response:\n{RESPONSE_PREFIX}"),
        (
            "alpaca",
            "Below is an instruction that describes a task. Write a response that appropriately "
            f"completes the request.\n\n### Instruction:\n{REQUEST}\n\n### Response:\n"
            + RESPONSE_PREFIX,
        ),
    ],
)
def test_the_other_forms(tokenizer: Any, name: str, expected: str) -> None:
    assert choose_style(name, tokenizer).text(HUMANEVAL, tokenizer) == expected


def test_deepseek_is_the_form_in_which_models_without_a_template_are_trained(
    tokenizer: Any,
) -> None:
    from codeact.data.example import Example, Message
    from codeact.data.prompt import make_renderer

    tokenizer.chat_template = None
    example = Example("0", (Message("user", REQUEST),), {})
    style = choose_style("deepseek", tokenizer, response_prefix=False)
    text = style.text(HUMANEVAL, tokenizer)
    assert text == make_renderer(tokenizer)(example).text


@pytest.mark.parametrize(
    ("asked", "trained_here", "name"),
    [
        ("auto", False, "completion"),
        ("chat", False, "alpaca"),
        ("auto", True, "deepseek"),
        ("chat", True, "deepseek"),
        ("completion", True, "completion"),
    ],
)
def test_without_a_template(tokenizer: Any, asked: str, trained_here: bool, name: str) -> None:
    tokenizer.chat_template = None
    style = choose_style(asked, tokenizer, trained_here=trained_here)
    assert (style.name, style.asked) == (name, asked)
    assert (style.response_prefix == "") == (name == "completion")


def test_a_token_that_ends_every_text_is_taken_off(tokenizer: Any) -> None:
    style = choose_style("completion", tokenizer)

    class Ending:
        eos_token_id = 2

        def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [5, 6, 2] if add_special_tokens else [5, 6]}

    assert style.input_ids("ab", Ending()).tolist() == [5, 6]  # type: ignore[arg-type]
    plain = style.input_ids(style.text(MBPP, tokenizer), tokenizer)
    assert tokenizer.decode(plain.tolist()) == MBPP.prompt.strip() + "\n"


def test_refuses(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=f"style must be one of {', '.join(STYLES)}, got 'chatml'"):
        choose_style("chatml", tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no system turns') }}"
    with pytest.raises(InputError, match="rejects task HumanEval/0: no system turns"):
        choose_style("chat", tokenizer).text(HUMANEVAL, tokenizer)

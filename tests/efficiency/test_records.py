"""The text of messages: the model's own words where they hold what was measured, else a block."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codeact.efficiency.inputs.candidates import Candidate
from codeact.efficiency.instruct.records import assistant_message, fenced, user_message
from codeact.sandbox.tests import Call, FunctionTests
from codeact.tasks.code_blocks import extract_code
from codeact.tasks.task_file import Task

SOURCE = "def f(x):\n    return x\n"
TASK = Task("t", "Return x.\n", FunctionTests("f", (Call((1,)),), (1,)), None)


def answer(response: str | None, source: str = SOURCE, language: str = "python") -> Candidate:
    return Candidate("a", "t", source, language, "model", 1, response)


def content(candidate: Candidate) -> str:
    message = assistant_message(candidate)
    assert message["role"] == "assistant"
    return message["content"]


def test_a_block_of_ones_own_without_words():
    assert content(answer(None)) == "```python\ndef f(x):\n    return x\n```"
    assert content(answer(None, "int main() {}", "cpp")) == "```cpp\nint main() {}\n```"


def test_the_models_words_stay_around_the_measured_program():
    words = f"Just give it back.\n\n```python\n{SOURCE}```\n\nThat is O(1).\n"
    assert content(answer(words)) == words.strip()


@pytest.mark.parametrize(
    "words",
    [
        "    return x",  # a continuation that was completed from the task's code
        SOURCE,  # the program without a block
        f"```python\n{SOURCE}",  # cut off before the fence closed
        "```python\ndef f(x):\n    return x + 0\n```",  # another program than was measured
        "",
    ],
    ids=["continuation", "bare", "cut", "other", "empty"],
)
def test_words_that_do_not_hold_the_program_are_left_out(words):
    assert content(answer(words)) == fenced(SOURCE, "python")


def test_thoughts_before_the_answer_are_left_out():
    tried = "<think>Maybe\n```python\nwrong()\n```\nno.</think>\n"
    words = f"Here:\n```python\n{SOURCE}```"
    assert content(answer(tried + words)) == words


@pytest.mark.parametrize("source", ['x = "```"', "a = '''\n`````\n'''", "plain = 1"])
def test_whatever_backticks_a_program_holds_it_comes_back_out_of_its_block(source):
    assert extract_code(fenced(source, "python")).strip() == source


def test_the_instruction_shows_the_code_to_begin_with_once():
    begun = replace(TASK, prompt_code="def f(x):\n")
    assert user_message(TASK) == {"role": "user", "content": "Return x."}
    assert user_message(begun)["content"] == "Return x.\n\n```python\ndef f(x):\n```"
    shown = replace(begun, instruction="Complete:\ndef f(x):\n")
    assert user_message(shown)["content"] == "Complete:\ndef f(x):"

"""From an answer to a program: cuts, fences, heads, and what is no program at all."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from codeact.evaluation.answering.answers import cut_at, kind_of, solution_of, stop_check
from codeact.evaluation.answering.prompts import RESPONSE_PREFIX, PromptStyle
from codeact.evaluation.judging.problems import Problem
from codeact.evaluation.samples import Sample
from codeact.sandbox.limits import Limits
from codeact.sandbox.tests import Call, FunctionTests

TESTS = FunctionTests("f", (Call(([1],)),), (1,))
HEAD = 'from typing import List\n\n\ndef f(x: List[int]) -> int:\n    """ Sum. """\n'
HUMANEVAL = Problem("humaneval", "HumanEval/0", HEAD, "f", TESTS, 0, Limits(), "")
DOCSTRING = '"""\nSum.\nassert f([1]) == 1\n"""\n'
MBPP = Problem("mbpp", "Mbpp/2", DOCSTRING, "f", TESTS, 0, Limits(), "")
COMPLETION = PromptStyle("completion", "completion", "")
PREFIXED = PromptStyle("chat", "chat", RESPONSE_PREFIX)
CHAT = PromptStyle("chat", "chat", "")
BODY = "    return sum(x)\n"
WHOLE = "def f(x):\n    return sum(x)\n"
IMPORTS = "from typing import List\n\n\n"


@pytest.mark.parametrize(
    "after",
    ["\ndef g():\n    pass", "\nclass A:", "\nprint(f([1]))", "\n# Test\n", "\nif __name__ ==",
     "\nassert f", "\nfrom x import y", "\n```\nIt sums.", '\n"""'],
)  # fmt: skip
def test_a_completed_body_ends_at_the_margin(after: str) -> None:
    assert solution_of(BODY + after, HUMANEVAL, COMPLETION).rstrip("\n") == (HEAD + BODY).rstrip()


def test_a_completed_program_may_have_helpers_and_imports() -> None:
    program = "import math\n\ndef g(x):\n    return x\n\n# the sum\ndef f(x):\n    return g(x)\n"
    answer = program + "\nassert f(1) == 1\n" + WHOLE
    assert solution_of(answer, MBPP, COMPLETION) == DOCSTRING + program
    # A head at its very beginning is no end.
    assert solution_of(WHOLE, HUMANEVAL, COMPLETION) == HEAD + WHOLE


@pytest.mark.parametrize(
    ("style", "response", "solution"),
    [
        (PREFIXED, WHOLE + "```\nIt sums.", IMPORTS + WHOLE),
        (PREFIXED, WHOLE, IMPORTS + WHOLE),  # cut, or ended without closing the block
        (PREFIXED, BODY + "```", HEAD + BODY),
        (CHAT, f"Here:\n```python\n{WHOLE}```\n```python\nf([1])\n```", IMPORTS + WHOLE),
        (CHAT, WHOLE, IMPORTS + WHOLE),
        (CHAT, "```python\nfrom __future__ import annotations\n" + WHOLE + "```",
         "from __future__ import annotations\n" + WHOLE),
        (CHAT, f"```python\n{HEAD}{BODY}```", HEAD + BODY),
    ],
)  # fmt: skip
def test_the_program_of_an_answer_in_words(
    style: PromptStyle, response: str, solution: str
) -> None:
    assert solution_of(response, HUMANEVAL, style) == solution


def test_mbpp_answers_stand_alone() -> None:
    assert solution_of(WHOLE + "```", MBPP, PREFIXED) == WHOLE


@pytest.mark.parametrize("response", ["", "  \n", "# only\n  # comments", "# # " * 200 + "\n "])
@pytest.mark.parametrize("style", [COMPLETION, PREFIXED, CHAT], ids=lambda style: style.name)
def test_an_answer_without_code_is_no_program(style: PromptStyle, response: str) -> None:
    assert solution_of(response, MBPP, style) == ""
    assert solution_of(response, HUMANEVAL, style) == ""


def test_words_are_left_to_the_parser_in_the_sandbox() -> None:
    assert solution_of("I cannot.", HUMANEVAL, CHAT) == IMPORTS + "I cannot."
    assert solution_of("```\nI cannot.", MBPP, PREFIXED) == ""
    assert solution_of("```java\nno\n```", MBPP, CHAT) == ""


def functions(source: str) -> dict[str, str]:
    """Names and syntax trees of the functions of a program that is trusted."""
    found = ast.parse(source).body
    return {node.name: ast.dump(node) for node in found if isinstance(node, ast.FunctionDef)}


@pytest.mark.filterwarnings("ignore:invalid escape:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:invalid escape:SyntaxWarning")
@pytest.mark.parametrize(
    ("benchmark", "file"),
    [("humaneval", "HumanEvalPlus-v0.1.10"), ("mbpp", "MbppPlus-v0.2.0")],
)
def test_every_reference_survives_every_form_of_answer(
    data_folder: Path, benchmark: str, file: str
) -> None:
    content = (data_folder / "bench" / f"{file}.jsonl.gz").read_bytes()
    lines = gzip.decompress(content).splitlines()
    for row in map(json.loads, lines):
        name, prompt, code = row["entry_point"], row["prompt"], row["canonical_solution"]
        problem = Problem(benchmark, row["task_id"], prompt, name, TESTS, 1, Limits(), "")
        whole = prompt + code if benchmark == "humaneval" else code
        function = whole[whole.index(f"def {name}(") :] if benchmark == "humaneval" else whole
        forms = [
            (COMPLETION, code + f"\nprint({name}(1))\n"),
            (PREFIXED, function + "\n```\nThat is all.\nprint(1)\n"),
            (CHAT, f"Sure:\n```python\n{whole}\n```\nFor example:\n```\n{name}(1)\n```"),
        ]
        wanted = functions(whole)
        for style, response in forms:
            found = functions(solution_of(response, problem, style))
            assert found[name] == wanted[name], row["task_id"]
            # Helper functions too: what the prompt shows, answers need not repeat.
            assert found.keys() == wanted.keys(), row["task_id"]
    assert len(lines) == {"humaneval": 164, "mbpp": 378}[benchmark]


def test_kinds() -> None:
    def sample(solution: str, finish: Any) -> Sample:
        return Sample("mbpp", "Mbpp/2", 0, "", solution, 0.0, 1, finish)

    kinds = [kind_of(sample("", "length")), kind_of(sample("x", "length"))]
    assert [*kinds, kind_of(sample("x", "stop"))] == ["empty", "truncated", "whole"]


class Letters:
    """A token a letter, and how many were decoded."""

    num_decoded = 0

    def decode(self, token_ids: list[int]) -> str:
        self.num_decoded += len(token_ids)
        return "".join(map(chr, token_ids))


@pytest.mark.parametrize("offset", range(12))
def test_a_stop_is_seen_wherever_it_falls_at_most_seven_tokens_late(offset: int) -> None:
    tokenizer = Letters()
    completes = stop_check(("\ndef ", "\n#"), tokenizer)  # type: ignore[arg-type]
    assert completes is not None
    text = "x" * offset + "\ndef f(): pass" + "y" * 40
    lengths = [n for n in range(1, len(text)) if completes(list(map(ord, text[:n])))]
    end = offset + len("\ndef ")
    assert end <= lengths[0] < end + 8
    assert cut_at(text, ("\ndef ", "\n#")) == "x" * offset
    assert tokenizer.num_decoded <= len(text) / 8 * (8 + 5)


def test_without_stops_nothing_is_asked() -> None:
    assert stop_check((), Letters()) is None  # type: ignore[arg-type]
    assert cut_at("abc", ()) == "abc"

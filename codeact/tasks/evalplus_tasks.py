"""HumanEval+ and MBPP+ as tasks: inputs without answers, which the canonical solution gives.

The rules follow EvalPlus 0.3.1 (arXiv:2305.01210), so that a verdict here is the verdict there:
answers are compared as Python's ``==`` does, floats as ``numpy.allclose``, and the tasks that its
evaluator treats specially name an oracle. Where we differ: a number passes within the larger of the
absolute and the relative tolerance, not within their sum; NaN equals NaN; an answer too large to
keep is known by its digest, and holds no tolerance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.sandbox.execute import Outputs, call_outputs
from codeact.sandbox.programs.languages import language_of
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests, Oracle, Result, Rule
from codeact.tasks.literals import UnreadableTestError
from codeact.tasks.plus_arguments import typed_arguments
from codeact.tasks.task_file import Task
from codeact.tasks.task_rows import (
    FLOAT_ABS_TOL,
    FLOAT_REL_TOL,
    check_texts,
    header_before,
)
from codeact.tasks.task_tests import check_crosses

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

# Changes whenever the same row would give other tests; part of the key of stored answers.
RULES_VERSION = 1

# By entry point, as in EvalPlus; the comment of each oracle stands in `codeact.sandbox.tests`.
_ORACLES: dict[str, Oracle] = {
    "find_zero": "polynomial_root",
    "digit_distance_nums": "or_digit_distance",
    "surface_Area": "or_pyramid_surface",
    **dict.fromkeys(
        (
            "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly",
            "larg_nnum", "intersection_array", "find_dissimilar", "Diff",
        ),
        "same_set",
    ),
}  # fmt: skip
# Answers of re.search: only whether there is one can leave the sandbox.
_PRESENCE = frozenset({"check_str", "text_match_three", "text_starta_endb"})

# A canonical solution answers up to a thousand inputs in one run, once. Mbpp/255 builds a list of
# six million tuples.
_WALL_SECONDS, _CPU_SECONDS = 600.0, 300.0
_MEMORY_BYTES = 4 * 2**30  # as EvalPlus allows
_ANSWER_BYTES = 256 * 2**20
_DIGEST_ABOVE = 2**17  # characters; larger answers would make gigabytes of a benchmark


@dataclass(frozen=True)
class PlusRow:
    """What a row of HumanEval+ or MBPP+ says.

    Attributes:
        prompt: A function's head, or a docstring with one assert.
        entry_point: The function that is called.
        reference: The canonical solution, a complete program.
        calls: The inputs, the benchmark's own first.
        num_base: How many those are.
        result: What of a call is its answer.
        oracle: What is right besides the expected answers.
        atol: The row's own absolute tolerance, 0 for none.
        is_mbpp: Of MBPP+.
    """

    prompt: str
    entry_point: str
    reference: str
    calls: tuple[Call, ...]
    num_base: int
    result: Result
    oracle: Oracle
    atol: float
    is_mbpp: bool

    def tests(self, expected: tuple[Any, ...], prelude: str = "") -> FunctionTests:
        """The tests, once the answers are known."""
        return FunctionTests(
            self.entry_point, self.calls, expected, self.rule(expected), prelude, self.result
        )

    def rule(self, expected: Sequence[Any]) -> Rule:
        """Tolerances as EvalPlus: the row's, or 1e-6 if an answer is a float or only floats."""
        abs_tol = self.atol or (FLOAT_ABS_TOL if any(map(_is_floats, expected)) else 0.0)
        return Rule(
            abs_tol=abs_tol,
            rel_tol=FLOAT_REL_TOL if abs_tol else 0.0,
            equality="python",
            oracle=self.oracle,
        )


def read_plus_row(row: Mapping[str, Any], task_id: str, place: str) -> PlusRow:
    """Read a row, its arguments with the types that JSON lost.

    Raises:
        UnreadableTestError: It has no inputs, or they are not of the form that its task has.
        InputError: A column is of a wrong type.
    """
    columns = ("prompt", "entry_point", "canonical_solution")
    check_texts({column: row[column] for column in columns}, place)
    prompt, entry_point, is_mbpp = row["prompt"], row["entry_point"], "assertion" in row
    base, plus = (_inputs(row, column, place) for column in ("base_input", "plus_input"))
    if not (inputs := [*base, *plus]):
        raise UnreadableTestError("no inputs")
    try:
        typed = [typed_arguments(task_id, inp) if is_mbpp else tuple(inp) for inp in inputs]
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise UnreadableTestError(f"arguments of another form than the task's: {error}") from None
    atol = row.get("atol") or 0
    if type(atol) not in (int, float) or not 0 <= atol < 1:
        raise InputError(f"{place}: atol must be a number from 0 to below 1, got {atol!r}")
    return PlusRow(
        prompt,
        entry_point,
        # What follows the prompt of HumanEval is a function's body.
        row["canonical_solution"] if is_mbpp else prompt + row["canonical_solution"],
        tuple(map(Call, typed)),
        len(base),
        "presence" if is_mbpp and entry_point in _PRESENCE else "return",
        _ORACLES.get(entry_point, "expected"),
        float(atol),
        is_mbpp,
    )


def evalplus_task(row: Mapping[str, Any], name: str, place: str, sandbox: Sandbox) -> Task:
    """A row of HumanEval+ or MBPP+, its expected answers from a run of the canonical solution.

    Raises:
        UnreadableTestError: The canonical solution does not answer every input within the limits.
        InputError: A column is of a wrong type.
    """
    read = read_plus_row(row, name, place)
    expected = expected_outputs(sandbox, read).values
    check_crosses(read.calls, expected)
    prelude = "" if read.is_mbpp else header_before(read.prompt, read.entry_point)
    instruction = _words(read.prompt) if read.is_mbpp else "Complete this Python function."
    return Task(
        name,
        instruction,
        read.tests(expected, prelude),
        read.reference,
        prompt_code="" if read.is_mbpp else read.prompt,
    )


def expected_outputs(sandbox: Sandbox, row: PlusRow) -> Outputs:
    """What the canonical solution answers to each call, run once in the sandbox.

    Raises:
        UnreadableTestError: It does not answer all of them with values that can be compared.
        RuntimeError: The sandbox itself failed.
    """
    found = call_outputs(
        sandbox,
        Program("python", row.reference),
        row.entry_point,
        row.calls,
        result=row.result,
        rule=row.rule(()),
        limits=replace(
            language_of("python").limits,
            wall_seconds=_WALL_SECONDS,
            cpu_seconds=_CPU_SECONDS,
            memory_bytes=_MEMORY_BYTES,
            answer_bytes=_ANSWER_BYTES,
        ),
        digest_above=_DIGEST_ABOVE,
    )
    if isinstance(found, Outputs):
        return found
    if found.status == "sandbox_error":
        raise RuntimeError(f"the sandbox failed: {found.reason}")  # it says nothing of the task
    raise UnreadableTestError(f"the canonical solution: {found.status}: {found.reason}")


def _inputs(row: Mapping[str, Any], column: str, place: str) -> list[Any]:
    given = row[column] or []
    if not isinstance(given, list) or not all(isinstance(call, list) for call in given):
        raise InputError(f"{place}: {column} must be a list of lists of arguments")
    return given


def _is_floats(value: Any) -> bool:
    """A float, or a list or tuple of nothing else: what EvalPlus gives a tolerance."""
    if type(value) in (list, tuple) and value:
        return all(type(item) is float for item in value)
    return type(value) is float


def _words(prompt: str) -> str:
    """The statement of an MBPP+ task without the quotes around it."""
    return re.sub(r'\A\s*"""\s*|\s*"""\s*\Z', "", prompt)

"""HumanEval+ and MBPP+ as tasks: inputs without answers, which the canonical solution gives."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.sandbox.execute import call_outputs
from codeact.sandbox.programs.languages import language_of
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests, Rule
from codeact.sandbox.verdict import Verdict
from codeact.tasks.answer_rules import tolerance
from codeact.tasks.literals import UnreadableTestError
from codeact.tasks.task_file import Task
from codeact.tasks.task_rows import (
    FLOAT_ABS_TOL,
    FLOAT_REL_TOL,
    check_texts,
    header_before,
)
from codeact.tasks.task_tests import (
    asserted_arguments,
    check_crosses,
)

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

# EvalPlus compares the answers of these as sets: their order is free.
_SETS = frozenset(
    {
        "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly",
        "larg_nnum", "intersection_array", "find_dissimilar", "Diff",
    }
)  # fmt: skip
# Any root of a polynomial is right; a list of expected answers cannot say so.
_OWN_CHECKER = {"find_zero": "any root is a right answer, which compared answers cannot express"}

# A canonical solution answers up to a thousand inputs in one run, once.
_WALL_SECONDS, _CPU_SECONDS = 120.0, 60.0
_ANSWER_BYTES = 64 * 2**20

_CONTAINERS = frozenset({list, tuple, set, frozenset})
_NUMBERS = frozenset({int, float, complex})
_COMPLEX = re.compile(r"\(?[-+.\de]*\dj?\)?")

Place = tuple[int, ...]  # the argument's index, then a 0 for each level of nesting


def evalplus_task(row: Mapping[str, Any], name: str, place: str, sandbox: Sandbox) -> Task:
    """A row of HumanEval+ or MBPP+.

    Expected answers come from one run of the canonical solution on all inputs of the row, base
    and plus. Floats compare to EvalPlus's tolerances (1e-6, or the row's own ``atol``; relative
    1e-7). Where EvalPlus compares sets we compare without order: an item too often is wrong here.

    Raises:
        UnreadableTestError: The task needs a checker of its own, or its canonical solution does
            not answer every input within the limits.
        InputError: A column is of a wrong type.
    """
    columns = ("prompt", "entry_point", "canonical_solution")
    check_texts({column: row[column] for column in columns}, place)
    entry_point = row["entry_point"]
    if entry_point in _OWN_CHECKER:
        raise UnreadableTestError(_OWN_CHECKER[entry_point])
    is_mbpp = "assertion" in row
    prompt = row["prompt"]
    prelude = "" if is_mbpp else header_before(prompt, entry_point)
    reference = row["canonical_solution"] if is_mbpp else prompt + row["canonical_solution"]
    calls = _calls(row, place, str(row.get("assertion") or "") if is_mbpp else "")
    expected = expected_outputs(sandbox, reference, entry_point, calls, prelude=prelude)
    check_crosses(calls, expected)
    abs_tol = max(float(row.get("atol") or 0), tolerance(expected, FLOAT_ABS_TOL))
    rule = Rule(
        order="unordered" if entry_point in _SETS else "exact",
        abs_tol=abs_tol,
        rel_tol=FLOAT_REL_TOL if abs_tol else 0.0,
    )
    tests = FunctionTests(entry_point, calls, expected, rule, prelude)
    instruction = _words(prompt) if is_mbpp else "Complete this Python function."
    return Task(name, instruction, tests, reference, prompt_code="" if is_mbpp else prompt)


def expected_outputs(
    sandbox: Sandbox, source: str, entry_point: str, calls: Sequence[Call], *, prelude: str = ""
) -> tuple[Any, ...]:
    """What a right solution answers to each call, run once in the sandbox.

    Raises:
        UnreadableTestError: It does not answer all of them with values that can be compared.
        RuntimeError: The sandbox itself failed.
    """
    limits = replace(
        language_of("python").limits,
        wall_seconds=_WALL_SECONDS,
        cpu_seconds=_CPU_SECONDS,
        answer_bytes=_ANSWER_BYTES,
    )
    program = Program("python", source)
    found = call_outputs(sandbox, program, entry_point, calls, prelude=prelude, limits=limits)
    if isinstance(found, Verdict) and found.status == "sandbox_error":
        raise RuntimeError(f"the sandbox failed: {found.reason}")  # it says nothing of the task
    if isinstance(found, Verdict):
        raise UnreadableTestError(f"the canonical solution: {found.status}: {found.reason}")
    return found


def restore_types(arguments: Any, literals: Sequence[Sequence[Any]]) -> Any:
    """Arguments read from JSON with the types that the same arguments have as Python literals.

    JSON has no tuple, set or complex. MBPP+ writes its first inputs twice, in ``base_input`` and
    as literals in ``assertion``; every list gets the type that literals have in its place, items
    of a list counting as one place, and that of the list around it where no literal has one. Where
    literals differ, it stays a list. An argument such as ``"1j"`` where literals have numbers is
    complex.

    Args:
        arguments: Lists of arguments, one a call.
        literals: The arguments of the asserts.
    """
    kinds: dict[Place, set[type]] = defaultdict(set)
    for call in literals:
        for index, value in enumerate(call):
            _collect_kinds(value, (index,), kinds)
    return [
        [_restored(value, (index,), list, kinds) for index, value in enumerate(call)]
        for call in arguments
    ]


def _calls(row: Mapping[str, Any], place: str, assertion: str) -> tuple[Call, ...]:
    inputs: list[Any] = []
    for column in ("base_input", "plus_input"):
        given = row[column] or []
        if not isinstance(given, list) or not all(isinstance(call, list) for call in given):
            raise InputError(f"{place}: {column} must be a list of lists of arguments")
        inputs += given
    if assertion:
        inputs = restore_types(inputs, asserted_arguments(assertion, callee=row["entry_point"]))
    if not inputs:
        raise UnreadableTestError("no inputs")
    return tuple(Call(tuple(arguments)) for arguments in inputs)


def _collect_kinds(value: Any, place: Place, kinds: dict[Place, set[type]]) -> None:
    kinds[place].add(type(value))
    items: Iterable[Any] = ()
    if isinstance(value, dict):
        items = value.values()
    elif type(value) in _CONTAINERS:
        items = value
    for item in items:
        _collect_kinds(item, (*place, 0), kinds)


def _restored(value: Any, place: Place, around: type, kinds: Mapping[Place, set[type]]) -> Any:
    known = kinds.get(place, set())
    is_argument = len(place) == 1 and isinstance(value, str)
    if is_argument and known and known <= _NUMBERS and _COMPLEX.fullmatch(value):
        return complex(value)
    if isinstance(value, dict):
        return {key: _restored(item, (*place, 0), list, kinds) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    containers = known & _CONTAINERS or {around}
    kind: Any = containers.pop() if len(containers) == 1 else list
    return kind(_restored(item, (*place, 0), kind, kinds) for item in value)


def _words(prompt: str) -> str:
    """The statement of an MBPP+ task without the quotes around it."""
    return re.sub(r'\A\s*"""\s*|\s*"""\s*\Z', "", prompt)

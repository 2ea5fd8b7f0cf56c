"""One row of a known task set as a task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.sandbox.tests import FunctionTests, Rule
from codeact.tasks.answer_rules import has_several_answers, rule_of_statement, tolerance
from codeact.tasks.literals import UnreadableTestError
from codeact.tasks.task_file import Task
from codeact.tasks.task_tests import (
    AssertedCalls,
    called_name,
    check_crosses,
    read_asserts,
)

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox


class NeedsSandboxError(InputError):
    """Tasks whose answers only running their solutions tells, and no sandbox to run them in."""


# EvalPlus compares answers that hold floats to these (np.allclose); the plain benchmarks compare
# them exactly, which fails right answers that add in another order.
FLOAT_ABS_TOL, FLOAT_REL_TOL = 1e-6, 1e-7

_ID_COLUMNS = ("id", "task_id")
# The columns that tell one set from another, the most telling first.
_LEETCODE = ("query", "prompt", "completion", "entry_point", "test")
_PLUS = ("prompt", "entry_point", "canonical_solution", "base_input", "plus_input")
_HUMANEVAL = ("prompt", "entry_point", "canonical_solution", "test")
_MBPP = ("text", "code", "test_list")
_OWN = ("instruction", "tests")

# Between the statement and the signature in the LeetCode set's `query`.
_LEETCODE_QUERY = re.compile(
    r"(?P<statement>.*?)\s*Please complete the following python code precisely:\s*"
    r"```python\n(?P<code>.*?)\n?```\s*",
    re.DOTALL,
)


def row_id(row: Any, place: str) -> str:
    """The task id of a row of any kind.

    Raises:
        InputError: The row is no object or has no id.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{place}: must be an object, got {type(row).__name__}")
    for column in _ID_COLUMNS:
        if isinstance(row.get(column), (str, int)) and str(row[column]).strip():
            return str(row[column])
    raise InputError(
        f"{place}: needs a text in {' or '.join(_ID_COLUMNS)}, got {', '.join(map(str, row))}"
    )


def task_of_row(row: Mapping[str, Any], name: str, place: str, sandbox: Sandbox | None) -> Task:
    """A row of any kind that :func:`codeact.tasks.task_file.read_tasks` knows.

    Raises:
        UnreadableTestError: The row is of a known kind, but its tests cannot be used.
        NeedsSandboxError: The row is of HumanEval+ or MBPP+, and ``sandbox`` is None.
        InputError: It is of no known kind, or a column is of the wrong type.
    """
    if all(column in row for column in _OWN):
        from codeact.tasks.own_tasks import own_task

        return own_task(row, name, place)
    if all(column in row for column in _PLUS):
        from codeact.tasks.evalplus_tasks import evalplus_task

        if sandbox is None:
            raise NeedsSandboxError(
                f"{place}: HumanEval+ and MBPP+ hold inputs without answers: sandbox must be "
                "given to run their canonical solutions, got None"
            )
        return evalplus_task(row, name, place, sandbox)
    for columns, read in ((_LEETCODE, _leetcode), (_HUMANEVAL, _humaneval), (_MBPP, _mbpp)):
        if all(column in row for column in columns):
            texts = {column: row[column] for column in columns if column != "test_list"}
            check_texts(texts, place)
            return read(row, name, place)
    raise InputError(
        f"{place}: of no known kind of task (LeetCode set, HumanEval, HumanEval+, MBPP, MBPP+, or "
        f"our own with {', '.join(_OWN)}), got {', '.join(map(str, row))}"
    )


def check_texts(columns: Mapping[str, Any], place: str) -> None:
    """Raise InputError for the first column that is no string."""
    for column, value in columns.items():
        if not isinstance(value, str):
            raise InputError(f"{place}: {column} must be a string, got {type(value).__name__}")


def header_before(code: str, entry_point: str) -> str:
    """What stands before the function in HumanEval's ``prompt``: imports and helper functions."""
    found = list(re.finditer(rf"^def {re.escape(entry_point)}\b", code, re.MULTILINE))
    return code[: found[-1].start()].strip("\n") if found else ""


def _leetcode(row: Mapping[str, Any], name: str, place: str) -> Task:
    asserted = read_asserts(row["test"], callee="candidate")
    query = _LEETCODE_QUERY.fullmatch(row["query"])
    statement, code = (query["statement"], query["code"]) if query else (row["query"], "")
    rule = rule_of_statement(statement, asserted.expected)
    if asserted.any_order and rule.order == "exact":
        rule = Rule(order="unordered", abs_tol=rule.abs_tol)
    meta = row.get("meta")
    fields = dict(meta) if isinstance(meta, Mapping) else {}
    fields = {key: fields[key] for key in ("question_id", "difficulty") if key in fields}
    if has_several_answers(statement):
        fields["several_answers"] = True  # right answers other than the one we know will fail
    tests = _tests(row["entry_point"], asserted, rule, row["prompt"])
    return Task(name, statement, tests, row["completion"], prompt_code=code, fields=fields)


def _humaneval(row: Mapping[str, Any], name: str, place: str) -> Task:
    prompt, entry_point = row["prompt"], row["entry_point"]
    asserted = read_asserts(row["test"], callee="candidate")
    return Task(
        name,
        "Complete this Python function.",
        _tests(entry_point, asserted, plain_rule(asserted), header_before(prompt, entry_point)),
        prompt + row["canonical_solution"],
        prompt_code=prompt,
    )


def _mbpp(row: Mapping[str, Any], name: str, place: str) -> Task:
    tests = row["test_list"]
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise InputError(f"{place}: test_list must be a list of strings")
    code = "\n".join(tests)
    entry_point = called_name(code)
    if entry_point is None:
        raise UnreadableTestError("no test calls a function by its name")
    asserted = read_asserts(code, callee=entry_point)
    prelude = row.get("test_setup_code")
    return Task(
        name,
        # The name of the function stands only in the tests, so a model is shown the first.
        f"{row['text'].strip()}\nYour code should satisfy this assertion:\n{tests[0].strip()}",
        _tests(entry_point, asserted, plain_rule(asserted), prelude or ""),
        row["code"].replace("\r\n", "\n"),
    )


def plain_rule(asserted: AssertedCalls) -> Rule:
    """The rule of asserts, with EvalPlus's tolerance where an answer holds a float."""
    return Rule(
        order="unordered" if asserted.any_order else "exact",
        abs_tol=max(asserted.abs_tol, tolerance(asserted.expected, FLOAT_ABS_TOL)),
        rel_tol=max(asserted.rel_tol, tolerance(asserted.expected, FLOAT_REL_TOL)),
    )


def _tests(entry_point: str, asserted: AssertedCalls, rule: Rule, prelude: str) -> FunctionTests:
    check_crosses(asserted.calls, asserted.expected)
    try:
        return FunctionTests(entry_point, asserted.calls, asserted.expected, rule, prelude)
    except InputError as error:  # an entry point of another form
        raise UnreadableTestError(str(error)) from None

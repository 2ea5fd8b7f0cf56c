"""Tasks in our own format: one JSON object each.

====================  ==========================================================
field                 value
====================  ==========================================================
``id``                unique text
``instruction``       the problem in words
``tests``             at least one, all of one kind: ``{"args": [...], "kwargs": {...},
                      "expected": ...}`` (Python functions; args or kwargs may be left out), or
                      ``{"stdin": "...", "stdout": "..."}`` (programs in any language)
``language``          as data sets write it; ``"python"`` without it
``entry_point``       ``"name"`` or ``"Class().method"``; needed for functions
``prelude``           trusted code that runs before the candidate (Python functions)
``prompt_code``       code that the answer begins with
``rule``              fields of :class:`codeact.sandbox.tests.Rule`
``result``            ``"return"``, ``"first_argument"`` or ``"presence"``
``reference``         a complete right solution
====================  ==========================================================

Values are JSON's; tuples, sets, dicts with keys other than text, nan and the like are objects with
one tag, ``{"tuple": [1, 2]}`` (:mod:`codeact.sandbox.calls.values` lists the tags). Any other field
is kept in ``Task.fields``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codeact.errors import InputError
from codeact.files import write_jsonl
from codeact.sandbox.calls.values import UnsupportedError, encode, from_json
from codeact.sandbox.programs.program import canonical_language
from codeact.sandbox.tests import Call, FunctionTests, Rule, StdinTests, Tests
from codeact.tasks.literals import UnreadableTestError
from codeact.tasks.task_file import Task
from codeact.tasks.task_rows import check_texts
from codeact.tasks.task_tests import check_crosses

_TEXTS = ("language", "entry_point", "prelude", "prompt_code", "reference", "result")
_KNOWN = frozenset({"id", "instruction", "tests", "rule", *_TEXTS})
_RULE_TYPES = {
    "order": (str,),
    "rel_tol": (int, float),
    "abs_tol": (int, float),
    "tokens": (bool,),
    "strict_types": (bool,),
    "equality": (str,),
    "oracle": (str,),
}
_CALL = frozenset({"args", "kwargs", "expected"})
_STREAM = frozenset({"stdin", "stdout"})


def own_task(row: Mapping[str, Any], name: str, place: str) -> Task:
    """A row in the format above.

    Raises:
        InputError: A field is of a wrong type or names something unknown.
        UnreadableTestError: The tests cannot be used: mixed kinds, or values that cannot
            cross the border of the sandbox.
    """
    texts = {column: row[column] for column in _TEXTS if row.get(column) is not None}
    check_texts({"instruction": row["instruction"], **texts}, place)
    try:
        language = canonical_language(texts.get("language", "python"))
        rule = _rule(row.get("rule") or {})
        tests = _tests(row["tests"], texts, rule, language)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return Task(
        name,
        row["instruction"],
        tests,
        texts.get("reference"),
        language,
        texts.get("prompt_code", ""),
        {column: value for column, value in row.items() if column not in _KNOWN},
    )


def _rule(given: Any) -> Rule:
    if not isinstance(given, Mapping):
        raise InputError(f"rule must be an object, got {type(given).__name__}")
    for key, value in given.items():
        if key not in _RULE_TYPES:
            raise InputError(f"rule may have {', '.join(_RULE_TYPES)}, got {key!r}")
        if type(value) not in _RULE_TYPES[key]:
            wanted = " or ".join(kind.__name__ for kind in _RULE_TYPES[key])
            raise InputError(f"rule.{key} must be of type {wanted}, got {value!r}")
    return Rule(**given)


def _tests(rows: Any, texts: Mapping[str, str], rule: Rule, language: str) -> Tests:
    if not isinstance(rows, list) or not rows:
        raise InputError(f"tests must be a list of at least one, got {rows!r:.80}")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"tests[{index}] must be an object, got {type(row).__name__}")
    if all(row.keys() >= _STREAM for row in rows):
        streams = [(row["stdin"], row["stdout"]) for row in rows]
        for index, pair in enumerate(streams):
            if not all(isinstance(text, str) for text in pair):
                raise InputError(f"tests[{index}]: stdin and stdout must be strings")
        return StdinTests(tuple(a for a, _ in streams), tuple(b for _, b in streams), rule)
    for index, row in enumerate(rows):
        if "expected" not in row or not row.keys() <= _CALL:
            raise UnreadableTestError(
                f"tests[{index}] must have args or kwargs and expected, or all tests stdin and "
                f"stdout, got {', '.join(map(str, row))}"
            )
    if language != "python":
        raise UnreadableTestError(
            f"functions are called in Python only: tests of {language} need stdin, stdout"
        )
    if "entry_point" not in texts:
        raise InputError("entry_point is needed where tests call a function")
    calls = tuple(_call(row, index) for index, row in enumerate(rows))
    expected = tuple(_value(row["expected"], index) for index, row in enumerate(rows))
    check_crosses(calls, expected)
    return FunctionTests(
        texts["entry_point"],
        calls,
        expected,
        rule,
        texts.get("prelude", ""),
        texts.get("result", "return"),  # type: ignore[arg-type]  # checked there
    )


def _call(row: Mapping[str, Any], index: int) -> Call:
    args, kwargs = row.get("args") or [], row.get("kwargs") or {}
    if not isinstance(args, list) or not isinstance(kwargs, Mapping):
        raise InputError(f"tests[{index}]: args must be a list and kwargs an object")
    return Call(
        tuple(_value(value, index) for value in args),
        {name: _value(value, index) for name, value in kwargs.items()},
    )


def _value(data: Any, index: int) -> Any:
    try:
        return from_json(data)
    except (UnsupportedError, RecursionError) as error:
        raise UnreadableTestError(f"test {index}: {error}") from None


def write_tasks(tasks: Sequence[Task], path: str | Path) -> None:
    """Write tasks in the format above; :func:`codeact.tasks.load_tasks` reads them back.

    So the canonical solutions of HumanEval+ and MBPP+ need to run only once.
    """
    write_jsonl(Path(path), (_row(task) for task in tasks))


def _row(task: Task) -> dict[str, Any]:
    tests, rule = task.tests, task.tests.rule
    row: dict[str, Any] = {"id": task.id, "instruction": task.instruction}
    if isinstance(tests, StdinTests):
        pairs = zip(tests.inputs, tests.outputs, strict=True)
        row["tests"] = [{"stdin": given, "stdout": wanted} for given, wanted in pairs]
    else:
        row["tests"] = [
            {
                "args": [_json(value) for value in call.args],
                "kwargs": {name: _json(value) for name, value in call.kwargs.items()},
                "expected": _json(answer),
            }
            for call, answer in zip(tests.calls, tests.expected, strict=True)
        ]
        row |= {"entry_point": tests.entry_point, "prelude": tests.prelude, "result": tests.result}
    row |= {"language": task.language, "prompt_code": task.prompt_code, "rule": asdict(rule)}
    return {**row, "reference": task.reference, **task.fields}


def _json(value: Any) -> Any:
    return json.loads(encode(value))

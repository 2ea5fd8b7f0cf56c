"""Validation sets for influence: coding tasks as (prompt, reference solution) pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from codeact.data.benchmarks import has_columns, read_benchmark
from codeact.data.example import Example, Examples, Message
from codeact.data.language import detect_language
from codeact.data.load import load_examples
from codeact.data.rows import Rows, read_rows
from codeact.data.schema import find_ids, type_name
from codeact.errors import InputError

Style = Literal["instruction", "completion"]
_Rows = str | Path | Sequence[Mapping[str, Any]]

_BENCHMARK_NAMES = ("humaneval", "humaneval+", "mbpp", "mbpp+")
# Tasks name columns of the influence table: "@" parts a task from its checkpoint there, and
# influence_source is a column of its own.
_TAKEN = ("source",)
# All of an MBPP+ prompt; HumanEval's goes on with the head of a function.
_DOCSTRING = re.compile(r'\s*(?:"""(.*)"""|\'\'\'(.*)\'\'\')\s*', re.DOTALL)


class _Columns(NamedTuple):
    """Where a benchmark's rows keep a problem; ``tests`` is ``""`` but for MBPP."""

    prompt: str
    solution: str
    tests: str = ""


def load_validation(
    source: _Rows | Examples,
    *,
    name: str | None = None,
    style: Style = "instruction",
    by: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, Examples]:
    """Problems with reference solutions, as examples whose response alone is to carry loss.

    What becomes of a row, as DIScore (arXiv:2604.07769) turns coding tasks into validation sets:

    ==================  =====================================  ====================================
    rows                ``instruction``                        ``completion`` (no template around)
    ==================  =====================================  ====================================
    HumanEval, and +    prompt; prompt + canonical_solution    prompt; canonical_solution
    MBPP                text and first test; code              these in a docstring; code
    MBPP+               what its docstring says; solution      prompt; canonical_solution
    any other           as :func:`load_examples` makes them    instruction; response
    ==================  =====================================  ====================================

    HumanEval's answer in the ``instruction`` style is the whole function, which is what instruction
    models are asked for. MBPP's first test follows the text as in EvalPlus, since it alone names
    the function; the Windows line ends of its code become plain ones, which no model would write.
    Rows count as HumanEval's or MBPP's by their columns, so that a part of such a file, or another
    language's version of it, is read alike.

    Args:
        source: A file or id that :func:`load_examples` takes, its rows, or examples.
        name: The task's name. Without it ``humaneval``, ``humaneval+``, ``mbpp``, ``mbpp+`` for
            files that :func:`read_benchmark` knows by name, the file's stem for others, and
            ``validation`` for rows and examples.
        style: ``instruction`` for chat templates, ``completion`` for text that is continued.
        by: Splits the set into one task ``<name>-<value>`` for each value of a field of the rows (a
            dotted path such as ``meta.difficulty`` leads into objects), ordered by value. The field
            ``language`` is always there: :func:`codeact.data.language.detect_language`.
        limit: At most so many problems a task, drawn by ``seed``, in their order.
        seed: Of that draw; a task's draw does not depend on the other tasks.

    Returns:
        Examples by task. Ids are the rows' own (``HumanEval/0``, ``Mbpp/2``) or ``<name>/<index>``;
        ``fields`` is the row as it came.

    Raises:
        InputError: Nothing to read, a row without a solution, an unknown ``style``, a field ``by``
            that a row lacks, ``limit`` below 1, a name that is empty or taken or holds ``@``.
    """
    if style not in get_args(Style):
        raise InputError(f"style must be one of {', '.join(get_args(Style))}, got {style!r}")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    if isinstance(source, Examples):
        name = _checked_name("validation" if name is None else name)
        examples = Examples([_in_style(one, style) for one in source], source.source)
    else:
        rows = read_rows(source, "train")
        name = _checked_name(_default_name(source, rows) if name is None else name)
        examples = _read(source, rows, name, style)
    _check_solutions(examples)
    tasks = {name: list(examples)} if by is None else _split(examples, name, by)
    return {
        _checked_name(task): Examples(_draw(members, limit, seed), examples.source)
        for task, members in tasks.items()
    }


def load_validations(
    sources: Sequence[str],
    *,
    style: Style = "instruction",
    by: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, Examples]:
    """The tasks of several files, each given as ``PATH`` or ``NAME=PATH``, in that order.

    Options are those of :func:`load_validation`. An id that an earlier task has gets its task's
    name before it (``humaneval+/HumanEval/0``), so that ids are unique in all.

    Raises:
        InputError: As :func:`load_validation`; no source; two tasks of the same name.
    """
    if not sources:
        raise InputError("validation must name at least one file, got none")
    tasks: dict[str, Examples] = {}
    seen: set[str] = set()
    for source in sources:
        name, path = _parse(source)
        found = load_validation(path, name=name, style=style, by=by, limit=limit, seed=seed)
        for task, examples in found.items():
            if task in tasks:
                raise InputError(
                    f"validation: two tasks are named {task!r}, the second of {path}; "
                    "give one another name with NAME=PATH"
                )
            tasks[task] = _with_own_ids(task, examples, seen)
    return tasks


def _parse(source: str) -> tuple[str | None, str]:
    """Name and path; a file whose own name holds "=" is a path."""
    name, equals, path = source.partition("=")
    if not equals or Path(source).expanduser().exists():
        return None, source
    return name, path


def _with_own_ids(task: str, examples: Examples, seen: set[str]) -> Examples:
    renamed = [
        Example(f"{task}/{one.id}" if one.id in seen else one.id, one.messages, one.fields)
        for one in examples
    ]
    seen.update(one.id for one in renamed)
    return Examples(renamed, examples.source)


def _default_name(source: _Rows, rows: Rows) -> str:
    if not isinstance(source, (str, Path)):
        return "validation"
    path = Path(source).expanduser()
    if _columns(rows.rows[0]) is not None and path.is_file() and has_columns(path):
        known = read_benchmark(path).name.lower()
        if known in _BENCHMARK_NAMES:
            return known
    return rows.stem


def _checked_name(name: str) -> str:
    if not name.strip():
        raise InputError("name of a validation task must not be empty")
    if "@" in name:
        raise InputError(f"name of a validation task must not hold '@', got {name!r}")
    if name in _TAKEN:
        raise InputError(f"name of a validation task must not be {name!r}, a column has that name")
    return name


def _read(source: _Rows, rows: Rows, name: str, style: Style) -> Examples:
    columns = _columns(rows.rows[0])
    if columns is None:
        examples = [_in_style(one, style) for one in load_examples(source)]
    else:
        examples = [
            _problem(row, columns, style, rows.place(index)) for index, row in enumerate(rows.rows)
        ]
    ids = find_ids(rows, None)
    if ids[0] == f"{rows.stem}:0":
        ids = [f"{name}/{index}" for index in range(len(ids))]
    elif columns is not None and columns.tests:
        # As EvalPlus and our decontamination call them.
        ids = [f"Mbpp/{key}" if key.isdigit() else key for key in ids]
    return Examples(
        [Example(key, one.messages, one.fields) for key, one in zip(ids, examples, strict=True)],
        rows.source,
    )


def _check_solutions(examples: Examples) -> None:
    if not examples:
        raise InputError("a validation set must hold at least one problem, got none")
    for example in examples:
        if not example.response.strip():
            raise InputError(
                f"{examples.source}: each problem of a validation set needs a solution, "
                f"{example.id} has none"
            )


def _columns(row: Any) -> _Columns | None:
    """Those of HumanEval or MBPP, None for rows of another kind."""
    if not isinstance(row, Mapping):
        return None
    if {"prompt", "canonical_solution"} <= row.keys():
        return _Columns("prompt", "canonical_solution")
    if {"code", "test_list"} <= row.keys():  # the sanitised MBPP calls its text "prompt"
        return _Columns("text" if "text" in row else "prompt", "code", "test_list")
    return None


def _problem(row: Any, columns: _Columns, style: Style, place: str) -> Example:
    """A row of HumanEval or MBPP, still without its id."""
    if not isinstance(row, Mapping):
        raise InputError(f"{place}: must be an object, got {type_name(row)}")
    for column in (columns.prompt, columns.solution):
        if not isinstance(row.get(column), str):
            found = type_name(row[column]) if column in row else "no such field"
            raise InputError(f"{place}: {column} must be a string, got {found}")
    prompt, solution = row[columns.prompt], row[columns.solution]
    if not solution.strip():  # behind a prompt it would look like an answer
        raise InputError(f"{place}: {columns.solution} must hold a solution, got an empty text")
    if columns.tests:
        tests = row.get(columns.tests) or [""]
        if isinstance(tests, str) or not isinstance(tests[0], str):
            raise InputError(f"{place}: {columns.tests} must be a list of strings")
        words = f"{prompt}\n{tests[0]}".strip()
        prompt = words if style == "instruction" else f'"""\n{words}\n"""\n'
        return _example("", prompt, solution.replace("\r\n", "\n"), row)
    if style == "completion":
        return _example("", prompt, solution, row)
    if words_only := _DOCSTRING.fullmatch(prompt):
        return _example("", "".join(words_only.groups("")).strip(), solution, row)
    return _example("", prompt, prompt + solution, row)


def _in_style(example: Example, style: Style) -> Example:
    """A conversation stays one for a chat template; without one it is two texts."""
    if style == "instruction":
        return example
    return _example(example.id, example.instruction, example.response, example.fields)


def _example(key: str, prompt: str, solution: str, fields: Mapping[str, Any]) -> Example:
    return Example(key, (Message("user", prompt), Message("assistant", solution)), fields)


def _split(examples: Examples, name: str, by: str) -> dict[str, list[Example]]:
    """Tasks by value, in the order of their names."""
    tasks: dict[str, list[Example]] = {}
    for example in examples:
        value = detect_language(example) if by == "language" else _value(example, by, examples)
        tasks.setdefault(f"{name}-{value}", []).append(example)
    return {task: tasks[task] for task in sorted(tasks)}


def _value(example: Example, by: str, examples: Examples) -> str:
    """What a row says in a field, or in one of an object in a field."""
    value: Any = example.fields
    for part in by.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = ", ".join(map(str, value)) if isinstance(value, Mapping) else type_name(value)
            raise InputError(
                f"by: {example.id} of {examples.source} has no field {by!r}, where {part!r} "
                f"should be it has {known}"
            )
        value = value[part]
    if not isinstance(value, (str, int, float)) or value == "":
        found = "an empty string" if value == "" else type_name(value)
        raise InputError(
            f"by: {by} of {example.id} of {examples.source} must be a string or a number, "
            f"got {found}"
        )
    return str(value)


def _draw(members: list[Example], limit: int | None, seed: int) -> list[Example]:
    if limit is None or limit >= len(members):
        return members
    drawn = np.random.default_rng(seed).choice(len(members), size=limit, replace=False)
    return [members[place] for place in np.sort(drawn)]

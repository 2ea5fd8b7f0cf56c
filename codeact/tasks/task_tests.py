"""Tests of a task as values: asserts are read from their syntax tree and never executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codeact.sandbox.calls.values import UnsupportedError, encode, encode_call
from codeact.sandbox.tests import Call
from codeact.tasks.literals import (
    BUILDERS,
    UnreadableTestError,
    function_name,
    only_argument,
    read_literal,
    shown,
)

_SAME = ("is_same_list", "is_same_tree")
_SEQUENCES = ("list", "tuple")  # lists and tuples count alike (Rule.strict_types is False)
_ANY_ORDER = ("sorted", "set")
_WITHOUT_EFFECT = (ast.Pass, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class AssertedCalls:
    """What the asserts of a task say.

    Attributes:
        calls: The arguments, one entry an assert.
        expected: The asserted answers.
        abs_tol: Largest absolute tolerance that an assert states, 0 if none does.
        rel_tol: Largest relative tolerance that an assert states.
        any_order: Asserts compare ``sorted(...)`` or ``set(...)`` of the answer.
    """

    calls: tuple[Call, ...]
    expected: tuple[Any, ...]
    abs_tol: float = 0.0
    rel_tol: float = 0.0
    any_order: bool = False


@dataclass(frozen=True)
class _Assert:
    call: ast.Call
    expected: Any
    abs_tol: float = 0.0
    rel_tol: float = 0.0
    any_order: bool = False


def read_asserts(code: str, *, callee: str) -> AssertedCalls:
    """Read ``assert callee(...) == literal`` and its relatives.

    Known forms: ``==`` and ``is`` either way round, a bare call (the answer must be True) and
    ``not`` (False), ``abs(call - x) < tol``, ``math.isclose``, ``list``, ``tuple``, ``sorted``
    and ``set`` around the call, ``is_same_list`` and ``is_same_tree`` of LeetCode's preludes.
    Arguments and answers are literals, sums and products of numbers, ``list_node([...])`` and
    ``tree_node([...])``. Asserts of a literal, such as ``assert True``, say nothing and are
    passed over.

    Args:
        code: Asserts at top level, or a function ``check`` that holds them.
        callee: The name that the asserts call.

    Raises:
        UnreadableTestError: A statement is of no known form; half of the tests would let
            wrong answers pass.
    """
    found = [asserted for node in _statements(code) if (asserted := _read_assert(node, callee))]
    if not found:
        raise UnreadableTestError(f"no assert calls {callee}")
    orders = {asserted.any_order for asserted in found}
    if len(orders) > 1:
        raise UnreadableTestError("some asserts compare in any order and some do not")
    return AssertedCalls(
        tuple(_read_call(asserted.call) for asserted in found),
        tuple(asserted.expected for asserted in found),
        max(asserted.abs_tol for asserted in found),
        max(asserted.rel_tol for asserted in found),
        orders.pop(),
    )


def called_name(code: str) -> str | None:
    """The name of the function that the first assert calls, those around the call aside."""
    around = {*_SEQUENCES, *_ANY_ORDER, *_SAME, *BUILDERS, "abs", "isclose"}
    try:
        asserts = [node for node in _statements(code) if isinstance(node, ast.Assert)]
    except UnreadableTestError:
        return None
    calls = [node for test in asserts for node in ast.walk(test) if isinstance(node, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return next((name for name in names if name not in around), None)


def check_crosses(calls: Sequence[Call], expected: Sequence[Any]) -> None:
    """Refuse values that cannot cross the border of the sandbox.

    Raises:
        UnreadableTestError: Names the first test with such a value.
    """
    for index, (call, answer) in enumerate(zip(calls, expected, strict=True)):
        try:
            encode_call(call)
            encode(answer)
        except UnsupportedError as error:
            raise UnreadableTestError(f"test {index}: {error}") from None


def _statements(code: str) -> Iterator[ast.stmt]:
    """The statements of ``check``, or those of the module if there is no such function."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableTestError(
            f"the tests do not parse ({type(error).__name__}: {error})"
        ) from None
    checks = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    yield from checks[-1].body if checks else body


def _read_assert(node: ast.stmt, callee: str) -> _Assert | None:
    """An assert about the callee; None for a statement without any effect on the verdict."""
    if isinstance(node, _WITHOUT_EFFECT) or _is_literal_statement(node):
        return None
    if not isinstance(node, ast.Assert):
        raise UnreadableTestError(f"not an assert: {shown(node)}")
    return _read_condition(node.test, callee)


def _is_literal_statement(node: ast.stmt) -> bool:
    """``assert True``, a docstring, or a name alone on its line."""
    if isinstance(node, ast.Assert):
        return isinstance(node.test, ast.Constant) and bool(node.test.value)
    return isinstance(node, ast.Expr) and isinstance(node.value, (ast.Constant, ast.Name))


def _read_condition(test: ast.expr, callee: str) -> _Assert:
    if (call := _call_of(test, callee)) is not None:
        return _Assert(call, True)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        if (call := _call_of(test.operand, callee)) is not None:
            return _Assert(call, False)
    elif isinstance(test, ast.Compare) and len(test.ops) == 1:
        left, relation, right = test.left, test.ops[0], test.comparators[0]
        if isinstance(relation, (ast.Eq, ast.Is)):
            return _read_equality(left, right, callee)
        if isinstance(relation, (ast.Lt, ast.LtE)) and function_name(left) == "abs":
            return _read_distance(left, right, callee)
    elif isinstance(test, ast.Call) and len(test.args) == 2:
        if function_name(test) in _SAME:
            return _read_equality(test.args[0], test.args[1], callee)
        if function_name(test) == "isclose":
            return _read_closeness(test, callee)
    raise UnreadableTestError(f"cannot be read as an answer of {callee}: {shown(test)}")


def _read_equality(left: ast.expr, right: ast.expr, callee: str) -> _Assert:
    for answer, value in ((left, right), (right, left)):
        if (call := _call_of(answer, callee)) is not None:
            return _Assert(call, read_literal(value))
        wrapper = function_name(answer)
        if wrapper in (*_SEQUENCES, *_ANY_ORDER) and only_argument(answer) is not None:
            call = _call_of(only_argument(answer), callee)
            if call is not None:
                return _Assert(call, _unwrapped(value, wrapper), any_order=wrapper in _ANY_ORDER)
    condition = f"{shown(left)} == {shown(right)}"
    raise UnreadableTestError(f"cannot be read as an answer of {callee}: {condition}")


def _unwrapped(value: ast.expr, wrapper: str) -> Any:
    """The answer of ``wrapper(call) == value``, where value may be wrapped likewise."""
    inner = only_argument(value) if function_name(value) == wrapper else None
    expected = read_literal(value if inner is None else inner)
    if wrapper != "set":
        return expected
    if not isinstance(expected, (list, tuple, set, frozenset)):
        raise UnreadableTestError(f"not a set: {shown(value)}")
    return list(dict.fromkeys(expected))


def _read_closeness(test: ast.Call, callee: str) -> _Assert:
    """``math.isclose(call, x, rel_tol=..., abs_tol=...)``."""
    plain = _read_equality(test.args[0], test.args[1], callee)
    given = {word.arg: _read_number(word.value) for word in test.keywords}
    # The defaults of math.isclose.
    return replace(plain, abs_tol=given.get("abs_tol", 0.0), rel_tol=given.get("rel_tol", 1e-9))


def _read_distance(left: ast.expr, bound: ast.expr, callee: str) -> _Assert:
    """``abs(call - x) < tol``."""
    difference = only_argument(left)
    if not (isinstance(difference, ast.BinOp) and isinstance(difference.op, ast.Sub)):
        raise UnreadableTestError(f"not a distance from an answer of {callee}: {shown(left)}")
    plain = _read_equality(difference.left, difference.right, callee)
    return replace(plain, abs_tol=_read_number(bound))


def _read_number(node: ast.expr) -> float:
    value = read_literal(node)
    if type(value) not in (int, float):
        raise UnreadableTestError(f"not a number: {shown(node)}")
    return float(value)


def _read_call(call: ast.Call) -> Call:
    keywords = {word.arg: read_literal(word.value) for word in call.keywords if word.arg}
    if len(keywords) != len(call.keywords) or any(isinstance(a, ast.Starred) for a in call.args):
        raise UnreadableTestError(f"* and ** cannot be read: {shown(call)}")
    return Call(tuple(read_literal(argument) for argument in call.args), keywords)


def _call_of(node: ast.AST | None, callee: str) -> ast.Call | None:
    """The node if it is a call of the callee."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == callee:
        return node
    return None

"""Tests of a task as values: asserts are read from their syntax tree and never executed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codeact.sandbox.tests import BinaryTree, Call, LinkedList
from codeact.sandbox.values import UnsupportedError, encode, encode_call

# Arithmetic that test files write for clarity, such as 3 * 19 or "ab" + "cd".
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
# Bounds of folded arithmetic: a test must not make its reader compute for long.
_LARGEST_NUMBER = 1e30
_LARGEST_BASE, _LARGEST_EXPONENT = 1000, 64
_LONGEST_TEXT = 1_000_000
# Of LeetCode's preludes: list_node([1, 2]) builds a linked list, tree_node([1, None, 2]) a tree.
_NODES: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "list_node": LinkedList,
    "tree_node": BinaryTree,
}
_BUILDERS: dict[str | None, Callable[[Any], Any]] = {"set": set, "frozenset": frozenset}
_SAME = ("is_same_list", "is_same_tree")
_SEQUENCES = ("list", "tuple")  # lists and tuples count alike (Rule.strict_types is False)
_ANY_ORDER = ("sorted", "set")
_WITHOUT_EFFECT = (ast.Pass, ast.Import, ast.ImportFrom)


class UnreadableTestError(ValueError):
    """A test that cannot be read; the text says why, in one line."""


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


def read_literal(node: ast.expr) -> Any:
    """The value of an expression made of literals, bounded arithmetic and node builders.

    Raises:
        UnreadableTestError: It is anything else.
    """
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return _fold(node)


def called_name(code: str) -> str | None:
    """The name of the function that the first assert calls, those around the call aside."""
    around = {*_SEQUENCES, *_ANY_ORDER, *_SAME, *_NODES, "abs", "isclose"}
    try:
        asserts = [node for node in _statements(code) if isinstance(node, ast.Assert)]
    except UnreadableTestError:
        return None
    calls = [node for test in asserts for node in ast.walk(test) if isinstance(node, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return next((name for name in names if name not in around), None)


def asserted_arguments(code: str, *, callee: str) -> list[tuple[Any, ...]]:
    """The arguments of every call of the callee in asserts, whatever the asserts compare.

    Raises:
        UnreadableTestError: An argument is no literal, or the code does not parse.
    """
    asserts = [node for node in _statements(code) if isinstance(node, ast.Assert)]
    calls = [_call_of(node, callee) for test in asserts for node in ast.walk(test.test)]
    return [_read_call(call).args for call in calls if call is not None]


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
        raise UnreadableTestError(f"not an assert: {_shown(node)}")
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
        if isinstance(relation, (ast.Lt, ast.LtE)) and _function_name(left) == "abs":
            return _read_distance(left, right, callee)
    elif isinstance(test, ast.Call) and len(test.args) == 2:
        if _function_name(test) in _SAME:
            return _read_equality(test.args[0], test.args[1], callee)
        if _function_name(test) == "isclose":
            return _read_closeness(test, callee)
    raise UnreadableTestError(f"cannot be read as an answer of {callee}: {_shown(test)}")


def _read_equality(left: ast.expr, right: ast.expr, callee: str) -> _Assert:
    for answer, value in ((left, right), (right, left)):
        if (call := _call_of(answer, callee)) is not None:
            return _Assert(call, read_literal(value))
        wrapper = _function_name(answer)
        if wrapper in (*_SEQUENCES, *_ANY_ORDER) and _only_argument(answer) is not None:
            call = _call_of(_only_argument(answer), callee)
            if call is not None:
                return _Assert(call, _unwrapped(value, wrapper), any_order=wrapper in _ANY_ORDER)
    shown = f"{_shown(left)} == {_shown(right)}"
    raise UnreadableTestError(f"cannot be read as an answer of {callee}: {shown}")


def _unwrapped(value: ast.expr, wrapper: str) -> Any:
    """The answer of ``wrapper(call) == value``, where value may be wrapped likewise."""
    inner = _only_argument(value) if _function_name(value) == wrapper else None
    expected = read_literal(value if inner is None else inner)
    return list(dict.fromkeys(expected)) if wrapper == "set" else expected


def _read_closeness(test: ast.Call, callee: str) -> _Assert:
    """``math.isclose(call, x, rel_tol=..., abs_tol=...)``."""
    plain = _read_equality(test.args[0], test.args[1], callee)
    given = {word.arg: float(read_literal(word.value)) for word in test.keywords}
    # The defaults of math.isclose.
    return replace(plain, abs_tol=given.get("abs_tol", 0.0), rel_tol=given.get("rel_tol", 1e-9))


def _read_distance(left: ast.expr, bound: ast.expr, callee: str) -> _Assert:
    """``abs(call - x) < tol``."""
    difference = _only_argument(left)
    if not (isinstance(difference, ast.BinOp) and isinstance(difference.op, ast.Sub)):
        raise UnreadableTestError(f"not a distance from an answer of {callee}: {_shown(left)}")
    plain = _read_equality(difference.left, difference.right, callee)
    return replace(plain, abs_tol=float(read_literal(bound)))


def _read_call(call: ast.Call) -> Call:
    keywords = {word.arg: read_literal(word.value) for word in call.keywords if word.arg}
    if len(keywords) != len(call.keywords) or any(isinstance(a, ast.Starred) for a in call.args):
        raise UnreadableTestError(f"* and ** cannot be read: {_shown(call)}")
    return Call(tuple(read_literal(argument) for argument in call.args), keywords)


def _fold(node: ast.expr) -> Any:
    name = _function_name(node)
    if isinstance(node, ast.Call) and name in _NODES and len(node.args) == 1:
        return _NODES[name](tuple(read_literal(node.args[0])))
    if name in _BUILDERS and _only_argument(node) is not None:
        return _BUILDERS[name](read_literal(_only_argument(node)))
    if isinstance(node, ast.List):
        return [read_literal(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(read_literal(item) for item in node.elts)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = read_literal(node.left), read_literal(node.right)
        numbers = all(type(value) in (int, float) for value in (left, right))
        texts = type(left) is str and type(right) is str and isinstance(node.op, ast.Add)
        if numbers and _is_quick(node.op, left, right):
            return _OPERATORS[type(node.op)](left, right)
        if texts and len(left) + len(right) <= _LONGEST_TEXT:
            return left + right
    raise UnreadableTestError(f"not a literal: {_shown(node)}")


def _is_quick(operation: ast.operator, left: float, right: float) -> bool:
    if isinstance(operation, ast.Pow):
        return abs(left) <= _LARGEST_BASE and right in range(_LARGEST_EXPONENT + 1)
    if isinstance(operation, ast.Div) and right == 0:
        return False
    return max(abs(left), abs(right)) <= _LARGEST_NUMBER


def _call_of(node: ast.AST | None, callee: str) -> ast.Call | None:
    """The node if it is a call of the callee."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == callee:
        return node
    return None


def _only_argument(node: ast.expr) -> ast.expr | None:
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        return node.args[0]
    return None


def _function_name(node: ast.expr) -> str | None:
    """``f`` of ``f(...)`` and of ``module.f(...)``."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else None


def _shown(node: ast.AST) -> str:
    try:
        text = " ".join(ast.unparse(node).split())
    except RecursionError:
        return "an expression nested too deeply"
    return text if len(text) <= 80 else text[:77] + "..."

"""Values of expressions in trusted test files, read from the syntax tree and never executed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from codeact.sandbox.tests import BinaryTree, LinkedList

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
_BUILDERS: dict[str | None, Callable[[Any], Any]] = {
    "set": set,
    "frozenset": frozenset,
    "list_node": lambda items: LinkedList(tuple(items)),
    "tree_node": lambda items: BinaryTree(tuple(items)),
}
BUILDERS = frozenset(name for name in _BUILDERS if name)


class UnreadableTestError(ValueError):
    """A test that cannot be read; the text says why, in one line."""


def read_literal(node: ast.expr) -> Any:
    """The value of an expression made of literals, bounded arithmetic and node builders.

    Raises:
        UnreadableTestError: It is anything else.
    """
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return _fold(node)


def only_argument(node: ast.expr) -> ast.expr | None:
    """``x`` of ``f(x)``."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        return node.args[0]
    return None


def function_name(node: ast.expr) -> str | None:
    """``f`` of ``f(...)`` and of ``module.f(...)``."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else None


def shown(node: ast.AST) -> str:
    try:
        text = " ".join(ast.unparse(node).split())
    except RecursionError:
        return "an expression nested too deeply"
    return text if len(text) <= 80 else text[:77] + "..."


def _fold(node: ast.expr) -> Any:
    if (argument := only_argument(node)) is not None and function_name(node) in _BUILDERS:
        items = read_literal(argument)
        if type(items) in (list, tuple, set):
            return _build(str(function_name(node)), items)
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
    raise UnreadableTestError(f"not a literal: {shown(node)}")


def _build(name: str, items: Any) -> Any:
    try:
        return _BUILDERS[name](items)
    except TypeError as error:  # an item that no set can hold
        raise UnreadableTestError(f"not a literal: {name}: {error}") from None


def _is_quick(operation: ast.operator, left: float, right: float) -> bool:
    if isinstance(operation, ast.Pow):
        return abs(left) <= _LARGEST_BASE and right in range(_LARGEST_EXPONENT + 1)
    if isinstance(operation, ast.Div) and right == 0:
        return False
    return max(abs(left), abs(right)) <= _LARGEST_NUMBER

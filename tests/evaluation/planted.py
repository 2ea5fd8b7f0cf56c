"""Wrong solutions: canonical ones with one small change each, by their syntax tree."""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Iterator
from typing import Any

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(kind of change, program) for the first place of each kind in a trusted program."""
    tree = ast.parse(source)
    seen = set()
    for index, node in enumerate(ast.walk(tree)):
        for kind in _kinds(node):
            if kind not in seen:
                seen.add(kind)
                changed = copy.deepcopy(tree)
                place = next(n for i, n in enumerate(ast.walk(changed)) if i == index)
                _change(place, kind)
                yield kind, ast.unparse(ast.fix_missing_locations(changed))


def differs(expected: Any, got: Any) -> bool:
    """Whether no sensible tolerance makes two plain values one."""
    if isinstance(expected, int) and isinstance(got, int):  # too large for a float, maybe
        return abs(expected - got) * 1000 > max(1, abs(expected), abs(got))
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        return not math.isclose(expected, got, rel_tol=1e-3, abs_tol=1e-3)
    if isinstance(expected, (list, tuple)) and type(expected) is type(got):
        return len(expected) != len(got) or any(map(differs, expected, got))
    return bool(expected != got)


def _kinds(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        return ["comparison"]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return ["operator"]
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return ["off by one"]
    if isinstance(node, ast.Return) and node.value is not None:
        return ["returns None", "returns 0", "returns True"]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "sorted":
        return ["not sorted"]
    return ["and, or"] if isinstance(node, ast.BoolOp) else []


def _change(node: Any, kind: str) -> None:
    if kind == "comparison":
        node.ops[0] = _COMPARISONS[type(node.ops[0])]()
    elif kind == "operator":
        node.op = _OPERATORS[type(node.op)]()
    elif kind == "off by one":
        node.value += 1
    elif kind == "not sorted":
        node.func.id = "list"
        node.keywords = []
    elif kind == "and, or":
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    else:
        constant = {"returns None": None, "returns 0": 0, "returns True": True}[kind]
        node.value = ast.Constant(constant)

"""Answers that are nearly right: another type, another order, another number, another sign."""

from __future__ import annotations

from typing import Any

from cheats.puzzles import Cheat

from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests, Rule

_EXACT = Rule()
_NEAR = Rule(rel_tol=1e-6)
_ANY_ORDER = Rule(order="unordered")
_ANY_ROWS = Rule(order="unordered_rows")

# (what is expected, the rule, answers that must not pass for it)
_NEARLY: tuple[tuple[Any, Rule, tuple[str, ...]], ...] = (
    (True, _EXACT, ("1", "1.0", "'True'", "[True]", "2 > 1 and 'yes'")),
    (False, _EXACT, ("0", "None", "[]", "''", "-0.0")),
    (1, _EXACT, ("True", "1.0", "'1'", "complex(1)", "[1]", "b'1'")),
    (0, _EXACT, ("False", "0.0", "''", "-0.0", "0j")),
    (3, _NEAR, ("float('nan')", "float('inf')", "3.1", "True + True", "'3'", "10**400", "3+1e-3j")),
    (2.5, _NEAR,
     ("-2.5", "float('inf')", "float('-inf')", "float('nan')", "'2.5'", "2.50001", "2")),
    (0.0, _NEAR, ("1e-300", "float('nan')", "'0'", "False", "[]")),
    (float("inf"), _NEAR, ("float('-inf')", "1e308", "10**400", "float('nan')", "'inf'")),
    (float("nan"), _NEAR, ("0.0", "None", "'nan'", "float('inf')")),
    (2**53 + 1, _EXACT, ("2**53", "float(2**53)", "2**53 + 2")),
    (10**30, _NEAR, ("10**29", "str(10**30)", "10**31", "float('inf')")),
    ("ab", _EXACT,
     ("['a', 'b']", "b'ab'", "'ab '", "'Ab'", "'a\\u200bb'", "'\\uff41b'", "'\\u0430b'")),
    ("\u00e9", _EXACT, ("'e\\u0301'", "'e'", "'\\u00c9'", "'\\xe9'.encode()", "'\\udce9'")),
    ("12", _EXACT, ("12", "'\\uff11\\uff12'", "'012'", "'1_2'", "'12\\0'", "'12\\n'")),
    ("", _EXACT, ("None", "' '", "[]", "0", "b''", "'\\0'")),
    ([], _EXACT, ("None", "[[]]", "{}", "''", "set()", "[None]", "False")),
    ([1, 2, 3], _EXACT,
     ("[1, 2]", "[1, 2, 3, 4]", "[3, 2, 1]", "{1, 2, 3}", "'123'", "[1, 2, 3.0]")),
    ([True, 1], _EXACT, ("[1, 1]", "[True, True]", "[1, True]")),
    ([1, 1, 2], _ANY_ORDER,
     ("[1, 2, 2]", "[1, 2]", "{1, 2}", "[1, 1, 2, 2]", "[1, 1, True]", "[2, 1]")),
    ([[1, 2], [3]], _EXACT,
     ("[1, 2, 3]", "[[1], [2, 3]]", "[[1, 2, 3]]", "[[1, 2], 3]", "[(1, 2, 3)]")),
    ([[1, 2], [3, 4]], _ANY_ORDER, ("[[2, 1], [3, 4]]", "[[1, 4], [3, 2]]", "[1, 2, 3, 4]")),
    ([[1, 2], [3, 4]], _ANY_ROWS,
     ("[[1, 3], [2, 4]]", "[[1, 2], [1, 2]]", "[[1, 2, 3, 4]]", "[[1, 2]]")),
    ([1.0, 2.0], Rule(order="unordered", rel_tol=1e-6),
     ("[1.0, 1.0]", "[float('nan'), 2.0]", "[2.0, 2.0]", "[float('inf'), float('inf')]")),
    ({"a": 1}, _EXACT,
     ("[('a', 1)]", "{'a': True}", "{'a': 1, 'b': 2}", "{}", "{'A': 1}", "['a']")),
    ({1: "x"}, _EXACT, ("{'1': 'x'}", "{True: 'x'}", "{1.0: 'x'}", "[[1, 'x']]")),
    ({1, 2}, _EXACT, ("{1}", "{1, 2, 3}", "{True, 2}", "'12'", "{1: 0, 2: 0}", "{1.0, 2.0}")),
    ({(1, 2): 3}, _EXACT, ("{(2, 1): 3}", "{'(1, 2)': 3}", "{frozenset((1, 2)): 3}")),
    (None, _EXACT, ("0", "False", "'None'", "[]", "''", "NotImplemented")),
    ((1, (2, 3)), Rule(strict_types=True), ("[1, (2, 3)]", "(1, [2, 3])", "(1, 2, 3)")),
)  # fmt: skip


def nearly_right() -> list[Cheat]:
    """One program for each wrong answer above: the other test, which all pass, is no excuse."""
    cheats = []
    for expected, rule, answers in _NEARLY:
        tests = FunctionTests("f", (Call((0,)), Call((1,))), (7, expected), rule)
        for answer in answers:
            text = f"def f(x):\n    return {answer} if x else 7\n"
            cheats.append(Cheat(f"values/{expected!r}/{answer}", Program("python", text), tests))
    return cheats

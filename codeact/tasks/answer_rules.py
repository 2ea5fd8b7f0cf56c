"""When an answer counts as right, read from a task's statement and its expected answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from codeact.sandbox.tests import Order, Rule

# LeetCode's own checker compares floats to this: "Answers within 10^-5 will be accepted".
LEETCODE_TOLERANCE = 1e-5

_SENTENCE = re.compile(r"(?<=[.;!?])\s|\n")
_ANY_ORDER = re.compile(r"\bin any order\b", re.IGNORECASE)
# "You can sell the balls in any order" is about the problem, not about the answer.
_ANSWER = re.compile(r"\b(?:return(?:ed)?|answers?|outputs?)\b", re.IGNORECASE)
# "the integers in the lists may be returned in any order": the lists themselves stay in place.
_INNER_ONLY = re.compile(
    r"\b(?:integers|elements|numbers|items) in the|\bindices of the", re.IGNORECASE
)
# Answers that are sets of sets: neither order means anything.
_SETS = re.compile(r"\b(?:combinations|subsets|triplets|quadruplets|anagrams)\b", re.IGNORECASE)
_SEVERAL = re.compile(
    r"\breturn any of (?:them|those)\b|\bany (?:one )?of them\b|\breturn any (?:such|valid)\b"
    r"|\b(?:is|are) (?:multiple|several|many) (?:valid |possible )?"
    r"(?:answers|solutions|results)[^.]*\bany\b"
    r"|\banswer is not unique\b|\bany answer\b",
    re.IGNORECASE,
)


def rule_of_statement(statement: str, expected: Sequence[Any]) -> Rule:
    """The rule that a LeetCode statement asks for.

    ``"unordered"`` if a sentence says "in any order" and speaks of the answer (return, answer,
    output) and every expected answer is a list; ``"unordered_rows"`` if it is a list of lists and
    the statement speaks of combinations, subsets, triplets, quadruplets or anagrams. Where only
    the order within the lists is free there is no such rule, and the order stays exact.
    ``abs_tol`` is 1e-5 where an expected answer holds a float, as on LeetCode.

    What can go wrong: a sentence in other words leaves a free order exact, so right answers fail;
    a list whose inner order matters though the statement names combinations would pass in a wrong
    inner order. The first costs candidates, the second needs a solution that is right but for it.
    """
    return Rule(order=_order(statement, expected), abs_tol=tolerance(expected, LEETCODE_TOLERANCE))


def has_several_answers(statement: str) -> bool:
    """Whether the statement admits several answers ("return any of them"); tests know only one."""
    return _SEVERAL.search(" ".join(statement.split())) is not None


def tolerance(expected: Iterable[Any], value: float) -> float:
    """``value`` if any expected answer is or holds a float, else 0: integers stay exact."""
    return value if any(map(_holds_float, expected)) else 0.0


def _order(statement: str, expected: Sequence[Any]) -> Order:
    if not all(type(value) in (list, tuple) for value in expected):
        return "exact"
    free = [
        sentence
        for sentence in _SENTENCE.split(statement)
        if _ANY_ORDER.search(sentence) and _ANSWER.search(sentence)
    ]
    items = [item for value in expected for item in value]
    nested = bool(items) and all(type(item) in (list, tuple) for item in items)
    if not free or (nested and all(_INNER_ONLY.search(sentence) for sentence in free)):
        return "exact"
    return "unordered_rows" if nested and _SETS.search(statement) else "unordered"


def _holds_float(value: Any) -> bool:
    pending = [value]  # not by recursion: expected answers may be deep
    while pending:
        item = pending.pop()
        if isinstance(item, float):
            return True
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending += item
    return False

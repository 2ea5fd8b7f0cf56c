"""What is right besides the expected answer: rules by name, computed on the host.

Each decides on exact built-in values from `values.decode` and on the arguments of the call, in
linear time; none runs code from a file. The definitions are those of EvalPlus 0.3.1
(arXiv:2305.01210), as far as tasks of HumanEval+ v0.1.10 and MBPP+ v0.2.0 need one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from codeact.sandbox.calls.compare import numbering, same
from codeact.sandbox.tests import Call, Oracle, Rule

_ITERABLES = (list, tuple, set, frozenset, dict, str)


def is_right(call: Call, expected: Any, got: Any, rule: Rule) -> bool:
    """Whether an answer is right under the rule, its oracle included.

    An argument that an oracle cannot compute with admits only the expected answer.
    """
    if rule.oracle == "expected":
        return same(expected, got, rule)
    try:
        return _ORACLES[rule.oracle](call, expected, got, rule)
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return False


def _same_set(call: Call, expected: Any, got: Any, rule: Rule) -> bool:
    if type(got) not in _ITERABLES or type(expected) not in _ITERABLES:
        return False
    number = numbering(rule)
    return {number(item) for item in expected} == {number(item) for item in got}


def _polynomial_root(call: Call, expected: Any, got: Any, rule: Rule) -> bool:
    """|sum(xs[i] x**i)| <= abs_tol, for the one argument xs."""
    if type(got) not in (int, float, bool):
        return False
    (coefficients,) = call.args
    value = sum(factor * math.pow(got, power) for power, factor in enumerate(coefficients))
    return bool(abs(value) <= rule.abs_tol)


def _or_digit_distance(call: Call, expected: Any, got: Any, rule: Rule) -> bool:
    """Sum of |difference| of the digits in the same place, counted from the last."""
    if same(expected, got, rule):
        return True
    texts = [str(number) for number in call.args]
    width = max(map(len, texts))
    first, second = (text.zfill(width) for text in texts)
    padded = sum(abs(int(a) - int(b)) for a, b in zip(first, second, strict=True))
    return same(padded, got, rule)


def _or_pyramid_surface(call: Call, expected: Any, got: Any, rule: Rule) -> bool:
    """Surface of a square pyramid whose height is that of its apex above the base, rounded."""
    if same(expected, got, rule):
        return True
    edge, height = call.args
    slant_height = math.sqrt((edge / 2) ** 2 + height**2)
    return same(round(edge**2 + 2 * edge * slant_height), got, rule)


_ORACLES: dict[Oracle, Callable[[Call, Any, Any, Rule], bool]] = {
    "same_set": _same_set,
    "polynomial_root": _polynomial_root,
    "or_digit_distance": _or_digit_distance,
    "or_pyramid_surface": _or_pyramid_surface,
}

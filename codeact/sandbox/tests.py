"""What a candidate is checked against: calls of a function, or text on standard input.

Arguments go into the sandbox, expected answers never do: they are compared on the host
(`compare.py`) with what came out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from codeact.errors import InputError

Order = Literal["exact", "unordered", "unordered_rows"]
ORDERS: tuple[Order, ...] = ("exact", "unordered", "unordered_rows")
Equality = Literal["typed", "python"]
Oracle = Literal[
    "expected",  # only the expected answer is right
    "same_set",  # any iterable of the expected items, however often and in whatever order
    "polynomial_root",  # HumanEval/32: any x with |sum(xs[i] x**i)| <= abs_tol
    "or_digit_distance",  # Mbpp/558: numbers of unlike length may be padded with zeros
    "or_pyramid_surface",  # Mbpp/581: "height" may be that of the pyramid, not of a face
]
Result = Literal["return", "first_argument", "presence"]

# A function, or a method of a class without constructor arguments, as LeetCode asks for.
_ENTRY_POINT = re.compile(r"[^\W\d]\w*(\(\)\.[^\W\d]\w*)?\Z")


class LinkedList(NamedTuple):
    """A singly linked list: in the sandbox a chain of ``ListNode(val, next)``, None if empty."""

    values: tuple[Any, ...]


class BinaryTree(NamedTuple):
    """A binary tree in level order, None for an absent node: chains of ``TreeNode`` inside.

    The children of an absent node are not listed, as LeetCode writes trees.
    """

    values: tuple[Any, ...]


class Digest(NamedTuple):
    """An expected answer too large to keep: the SHA-256 that `calls/digest.py` describes."""

    sha256: str


@dataclass(frozen=True)
class Call:
    """The arguments of one call: plain values, LinkedList or BinaryTree (see `values.py`)."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """When an answer counts as the expected one.

    Args:
        order: ``"unordered"``: the outermost list or tuple may come in any order;
            ``"unordered_rows"``: so may the items of each of its lists.
        rel_tol: Allowed |got - expected| / |expected| of a number; 0 asks for the same number.
        abs_tol: Allowed |got - expected|; a number passes if either tolerance admits it.
            Any tolerance above 0 lets an int stand for a float and the other way round.
        tokens: Text on standard output: compare white-space separated tokens (True), or lines
            without their trailing white space (False).
        strict_types: A list is not a tuple.
        equality: ``"python"``: what ``==`` says, as in asserts and in EvalPlus: True, 1 and 1.0
            are one number, a list is neither a tuple nor a generator, a set is a frozenset. Unlike
            ``==``, NaN equals NaN.
        oracle: What else is right; computed on the host from the arguments (`calls/oracles.py`).
    """

    order: Order = "exact"
    rel_tol: float = 0.0
    abs_tol: float = 0.0
    tokens: bool = True
    strict_types: bool = False
    equality: Equality = "typed"
    oracle: Oracle = "expected"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(f"rule.order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        if self.equality not in get_args(Equality):
            names = ", ".join(get_args(Equality))
            raise InputError(f"rule.equality must be one of {names}, got {self.equality!r}")
        if self.oracle not in get_args(Oracle):
            names = ", ".join(get_args(Oracle))
            raise InputError(f"rule.oracle must be one of {names}, got {self.oracle!r}")
        for name, value in (("rel_tol", self.rel_tol), ("abs_tol", self.abs_tol)):
            if not (value >= 0 and math.isfinite(value)):
                raise InputError(f"rule.{name} must be finite and at least 0, got {value!r}")


@dataclass(frozen=True)
class FunctionTests:
    """Calls of a Python function and what each must answer.

    Args:
        entry_point: ``"name"``, or ``"Class().method"``: a fresh object for every call.
        calls: The arguments, one entry a test.
        expected: The right answers, aligned with ``calls``.
        rule: How an answer is compared with the expected one.
        prelude: Trusted code of the task (imports, ``ListNode``), run before the candidate.
        result: ``"return"``: what the call returns; ``"first_argument"``: the first argument
            after the call, for functions that change it in place; ``"presence"``: whether the
            call returns something, for values that cannot leave the sandbox (``re.Match``): a
            bool as it is, else whether it is not None.
    """

    entry_point: str
    calls: tuple[Call, ...]
    expected: tuple[Any, ...]
    rule: Rule = Rule()
    prelude: str = ""
    result: Result = "return"

    def __post_init__(self) -> None:
        if not _ENTRY_POINT.match(self.entry_point):
            raise InputError(
                f'entry_point must be "name" or "Class().method", got {self.entry_point!r}'
            )
        if not self.calls or len(self.calls) != len(self.expected):
            raise InputError(
                "calls and expected must be of one length, at least 1, "
                f"got {len(self.calls)} and {len(self.expected)}"
            )
        if self.result not in get_args(Result):
            names = ", ".join(f'"{name}"' for name in get_args(Result))
            raise InputError(f"result must be one of {names}, got {self.result!r}")
        if self.result == "first_argument" and not all(call.args for call in self.calls):
            raise InputError('result "first_argument" needs a positional argument in every call')


@dataclass(frozen=True)
class StdinTests:
    """Programs in any language: text on standard input, expected text on standard output."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rule: Rule = Rule()

    def __post_init__(self) -> None:
        if not self.inputs or len(self.inputs) != len(self.outputs):
            raise InputError(
                "inputs and outputs must be of one length, at least 1, "
                f"got {len(self.inputs)} and {len(self.outputs)}"
            )
        if self.rule.order != "exact":
            raise InputError(
                f'the rule of tests on standard input must have order "exact", '
                f"got {self.rule.order!r}"
            )


Tests = FunctionTests | StdinTests


def num_tests(tests: Tests) -> int:
    """How many tests there are, whichever kind."""
    return len(tests.calls) if isinstance(tests, FunctionTests) else len(tests.inputs)

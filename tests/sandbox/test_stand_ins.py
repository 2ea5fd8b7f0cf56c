"""A stand-in takes nothing that `typing` refuses, and all that solutions commonly write."""

from __future__ import annotations

import builtins
import random
import typing
from typing import Any

import pytest

from codeact.sandbox.calls.stand_ins import NUM_PARAMETERS, StandIn

REAL = {name: getattr(typing, name) for name in NUM_PARAMETERS} | vars(builtins)
OURS = {name: StandIn(name) for name in NUM_PARAMETERS} | vars(builtins)
LEAVES = [
    "int",
    "str",
    "None",
    "'Node'",
    "'a b'",
    "5",
    "...",
    "[]",
    "[int]",
    "()",
    "list[int]",
]


def is_taken(annotation: str, names: dict[str, Any]) -> bool:
    try:
        eval(annotation, dict(names))  # made of the words above
    except (TypeError, SyntaxError):
        return False
    return True


def annotation_of(rng: random.Random, depth: int) -> str:
    """A random annotation, right or wrong."""
    roll = rng.random()
    if depth == 0 or roll < 0.2:
        return rng.choice([*LEAVES, *NUM_PARAMETERS])
    if roll < 0.35:
        return f"{annotation_of(rng, depth - 1)} | {annotation_of(rng, depth - 1)}"
    parts = [annotation_of(rng, depth - 1) for _ in range(rng.choice([1, 1, 1, 2, 2, 3]))]
    if rng.random() < 0.15:
        parts[0] = f"[{parts[0]}]"
    return f"{rng.choice(list(NUM_PARAMETERS))}[{', '.join(parts)}]"


@pytest.mark.parametrize("seed", range(20))
def test_takes_nothing_that_typing_refuses(seed: int) -> None:
    rng = random.Random(seed)
    annotations = [annotation_of(rng, rng.choice([1, 2, 3])) for _ in range(1000)]
    taken = [annotation for annotation in annotations if is_taken(annotation, OURS)]
    assert [annotation for annotation in taken if not is_taken(annotation, REAL)] == []
    right = sum(is_taken(annotation, REAL) for annotation in annotations)
    assert len(taken) > 0.5 * right > 10


@pytest.mark.parametrize(
    "annotation",
    [
        "List[List[int]]",
        "Optional['TreeNode']",
        "Dict[str, Tuple[int, ...]]",
        "Callable[[int, str], bool]",
        "Union[int, None, List[str]]",
        "Optional[ListNode] | None",
        "None | Set[int]",
        "dict[str, List[int]]",
        "Iterator[Any]",
        "Tuple[int, List]",
    ],
)
def test_takes_what_solutions_write(annotation: str) -> None:
    names = {"ListNode": type("ListNode", (), {})}
    assert is_taken(annotation, REAL | names)
    assert is_taken(annotation, OURS | names)


@pytest.mark.parametrize(
    "annotation",
    [
        "Dict[int]",
        "List[int, int]",
        "Optional[int, str]",
        "Union[()]",
        "List[Optional]",
        "Any[int]",
    ],
)
def test_leaves_mistakes_to_typing(annotation: str) -> None:
    assert not is_taken(annotation, REAL)
    assert not is_taken(annotation, OURS)

"""The order of a race: CPU time, and a declared chain of rules where CPU times are one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

TIE = 1.03  # net CPU times within 3 % are one: minima of five rounds still vary by 1 to 2 %
MOST_IN_DOUBT = 2.0  # beyond, time itself says more than counts, however noisy the machine
INSTRUCTIONS_APART = 1.01  # instruction counts vary by 0.005 %, and differ by less for no reason
TMU_APART = 1.03  # the integral of memory over CPU time varies by 3 %

TieRule = Literal["cpu", "instructions", "tmu", "length", "hash"]


class Standing(NamedTuple):
    """What a place in the order is decided on."""

    name: str
    et_seconds: float
    tmu_byte_seconds: float
    instructions: int | None
    source_chars: int
    source_sha256: str


class Place(NamedTuple):
    """One place: who has it, and by which rule before all that follow."""

    name: str
    rule: TieRule | None


def rank(standings: Iterable[Standing], doubt_seconds: float = 0.0) -> list[Place]:
    """All of them, best first.

    Each place goes to one of those whose net CPU time does not set them apart from the least that
    is left: :func:`in_doubt` of it and counted, or :func:`tied` with it. :func:`break_tie` chooses
    among them. The last place has no rule.

    Args:
        standings: In any order.
        doubt_seconds: Difference that noise may make.
    """
    left = list(standings)
    places: list[Place] = []
    while left:
        group = in_doubt(left, doubt_seconds)
        if any(one.instructions is None for one in group):
            group = tied(left)
        first, rule = break_tie(group)
        left.remove(first)
        places.append(Place(first.name, rule if left else None))
    return places


def tied(standings: Sequence[Standing]) -> list[Standing]:
    """Those within 3 % of the least net CPU time."""
    least = min(one.et_seconds for one in standings)
    return [one for one in standings if one.et_seconds <= least * TIE]


def in_doubt(standings: Sequence[Standing], doubt_seconds: float) -> list[Standing]:
    """Those, and those that noise may have put behind the least, as far as twice its time."""
    least = min(one.et_seconds for one in standings)
    reach = min(least + doubt_seconds, least * MOST_IN_DOUBT)
    return [one for one in standings if one.et_seconds <= max(least * TIE, reach)]


def break_tie(group: Sequence[Standing]) -> tuple[Standing, TieRule]:
    """The first of a group whose CPU times are one, and the rule that said so.

    In turn: executed instructions (1 % apart, if all have been counted), TMU (3 % apart), length
    of the source, its hash. A rule that does not single one out hands on those that it leaves.
    """
    group = list(group)
    if len(group) == 1:
        return group[0], "cpu"
    counts = {one.name: one.instructions for one in group}
    if None not in counts.values():
        group = _least(group, lambda one: counts[one.name] or 0, INSTRUCTIONS_APART)
        if len(group) == 1:
            return group[0], "instructions"
    group = _least(group, lambda one: one.tmu_byte_seconds, TMU_APART)
    if len(group) == 1:
        return group[0], "tmu"
    group = _least(group, lambda one: one.source_chars, 1.0)
    if len(group) == 1:
        return group[0], "length"
    return min(group, key=lambda one: (one.source_sha256, one.name)), "hash"


def _least(
    group: Sequence[Standing], value: Callable[[Standing], float], apart: float
) -> list[Standing]:
    """Those whose value is less than ``apart`` times the least, and the least itself."""
    least = min(value(one) for one in group)
    return [one for one in group if value(one) == least or value(one) < least * apart]

"""Which answer of a task to keep: correct first, then the most efficient, with the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from codeact.efficiency.comparing.net_samples import relative_metrics, rounds_won
from codeact.efficiency.racing.measurements import REFERENCE, MeasuredCandidate, Measurements
from codeact.errors import InputError

ChoiceRule = Literal["lexicographic", "pareto", "weighted"]
CHOICE_RULES: tuple[ChoiceRule, ...] = ("lexicographic", "pareto", "weighted")


@dataclass(frozen=True)
class Beaten:
    """One correct answer that was not chosen.

    The ratios are over the rounds that both ran: it may have been dropped early, and a minimum
    over fewer rounds is higher.

    Attributes:
        et_ratio: Its ET / the chosen one's.
        mu_ratio: Its MU / the chosen one's.
        tmu_ratio: Its TMU / the chosen one's.
        rounds_won: Share of the rounds both ran in which the chosen one used less CPU time.
    """

    candidate_id: str
    origin: str
    et_seconds: float
    mu_bytes: int
    tmu_byte_seconds: float
    et_ratio: float
    mu_ratio: float
    tmu_ratio: float
    rounds_won: float | None


@dataclass(frozen=True)
class Choice:
    """The answer kept for a task (in one language), and why.

    Attributes:
        rule: What was asked for: ``"lexicographic"``, ``"pareto"`` or ``"weighted"``.
        decided_by: What put it before the runner-up: ``"only"`` when there is none, for the
            lexicographic rule the race's tie rule (``"cpu"``, ``"instructions"``, ``"tmu"``,
            ``"length"``, ``"hash"``), else the rule's own name.
        et_seconds: ET, net.
        mu_bytes: MU.
        tmu_byte_seconds: TMU over CPU time, net.
        instructions: Net, where the race counted them.
        speedup_over_reference: Reference's ET / its ET, over the rounds that both ran; None
            without a ranked reference.
        rounds_won: Confidence: share of the rounds that it and the runner-up both ran in which it
            used less CPU time. Near 0.5 for answers that tie; 1 for a clear winner.
        beaten: The other correct answers, best first.
    """

    task_id: str
    language: str
    candidate_id: str
    origin: str
    rule: ChoiceRule
    decided_by: str
    et_seconds: float
    mu_bytes: int
    tmu_byte_seconds: float
    instructions: int | None
    speedup_over_reference: float | None
    rounds_won: float | None
    beaten: tuple[Beaten, ...]

    @property
    def spread(self) -> float:
        """Largest of the correct answers' ET and MU over the chosen one's, at least 1."""
        ratios = [ratio for other in self.beaten for ratio in (other.et_ratio, other.mu_ratio)]
        return max(1.0, *ratios) if ratios else 1.0

    def to_row(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


def choose(
    measurements: Measurements,
    *,
    rule: ChoiceRule = "lexicographic",
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    include_reference: bool = True,
) -> list[Choice]:
    """The chosen answer of every task and language whose race was ranked, in the order of races.

    EffiCoder keeps "the correct one with the lowest time and memory" (arXiv:2410.10209) and does
    not say what happens when the two disagree. Ours:

    - ``"lexicographic"``: the race's first: lowest ET, within 3 % fewest instructions where they
      were counted, else lowest TMU, source length, hash.
    - ``"pareto"``: of the answers that no other beats in ET or MU without losing in the other, the
      one of lowest TMU.
    - ``"weighted"``: smallest ``sum_m w_m log(m / smallest m)`` over ET, MU and TMU.

    The last two look at the numbers alone and decide what is left equal by rank.

    Args:
        measurements: Of one call of ``measure``.
        rule: How to choose.
        weights: Of ET, MU and TMU, not below 0 and not all 0; read by ``"weighted"`` alone.
        include_reference: Whether a task's own solution may be chosen.
    """
    if rule not in CHOICE_RULES:
        raise InputError(f"rule must be one of {', '.join(CHOICE_RULES)}, got {rule!r}")
    if len(weights) != 3 or not all(0 <= w < math.inf for w in weights) or not any(weights):
        raise InputError(
            f"weights must be three finite numbers not below 0 and not all 0, got {weights}"
        )
    races = by_race(measurements)
    choices = []
    for race in measurements.tasks:
        records = races.get((race.task_id, race.language), [])
        choice = _choose_one(records, rule, weights, include_reference)
        if choice is not None:
            choices.append(choice)
    return choices


def by_race(measurements: Measurements) -> dict[tuple[str, str], list[MeasuredCandidate]]:
    """Records by task and language."""
    groups: dict[tuple[str, str], list[MeasuredCandidate]] = {}
    for record in measurements.records:
        groups.setdefault((record.task_id, record.language), []).append(record)
    return groups


def contestants(
    records: Sequence[MeasuredCandidate], *, include_reference: bool = True
) -> list[MeasuredCandidate]:
    """The correct and ranked answers among these, best rank first.

    One whose memory was never sampled (TMU not above 0) has no place among them.
    """
    ranked = [
        (record.rank, record)
        for record in records
        if record.passed
        and record.rank is not None
        and numbers(record) is not None
        and (include_reference or record.origin != REFERENCE)
    ]
    return [record for _, record in sorted(ranked, key=lambda pair: pair[0])]


def numbers(record: MeasuredCandidate) -> tuple[float, int, float] | None:
    """(ET, MU, TMU) of a record; None unless all three are there and above 0."""
    et, mu, tmu = record.et_seconds, record.mu_bytes, record.tmu_byte_seconds
    if et is None or mu is None or tmu is None or min(et, mu, tmu) <= 0:
        return None
    return et, mu, tmu


def _choose_one(
    records: Sequence[MeasuredCandidate],
    rule: ChoiceRule,
    weights: tuple[float, float, float],
    include_reference: bool,
) -> Choice | None:
    """The choice among one race's records; None when none of them is correct and ranked."""
    ranked = contestants(records, include_reference=include_reference)
    if not ranked:
        return None
    ordered = _ordered(ranked, rule, weights)
    chosen, others = ordered[0], ordered[1:]
    et, mu, tmu = _known(chosen)
    references = [r for r in contestants(records) if r.origin == REFERENCE]
    return Choice(
        task_id=chosen.task_id,
        language=chosen.language,
        candidate_id=chosen.candidate_id,
        origin=chosen.origin,
        rule=rule,
        decided_by=_decided_by(contestants(records), chosen, others, rule),
        et_seconds=et,
        mu_bytes=mu,
        tmu_byte_seconds=tmu,
        instructions=chosen.instructions,
        speedup_over_reference=(
            relative_metrics(references[0], chosen).et_seconds if references else None
        ),
        rounds_won=rounds_won(chosen, others[0]) if others else None,
        beaten=tuple(_beaten(chosen, other) for other in others),
    )


def _ordered(
    ranked: list[MeasuredCandidate], rule: ChoiceRule, weights: tuple[float, float, float]
) -> list[MeasuredCandidate]:
    """Best first by the rule; ``ranked`` comes in order of rank, which sorting keeps."""
    if rule == "lexicographic":
        return ranked
    table = {id(record): _known(record) for record in ranked}
    if rule == "pareto":
        points = [table[id(record)][:2] for record in ranked]

        def dominated(et: float, mu: int) -> bool:
            return any(e <= et and m <= mu and (e < et or m < mu) for e, m in points)

        return sorted(ranked, key=lambda r: (dominated(*table[id(r)][:2]), table[id(r)][2]))
    smallest = [min(row[metric] for row in table.values()) for metric in range(3)]

    def cost(record: MeasuredCandidate) -> float:
        parts = zip(weights, table[id(record)], smallest, strict=True)
        return sum(weight * math.log(value / least) for weight, value, least in parts)

    return sorted(ranked, key=cost)


def _decided_by(
    race: list[MeasuredCandidate],
    chosen: MeasuredCandidate,
    others: list[MeasuredCandidate],
    rule: ChoiceRule,
) -> str:
    if not others:
        return "only"
    if rule != "lexicographic":
        return rule
    # With the reference left out, several steps may lie between the two; one by CPU time decides.
    steps = [record.tie_rule for record in race[race.index(chosen) : race.index(others[0])]]
    return "cpu" if "cpu" in steps else str(steps[0])


def _beaten(chosen: MeasuredCandidate, other: MeasuredCandidate) -> Beaten:
    et, mu, tmu = _known(other)
    relative = relative_metrics(other, chosen)
    return Beaten(
        candidate_id=other.candidate_id,
        origin=other.origin,
        et_seconds=et,
        mu_bytes=mu,
        tmu_byte_seconds=tmu,
        et_ratio=relative.et_seconds,
        mu_ratio=relative.mu_bytes,
        tmu_ratio=relative.tmu_byte_seconds,
        rounds_won=rounds_won(chosen, other),
    )


def _known(record: MeasuredCandidate) -> tuple[float, int, float]:
    """The numbers of a contestant, which has them."""
    found = numbers(record)
    assert found is not None
    return found

"""(best, worst) pairs for DPO: a gap that every run agrees on, measured afresh before it counts.

The paper trains with DPO on efficiency but publishes neither how pairs are made nor its settings
(EffiCoder, arXiv:2410.10209): the conditions are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeact.efficiency.comparing.net_samples import metrics_of_rounds, separated, shared_rounds
from codeact.efficiency.instruct.choose import Choice, contestants
from codeact.efficiency.racing.measurements import MeasuredCandidate, Measurements

# Instruction counts have a CV of 0.005 %: one percent apart is an order (as in the race's ties).
_CLEAR_COUNTS = 1.01


@dataclass(frozen=True)
class Pair:
    """Two correct answers to a task, the second at least ``min_gap`` slower.

    Attributes:
        best: The chosen answer.
        worst: The slowest correct one.
        best_et_seconds: ET of best over the rounds that both ran.
        worst_et_seconds: ET of worst over the same rounds.
        evidence: ``"runs"`` (every run of best beats every run of worst) or ``"instructions"``.
    """

    best: MeasuredCandidate
    worst: MeasuredCandidate
    best_et_seconds: float
    worst_et_seconds: float
    evidence: str

    @property
    def gap(self) -> float:
        """ET of worst / ET of best - 1."""
        return self.worst_et_seconds / self.best_et_seconds - 1


@dataclass(frozen=True)
class NoPair:
    """Why a task and language gives no pair: ``reason`` is a word, ``detail`` a line."""

    task_id: str
    language: str
    reason: str
    detail: str


def find_pair(
    choice: Choice, records: Sequence[MeasuredCandidate], min_gap: float
) -> Pair | NoPair:
    """The pair of one choice, or what is missing.

    Args:
        choice: Of the race.
        records: Of the race, those that may be rejected.
        min_gap: Smallest ET of worst / ET of best - 1.
    """
    race = contestants(records)
    best = next(record for record in race if record.candidate_id == choice.candidate_id)
    worst = max(race, key=lambda record: record.et_seconds or 0.0)
    if worst is best:
        return NoPair(choice.task_id, choice.language, "no_slower_answer", "nothing is slower")
    return judge_pair(best, worst, min_gap)


def judge_pair(best: MeasuredCandidate, worst: MeasuredCandidate, min_gap: float) -> Pair | NoPair:
    """Whether the gap of two contestants is large enough and no accident of noise."""
    rounds = shared_rounds([best, worst])
    if not rounds:
        return NoPair(best.task_id, best.language, "not_measured", "they ran no round together")
    fast, slow = (metrics_of_rounds(record, rounds).et_seconds for record in (best, worst))
    if not fast > 0:
        return NoPair(best.task_id, best.language, "not_measured", f"net ET is {fast:.3g} s")
    gap = slow / fast - 1
    if gap < min_gap:
        detail = f"worst / best is {1 + gap:.3f}, {1 + min_gap:.3f} is asked for"
        return NoPair(best.task_id, best.language, "gap_too_small", detail)
    if separated(best, worst):
        return Pair(best, worst, fast, slow, "runs")
    counts = best.instructions, worst.instructions
    if counts[0] and counts[1] and counts[1] >= _CLEAR_COUNTS * counts[0]:
        return Pair(best, worst, fast, slow, "instructions")
    detail = f"worst / best is {1 + gap:.3f}, but some run of best was slower than one of worst"
    return NoPair(best.task_id, best.language, "runs_overlap", detail)


def judge_again(pair: Pair, fresh: Measurements, min_gap: float) -> Pair | NoPair:
    """The pair as measured afresh, or why it does not hold.

    The largest of many measured gaps is large partly by luck (the winner's curse); a measurement
    that chose nothing has no such luck, so its gap is the one to publish.
    """
    found = {
        (record.task_id, record.language, record.candidate_id): record for record in fresh.records
    }
    again = []
    for record in (pair.best, pair.worst):
        now = found.get((record.task_id, record.language, record.candidate_id))
        if now is None or not now.passed or now.rank is None:
            status = "not ranked" if now is None or now.passed else f"{now.status} {now.reason}"
            detail = f"candidate {record.candidate_id}, measured afresh: {status}"
            return NoPair(record.task_id, record.language, "not_confirmed", detail)
        again.append(now)
    verdict = judge_pair(again[0], again[1], min_gap)
    if isinstance(verdict, NoPair):
        detail = f"measured afresh ({1 + pair.gap:.3f} before): {verdict.detail}"
        return NoPair(verdict.task_id, verdict.language, "not_confirmed", detail)
    return verdict

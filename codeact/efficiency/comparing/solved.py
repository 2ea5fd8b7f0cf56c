"""One author's answers in a measurement, and the tasks that two authors both solve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from codeact.efficiency.comparing.net_samples import Metrics, metrics_of_rounds, shared_rounds
from codeact.efficiency.instruct.choose import by_race, contestants
from codeact.efficiency.racing.measurements import REFERENCE, MeasuredCandidate, Measurements
from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.efficiency.inputs.candidates import Candidate

Key = tuple[str, str]  # task id and language
Copies = Mapping[tuple[str, str], int]  # by task id and candidate id


@dataclass(frozen=True)
class Author:
    """The answers of one origin in one measurement.

    Attributes:
        name: The origin.
        answers: By task and language, failed ones too.
        references: The tasks' own solutions where they were ranked.
        copies: How many samples of the author an answer stands for, 1 if not listed.
    """

    name: str
    answers: Mapping[Key, Sequence[MeasuredCandidate]]
    references: Mapping[Key, MeasuredCandidate]
    copies: Copies

    def weight(self, record: MeasuredCandidate) -> int:
        """Samples with this very text."""
        return self.copies.get((record.task_id, record.candidate_id), 1)

    def solves(self, key: Key) -> bool:
        """Whether an answer passes."""
        return any(record.passed for record in self.answers.get(key, ()))

    def pass_at_1(self, keys: Iterable[Key]) -> float:
        """Mean over tasks of the share of samples that pass."""
        shares = []
        for key in keys:
            total = sum(self.weight(record) for record in self.answers[key])
            passed = sum(self.weight(record) for record in self.answers[key] if record.passed)
            shares.append(passed / total)
        return sum(shares) / len(shares)

    def metrics(self, records: Sequence[MeasuredCandidate], rounds: set[int]) -> Metrics:
        """Geometric mean over samples of ET, MU and TMU from these rounds."""
        weights = [self.weight(record) for record in records]
        values = [metrics_of_rounds(record, rounds) for record in records]
        means = [
            math.exp(
                sum(w * math.log(x) for w, x in zip(weights, column, strict=True)) / sum(weights)
            )
            for column in zip(*values, strict=True)
        ]
        return Metrics(*means)


class Solved(NamedTuple):
    """What a and b need for one task that both solve, and the reference beside each."""

    key: Key
    a: Metrics
    b: Metrics
    reference_a: Metrics | None
    reference_b: Metrics | None


def author_of(
    measurements: Measurements, origin: str | None, candidates: Sequence[Candidate]
) -> Author:
    """The answers of one origin; without a name, of the only one besides the reference.

    Raises:
        InputError: There is no such origin, or several to choose from.
    """
    origins = list(measurements.by_origin())
    models = [name for name in origins if name != REFERENCE]
    if origin is None:
        if len(models) != 1:
            raise InputError(
                f"origin must be named where answers come from several, got {', '.join(models)}"
            )
        [origin] = models
    if origin not in origins:
        raise InputError(f"origin must be one of {', '.join(origins)}, got {origin!r}")
    groups = by_race(measurements)
    answers = {
        key: own
        for key, records in groups.items()
        if (own := [record for record in records if record.origin == origin])
    }
    references = {
        key: record
        for key, records in groups.items()
        for record in contestants(records)
        if record.origin == REFERENCE
    }
    copies = {(one.task_id, one.id): one.copies for one in candidates}
    return Author(origin, answers, references, copies)


def both_solve(a: Author, b: Author, keys: Iterable[Key], *, same_run: bool) -> list[Solved]:
    """Tasks that both solve with ranked measurements, each from rounds that all of them ran.

    Of two measurements, tasks without a ranked reference in both are left out: nothing else says
    how much slower the machine was in one of them.
    """
    found = []
    for key in keys:
        own, other = contestants(a.answers[key]), contestants(b.answers[key])
        reference_a, reference_b = a.references.get(key), b.references.get(key)
        if not own or not other:
            continue
        if not same_run and (reference_a is None or reference_b is None):
            continue
        group_a = [*own, *([reference_a] if reference_a else [])]
        group_b = [*other, *([reference_b] if reference_b else [])]
        if same_run:
            rounds_a = rounds_b = shared_rounds(group_a + group_b)
        else:
            rounds_a, rounds_b = shared_rounds(group_a), shared_rounds(group_b)
        if not rounds_a or not rounds_b:
            continue
        found.append(
            Solved(
                key,
                a.metrics(own, rounds_a),
                b.metrics(other, rounds_b),
                metrics_of_rounds(reference_a, rounds_a) if reference_a else None,
                metrics_of_rounds(reference_b, rounds_b) if reference_b else None,
            )
        )
    return found

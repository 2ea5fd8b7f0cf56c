"""What was measured: a record a candidate, a summary a race, the host; and the file of these."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from codeact.efficiency.racing.host import Host
from codeact.efficiency.racing.noise import Noise
from codeact.errors import InputError
from codeact.files import read_jsonl, write_jsonl

FORMAT = 1  # of the file; a reader refuses any other

REFERENCE = "reference"  # the origin of a task's own solution


@dataclass(frozen=True)
class Sample:
    """One measured run, everything as read: nothing subtracted, nothing divided by repeats.

    Args:
        round: From 0.
        position: Place in the round's order, from 0; odd rounds run the order backwards.
        cpu_seconds: User and system time of the run.
        wall_seconds: Wall time of the run.
        peak_memory_bytes: Largest resident memory.
        memory_byte_seconds: Integral of resident memory over CPU time.
        memory_byte_wall_seconds: Integral of resident memory over wall time.
    """

    round: int
    position: int
    cpu_seconds: float
    wall_seconds: float
    peak_memory_bytes: int
    memory_byte_seconds: float
    memory_byte_wall_seconds: float


@dataclass(frozen=True)
class MeasuredCandidate:
    """One candidate: its verdict, its raw samples and what follows from them.

    ``net`` is what is left of a minimum over rounds when the baseline's minimum is taken away, for
    all tests of the task once: (min run - min baseline run) / repeats. The metrics are None for a
    candidate that was not raced; ``rank`` is None too for one that fell out (``status`` says why)
    and in a race that was too short.

    Args:
        task_id: The task.
        candidate_id: The candidate; unique in its task.
        origin: Who wrote it; ``"reference"`` for the task's own solution.
        language: Canonical name.
        status: Verdict, of the measured runs too.
        reason: One line, empty when passed.
        num_tests: Tests of the task.
        num_passed: Tests passed before the first failure.
        check_cpu_seconds: CPU time of the correctness run, gross, on a machine at work: no measure.
        source_chars: Length of the source.
        source_sha256: Hash of the source, in hexadecimal.
        repeats: How often a measured run did all tests.
        samples: Raw, in the order of rounds.
        baseline: Raw samples of the empty program in the same rounds with the same repeats.
        et_seconds: ET: net CPU time.
        et_wall_seconds: Net wall time.
        mu_bytes: MU: smallest over rounds of the peak resident memory, gross.
        tmu_byte_seconds: TMU: net integral of resident memory over CPU time.
        tmu_wall_byte_seconds: The same over wall time, as EffiBench has it.
        instructions: Executed instructions net of the baseline, where a tie asked for them.
        rank: 1 is the best of its task and language.
        tie_rule: What put it before the next: ``"cpu"``, ``"instructions"``, ``"tmu"``,
            ``"length"``, ``"hash"``; None for the last.
    """

    task_id: str
    candidate_id: str
    origin: str
    language: str
    status: str
    reason: str
    num_tests: int
    num_passed: int
    check_cpu_seconds: float
    source_chars: int
    source_sha256: str
    repeats: int = 0
    samples: tuple[Sample, ...] = ()
    baseline: tuple[Sample, ...] = ()
    et_seconds: float | None = None
    et_wall_seconds: float | None = None
    mu_bytes: int | None = None
    tmu_byte_seconds: float | None = None
    tmu_wall_byte_seconds: float | None = None
    instructions: int | None = None
    rank: int | None = None
    tie_rule: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it answered every test, in the correctness run and in each measured one."""
        return self.status == "passed"

    @property
    def rounds(self) -> int:
        """How many rounds it ran: 3 if it was dropped early."""
        return len(self.samples)


@dataclass(frozen=True)
class TaskRace:
    """The race of one task's passed candidates of one language.

    Args:
        task_id: The task.
        language: Canonical name.
        num_candidates: Candidates there were, the reference among them.
        num_passed: Those that entered the race.
        repeats: How often a measured run did all tests; slow contestants ran fewer.
        rounds: Rounds run.
        core: The CPU that all contestants ran on, None without pinning.
        status: ``"ranked"``, ``"too_short"`` (the best needs less than 20 ms of CPU time however
            often it is repeated), ``"none_passed"`` or ``"failed"`` (the baseline did not run).
        reason: One line, empty when ranked.
        spread_seconds: Pooled robust spread of the survivors' CPU time, per repetition.
        baselines: Raw samples of the empty program, by number of repeats.
    """

    task_id: str
    language: str
    num_candidates: int
    num_passed: int
    repeats: int = 0
    rounds: int = 0
    core: int | None = None
    status: str = "ranked"
    reason: str = ""
    spread_seconds: float | None = None
    baselines: Mapping[int, tuple[Sample, ...]] = field(default_factory=dict)

    @property
    def too_short(self) -> bool:
        """Whether the task was not ranked because its work is too small to measure."""
        return self.status == "too_short"


@dataclass(frozen=True)
class Measurements:
    """Everything one call of ``measure`` found.

    Args:
        records: One a candidate, in the order of tasks, then reference first, then as given.
        tasks: One a race, in the order of tasks.
        host: The machine.
        noise: Calibrations, distinct ones, in the order they were made.
        options: What ``measure`` was asked for.
    """

    records: tuple[MeasuredCandidate, ...]
    tasks: tuple[TaskRace, ...]
    host: Host
    noise: tuple[Noise, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def by_task(self) -> dict[str, list[MeasuredCandidate]]:
        """Records of each task, tasks in order."""
        return _grouped(self.records, lambda record: record.task_id)

    def by_origin(self) -> dict[str, list[MeasuredCandidate]]:
        """Records of each origin, in the order in which origins come up."""
        return _grouped(self.records, lambda record: record.origin)

    def write(self, path: str | Path) -> None:
        """Writes JSON lines, atomically: a header, then the races, then the records."""
        write_jsonl(path, self._lines())

    @classmethod
    def read(cls, path: str | Path) -> Measurements:
        """What :meth:`write` wrote.

        Raises:
            InputError: It is no file of measurements, or of another format.
        """
        lines = read_jsonl(path)
        header = next(lines, {})
        if header.get("kind") != "measurements" or header.get("format") != FORMAT:
            raise InputError(
                f"{path} must begin with the header of measurements of format {FORMAT}, "
                f"got {json.dumps(header)[:60]}"
            )
        try:
            return cls._from_lines(header, lines)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no file of measurements: {error!r}") from None

    def _lines(self) -> Iterator[dict[str, Any]]:
        yield {
            "kind": "measurements",
            "format": FORMAT,
            "options": dict(self.options),
            "host": asdict(self.host),
            "noise": [asdict(noise) for noise in self.noise],
        }
        yield from ({"kind": "race", **race_to_row(race)} for race in self.tasks)
        yield from ({"kind": "candidate", **record_to_row(record)} for record in self.records)

    @classmethod
    def _from_lines(cls, header: Mapping[str, Any], lines: Iterable[Any]) -> Measurements:
        races, records = [], []
        baselines: dict[tuple[str, str], Mapping[int, tuple[Sample, ...]]] = {}
        for line in lines:
            if line.pop("kind") == "race":
                race = race_from_row(line)
                races.append(race)
                baselines[race.task_id, race.language] = race.baselines
                continue
            record = record_from_row(line)
            known = baselines.get((record.task_id, record.language), {})
            records.append(replace(record, baseline=known.get(record.repeats, ())))
        noise = tuple(
            Noise(**{**row, "cpu_seconds": tuple(row["cpu_seconds"])}) for row in header["noise"]
        )
        host = Host(**header["host"])
        return cls(tuple(records), tuple(races), host, noise, header["options"])


def record_to_row(record: MeasuredCandidate) -> dict[str, Any]:
    """A record as plain values; its baseline stays with the race."""
    row = {item.name: getattr(record, item.name) for item in fields(record)}
    del row["baseline"]
    return row | {"samples": _columns(record.samples)}


def record_from_row(row: Mapping[str, Any]) -> MeasuredCandidate:
    """The other way round; ``baseline`` is empty."""
    return MeasuredCandidate(**{**row, "samples": _samples(row["samples"])})


def race_to_row(race: TaskRace) -> dict[str, Any]:
    """A race as plain values."""
    row = {item.name: getattr(race, item.name) for item in fields(race)}
    baselines = {str(repeats): _columns(samples) for repeats, samples in race.baselines.items()}
    return row | {"baselines": baselines}


def race_from_row(row: Mapping[str, Any]) -> TaskRace:
    """The other way round."""
    baselines = {int(repeats): _samples(columns) for repeats, columns in row["baselines"].items()}
    return TaskRace(**{**row, "baselines": baselines})


def _columns(samples: Iterable[Sample]) -> dict[str, list[Any]]:
    samples = tuple(samples)  # a name once, not once a sample: a third of the size
    return {item.name: [getattr(one, item.name) for one in samples] for item in fields(Sample)}


def _samples(columns: Mapping[str, list[Any]]) -> tuple[Sample, ...]:
    names = [item.name for item in fields(Sample)]
    return tuple(
        Sample(**dict(zip(names, values, strict=True)))
        for values in zip(*(columns[name] for name in names), strict=True)
    )


def _grouped(records: Iterable[MeasuredCandidate], key: Any) -> dict[str, list[MeasuredCandidate]]:
    groups: dict[str, list[MeasuredCandidate]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups

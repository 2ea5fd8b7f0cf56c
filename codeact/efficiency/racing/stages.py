"""The two stages of a measurement and its result, all through the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from codeact.efficiency.inputs.filters import filter_candidate
from codeact.efficiency.racing.field import RaceOptions
from codeact.efficiency.racing.host import Host
from codeact.efficiency.racing.journal import Journal
from codeact.efficiency.racing.measurements import (
    MeasuredCandidate,
    Measurements,
    TaskRace,
    race_from_row,
    race_to_row,
    record_from_row,
    record_to_row,
)
from codeact.efficiency.racing.noise import Noise, require_quiet
from codeact.efficiency.racing.race import race
from codeact.efficiency.racing.rounds import Track
from codeact.efficiency.racing.worklist import Contestant, Unit, Worklist

if TYPE_CHECKING:
    from codeact.efficiency.racing.meter import Meter
    from codeact.progress import OnProgress

Name = tuple[str, str]  # of a unit


@dataclass
class Work:
    """What is to be done, by whom, and what is done.

    Args:
        worklist: Everything.
        meter: Who runs and reads the clock.
        journal: Finished units, those of an earlier, killed call among them.
        options: Of the races.
        on_progress: Told of candidates checked and races run.
    """

    worklist: Worklist
    meter: Meter
    journal: Journal
    options: RaceOptions
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        self.num_done = sum(_amount(row) for row in self.journal.rows)

    def finish(self, row: Mapping[str, Any]) -> None:
        """Puts a finished unit on the disk, then tells of it."""
        self.journal.append(row)
        self.num_done += _amount(row)
        if self.on_progress is not None:
            total = self.worklist.num_contestants + len(self.worklist.units)
            self.on_progress(self.num_done, total)

    def checked(self) -> dict[tuple[Name, int], list[MeasuredCandidate]]:
        """Records of finished batches, by unit and number."""
        return {
            ((row["task_id"], row["language"]), row["batch"]): _records(row)
            for row in self._rows("checked")
        }

    def raced(self) -> dict[Name, tuple[TaskRace, list[MeasuredCandidate]]]:
        """Finished races, by unit."""
        found = {}
        for row in self._rows("raced"):
            summary = race_from_row(row["race"])
            records = [
                replace(record, baseline=summary.baselines.get(record.repeats, ()))
                for record in _records(row)
            ]
            found[summary.task_id, summary.language] = summary, records
        return found

    def noise(self) -> list[Noise]:
        """Calibrations, in the order they were made."""
        rows = [row["noise"] for row in self._rows("noise")]
        return [Noise(**{**row, "cpu_seconds": tuple(row["cpu_seconds"])}) for row in rows]

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.journal.rows if row["kind"] == kind]


def run_checks(work: Work, workers: int) -> None:
    """Runs every candidate that no finished batch holds once, ``workers`` at a time."""
    done = work.checked().keys()
    jobs = [
        (unit, number, batch)
        for unit in work.worklist.units
        for number, batch in unit.batches()
        if (unit.name, number) not in done
    ]

    def check(job: tuple[Unit, int, tuple[Contestant, ...]]) -> dict[str, Any]:
        unit, number, batch = job
        records = [_checked(work.meter, unit, one) for one in batch]
        return {
            "kind": "checked",
            "task_id": unit.task.id,
            "language": unit.language,
            "batch": number,
            "records": [record_to_row(record) for record in records],
        }

    with ThreadPoolExecutor(workers) as pool:
        _finish_all([pool.submit(check, job) for job in jobs], work.finish)


def run_races(work: Work, cores: Sequence[int], *, allow_noise: bool) -> None:
    """Runs every race that is not finished, one to a core, between two calibrations.

    Raises:
        HostTooNoisyError: The first calibration varies too much, and ``allow_noise`` is False.
    """
    done = work.raced().keys()
    units = [unit for unit in work.worklist.units if unit.name not in done]
    noise = work.noise()
    if not units and noise and noise[-1].when == "after":
        return
    before = work.meter.noise("before", cores[0]) if units else noise[-1]
    if units:
        require_quiet(before, allow_noise=allow_noise)
        work.journal.append({"kind": "noise", "noise": asdict(before)})
    batches = work.checked()

    def run(unit: Unit, core: int) -> dict[str, Any]:
        records = [one for number, _ in unit.batches() for one in batches[unit.name, number]]
        programs = {one.candidate_id: one.program for one in unit.contestants}
        track = Track(work.meter, unit.task, unit.language, core, before.cv)
        summary, records = race(track, records, programs, work.options)
        rows = [record_to_row(record) for record in records]
        return {"kind": "raced", "race": race_to_row(summary), "records": rows}

    # A unit has its CPU from its place in the work list: a resumed call gives it the same one.
    places = {unit.name: place for place, unit in enumerate(work.worklist.units)}
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in cores]
        futures = []
        for unit in units:
            place = places[unit.name] % len(cores)
            futures.append(pools[place].submit(run, unit, cores[place]))
        _finish_all(futures, work.finish)
    after = work.meter.noise("after", cores[0])
    require_quiet(after, allow_noise=True)
    work.journal.append({"kind": "noise", "noise": asdict(after)})


def collect(work: Work, host: Host, options: Mapping[str, Any]) -> Measurements:
    """The result, from the journal alone, in the order of the work list."""
    raced = work.raced()
    races = [raced[unit.name] for unit in work.worklist.units]
    return Measurements(
        records=tuple(record for _, records in races for record in records),
        tasks=tuple(summary for summary, _ in races),
        host=host,
        noise=tuple(dict.fromkeys(work.noise())),  # a call that was killed left one of its own
        options=dict(options),
    )


def _checked(meter: Meter, unit: Unit, contestant: Contestant) -> MeasuredCandidate:
    """A candidate after the filters and the correctness run."""
    program, cpu_seconds = contestant.program, 0.0
    verdict = filter_candidate(unit.task, program)
    if verdict is None:
        reading = meter.check(unit.task, program)
        verdict, cpu_seconds = reading.verdict, reading.cpu_seconds
    return MeasuredCandidate(
        task_id=unit.task.id,
        candidate_id=contestant.candidate_id,
        origin=contestant.origin,
        language=unit.language,
        status=verdict.status,
        reason=verdict.reason,
        num_tests=unit.num_tests,
        num_passed=verdict.num_passed,
        check_cpu_seconds=cpu_seconds,
        source_chars=len(program.source),
        source_sha256=contestant.source_sha256,
    )


def _amount(row: Mapping[str, Any]) -> int:
    """Candidates checked, or races run, in a line of the journal."""
    return {"checked": len(row.get("records", ())), "raced": 1}.get(row["kind"], 0)


def _records(row: Mapping[str, Any]) -> list[MeasuredCandidate]:
    return [record_from_row(record) for record in row["records"]]


def _finish_all(
    futures: Sequence[Future[dict[str, Any]]], finish: Callable[[Mapping[str, Any]], None]
) -> None:
    """Finishes results in the order they come; after an error no further job is begun."""
    try:
        for future in as_completed(futures):
            finish(future.result())
    except BaseException:
        for future in futures:
            future.cancel()
        raise
